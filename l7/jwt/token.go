// SPDX-License-Identifier: Apache-2.0

package jwt

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/penstock-lb/penstock/l7"
)

// A Token is one that has been verified. It is shared by the requests that carry it, and
// must not be changed.
type Token struct {
	Header map[string]any // such as kid and typ
	Claims map[string]any // numbers are json.Number

	ends   time.Time // with the leeway
	fields []set
	user   string
}

// set is a field that the request gets.
type set struct{ name, value string }

// Text returns a claim as text: a string as it is, and anything else as JSON. It is
// "" if the token has no such claim.
func (t *Token) Text(claim string) string {
	v, ok := t.Claims[claim]
	if !ok {
		return ""
	}
	if s, ok := v.(string); ok {
		return s
	}
	b, err := json.Marshal(v)
	if err != nil {
		return ""
	}
	return string(b)
}

// Scopes returns the words of scope (RFC 8693, section 4.2), or of scp, which may be a
// list.
func (t *Token) Scopes() []string {
	for _, name := range [...]string{"scope", "scp"} {
		switch v := t.Claims[name].(type) {
		case string:
			return strings.Fields(v)
		case []any:
			return strs(v)
		}
	}
	return nil
}

// has reports whether the token has all of these scopes.
func (t *Token) has(scopes []string) bool {
	if len(scopes) == 0 {
		return true
	}
	have := t.Scopes()
	return !slices.ContainsFunc(scopes, func(s string) bool { return !slices.Contains(have, s) })
}

// strs returns the strings of a list.
func strs(list []any) []string {
	var all []string
	for _, v := range list {
		if s, ok := v.(string); ok {
			all = append(all, s)
		}
	}
	return all
}

// ByClaim returns a func that takes a claim of the token for a key: of an l7.Limit, of
// an l7.HashBy, of an l7.Stick. Key is that of [Verify.Token]. An exchange whose token
// has no such claim has no key.
func ByClaim(key *l7.Key[*Token], claim string) func(*l7.Exchange) (string, bool) {
	return func(x *l7.Exchange) (string, bool) {
		t, ok := key.Get(x)
		if !ok {
			return "", false
		}
		v := t.Text(claim)
		return v, v != ""
	}
}
