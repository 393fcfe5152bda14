// SPDX-License-Identifier: Apache-2.0

package jwt

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/l7/internal/kept"
)

// Verify lets requests pass that carry a valid token, and answers others as RFC 6750,
// section 3, says: 401 without one, or with one that is not valid; 400 to a request
// with two; 403 to one whose scopes do not suffice; 503 while there are no keys.
//
// A token is valid if a key of Keys has signed it with the key's algorithm, if it has an
// end (exp) that is to come, has begun (nbf), was not made in time to come (iat), is of
// Issuer and for Audience, of Type, and has the claims of Require. One that asks for
// extensions (crit) is not.
//
// Record.Decision says what was decided, Record.Err why a token was refused, an [*Error],
// and Record.User the subject.
type Verify struct {
	Keys Keys // a *JWKS, Static, or a KeyFunc

	// Algorithms are those that tokens may be signed with; nil means those of the keys.
	Algorithms []string

	Issuer   string   // iss; must be set, unless AnyIssuer is
	Audience []string // aud: one of them; must be set, unless AnyAudience is

	AnyIssuer   bool // Keys are of one issuer only, whatever it calls itself
	AnyAudience bool // tokens that the issuer made for other services are good for this one too

	Type    string        // typ of the header, such as "at+jwt" (RFC 9068); "" means any
	Require []string      // claims that a token must have, beside exp
	Scopes  []string      // that a token must have, all of them, or the answer is 403
	Leeway  time.Duration // of clocks that differ; 0 means 10s, negative means none

	// Header, Cookie and Query are where the token may be: a request field, with or
	// without "Bearer " before it, a cookie, a parameter of the query. All empty means
	// the credentials of Authorization. A token in the query does not get into the
	// record.
	Header, Cookie, Query string

	// Optional lets requests without a token pass, without the fields of ToRequest. One
	// with a token that is not valid is refused all the same.
	Optional bool

	// Forward leaves the token in the request. By default servers do not see it.
	Forward bool

	ToRequest []ToField       // claims that servers are told in fields
	Token     *l7.Key[*Token] // gets the token, for handlers that follow and for ByClaim; nil means none
	User      string          // the claim that becomes Record.User; "" means sub
	Realm     string          // of the answers; "" means none; must not hold quotes or backslashes

	// KeepFor is how long a token that was found valid is taken for that without a look
	// at its signature, and at Keys; 0 means 1m, negative means none. Its end is looked at
	// each time, and must be after the arrival of the request.
	KeepFor   time.Duration
	MaxKept   int // tokens; 0 means 10000, negative means none
	KeptBytes int // that they take in all; 0 means 32 MiB, negative means none
	MaxBytes  int // of a token; 0 means 8 KiB

	Timeout time.Duration // of a wait for Keys; 0 means 5s, negative means none

	Next http.Handler

	kept kept.Table[*Token]
}

// A ToField tells servers a claim in a request field. What the client sends under that
// name, in any spelling, is removed in any case. A token whose claim cannot be in a field
// as it is, with control characters or space at an end, is refused.
type ToField struct {
	Claim string // a string is told as it is, anything else as JSON
	Field string
}

// ServeExchange implements [l7.Handler].
func (h *Verify) ServeExchange(x *l7.Exchange) {
	raw, n := h.carried(x)
	h.hide(x)
	switch {
	case n == 0 && h.Optional:
		x.Record.Decide("jwt: none")
		h.pass(x, nil)
		return
	case n == 0:
		h.refuse(x, &Error{Status: http.StatusUnauthorized})
		return
	case n > 1:
		h.refuse(x, &Error{Status: http.StatusBadRequest, Code: "invalid_request", Err: errTwice})
		return
	}
	now := x.Record.Start // spares a reading of the clock, a third of what Verify costs
	if now.IsZero() {
		now = time.Now()
	}
	t, ok := h.kept.Get(bytesOf(raw), now, h.limits())
	if ok && now.Before(t.ends) {
		x.Record.Decide("jwt: valid, kept")
	} else {
		var err *Error
		if t, err = h.verify(x.Context(), raw, now); err != nil {
			h.refuse(x, err)
			return
		}
		x.Record.Decide("jwt: valid")
	}
	if !t.has(h.Scopes) {
		h.refuse(x, &Error{Status: http.StatusForbidden, Code: "insufficient_scope", Err: errScope})
		return
	}
	h.pass(x, t)
}

// ServeHTTP implements [http.Handler].
func (h *Verify) ServeHTTP(w http.ResponseWriter, r *http.Request) { l7.ServeHTTP(h, w, r) }

// pass hands on, with what the token says; nil means that there is none.
func (h *Verify) pass(x *l7.Exchange, t *Token) {
	for i := range h.ToRequest {
		if t == nil || t.fields[i].value == "" {
			x.Header.Del(h.ToRequest[i].Field)
		} else {
			x.Header.Set(t.fields[i].name, t.fields[i].value)
		}
	}
	if t != nil {
		if t.user != "" {
			x.Record.User = t.user
		}
		if h.Token != nil {
			h.Token.Set(x, t)
		}
	}
	l7.Serve(h.Next, x)
}

func (h *Verify) limits() kept.Limits {
	return kept.Limits{Max: orDefault(h.MaxKept, 10_000), Bytes: orDefault(h.KeptBytes, 32<<20)}
}

// verify looks at a token that is not known yet, and keeps it.
func (h *Verify) verify(ctx context.Context, raw string, now time.Time) (*Token, *Error) {
	if len(raw) > positive(h.MaxBytes, 8<<10) {
		return nil, invalid(errTooLong)
	}
	var unavailable error
	p := jwt.NewParser(h.options()...)
	parsed, err := p.ParseWithClaims(raw, jwt.MapClaims{}, func(t *jwt.Token) (any, error) {
		keys, err := h.keysFor(ctx, t)
		if err != nil && !errors.Is(err, errNoKeyFits) {
			unavailable = err
		}
		return keys, err
	})
	if unavailable != nil {
		return nil, &Error{Status: http.StatusServiceUnavailable, Err: unavailable}
	}
	if err != nil {
		return nil, invalid(err)
	}
	t := &Token{Header: parsed.Header, Claims: parsed.Claims.(jwt.MapClaims)}
	if err := h.take(t); err != nil {
		return nil, invalid(err)
	}
	if d := orDefault(h.KeepFor, time.Minute); d > 0 {
		size := 4 * len(raw) // the claims as a map, about
		for _, f := range t.fields {
			size += len(f.value)
		}
		h.kept.Put(bytesOf(raw), t, size, now.Add(d), h.limits())
	}
	return t, nil
}

func (h *Verify) options() []jwt.ParserOption {
	all := []jwt.ParserOption{
		jwt.WithLeeway(h.leeway()), jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithJSONNumber(), jwt.WithStrictDecoding(),
	}
	if h.Algorithms != nil {
		all = append(all, jwt.WithValidMethods(h.Algorithms))
	}
	if h.Issuer != "" {
		all = append(all, jwt.WithIssuer(h.Issuer))
	}
	if len(h.Audience) > 0 {
		all = append(all, jwt.WithAudience(h.Audience...))
	}
	return all
}

func (h *Verify) leeway() time.Duration { return orDefault(h.Leeway, 10*time.Second) }

// keysFor returns the keys that may have signed a token: those of its algorithm.
func (h *Verify) keysFor(ctx context.Context, t *jwt.Token) (any, error) {
	alg, _ := t.Header["alg"].(string)
	kid, _ := t.Header["kid"].(string)
	if !known(alg) {
		return nil, fmt.Errorf("%w: its algorithm is %q", errNoKeyFits, alg)
	}
	if d := orDefault(h.Timeout, 5*time.Second); d > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d)
		defer cancel()
	}
	keys, err := h.Keys.Keys(ctx, kid)
	if err != nil {
		return nil, err
	}
	var set jwt.VerificationKeySet
	for _, k := range keys {
		if k.Algorithm == alg && (k.ID == kid || k.ID == "" || kid == "") && k.usable() == nil {
			set.Keys = append(set.Keys, k.Public)
			if len(set.Keys) == maxTried {
				break
			}
		}
	}
	if len(set.Keys) == 0 {
		return nil, fmt.Errorf("%w: its algorithm is %q, its kid %q", errNoKeyFits, alg, kid)
	}
	l4.TakeTurn() // a signature takes up to a fraction of a millisecond to verify
	return set, nil
}

// maxTried is how many keys a signature is compared with, where more than one fits.
const maxTried = 8

// take checks what golang-jwt does not, and works out what is told of the token.
func (h *Verify) take(t *Token) error {
	if _, ok := t.Header["crit"]; ok { // RFC 7515, section 4.1.11: we know none
		return errCrit
	}
	if typ, _ := t.Header["typ"].(string); h.Type != "" && !sameType(typ, h.Type) {
		return fmt.Errorf("jwt: its type is %q", typ)
	}
	for _, name := range h.Require {
		if v, ok := t.Claims[name]; !ok || v == nil || v == "" {
			return fmt.Errorf("jwt: it has no claim %q", name)
		}
	}
	exp, err := jwt.MapClaims(t.Claims).GetExpirationTime()
	if err != nil || exp == nil {
		return jwt.ErrTokenExpired
	}
	t.ends = exp.Add(h.leeway())
	t.fields = make([]set, len(h.ToRequest))
	for i, f := range h.ToRequest {
		v := t.Text(f.Claim)
		if !fit(v) {
			return fmt.Errorf("jwt: the claim %q cannot be in a field", f.Claim)
		}
		t.fields[i] = set{f.Field, v}
	}
	user := h.User
	if user == "" {
		user = "sub"
	}
	if t.user = t.Text(user); !fit(t.user) {
		return fmt.Errorf("jwt: the claim %q cannot be in a field", user)
	}
	return nil
}

// sameType compares types of tokens, whose "application/" may be left out (RFC 7515,
// section 4.1.9).
func sameType(a, b string) bool {
	cut := func(s string) string { return strings.TrimPrefix(strings.ToLower(s), "application/") }
	return cut(a) == cut(b)
}

// fit reports whether a field would carry the value as it is.
func fit(v string) bool {
	return strings.TrimSpace(v) == v && !slices.ContainsFunc([]byte(v), func(c byte) bool { return c < ' ' || c == 0x7f })
}
