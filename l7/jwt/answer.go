// SPDX-License-Identifier: Apache-2.0

package jwt

import (
	"errors"
	"net/http"
	"strings"
	"unsafe"

	"github.com/golang-jwt/jwt/v5"

	"github.com/penstock-lb/penstock"
	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l7"
)

// An Error says why a request was refused. It is in Record.Err.
type Error struct {
	Status int    // of the answer
	Code   string // of RFC 6750, section 3.1; "" where the request had no token, and with 503
	Err    error  // what was wrong; nil if there was no token
}

func (e *Error) Error() string {
	switch {
	case e.Err == nil:
		return "jwt: no token"
	case strings.HasPrefix(e.Err.Error(), "jwt: "):
		return e.Err.Error()
	}
	return "jwt: " + e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

var (
	errTwice     = errors.New("jwt: more than one token, or other credentials beside it")
	errTooLong   = errors.New("jwt: the token is longer than MaxBytes")
	errCrit      = errors.New("jwt: it asks for extensions that are not known")
	errScope     = errors.New("jwt: its scopes do not suffice")
	errNoKeyFits = errors.New("jwt: no key fits")
)

func invalid(err error) *Error {
	return &Error{Status: http.StatusUnauthorized, Code: "invalid_token", Err: err}
}

// refuse answers, and says no more about a token than that it is not valid or has
// expired.
func (h *Verify) refuse(x *l7.Exchange, err *Error) {
	x.Record.Err = err
	if err.Status == http.StatusServiceUnavailable {
		x.Record.Decide("jwt: no keys")
		x.Error(err.Status, l4.Termination{Cause: l4.Resource, Phase: l4.PhaseRequest})
		return
	}
	if err.Code == "" {
		x.Record.Decide("jwt: refused, no token")
	} else {
		x.Record.Decide("jwt: refused, " + err.Code)
	}
	challenge := h.challenge(err)
	x.OnReply(l7.ReplyFunc(func(_ *l7.Exchange, r *l7.Reply) { r.Header.Set("WWW-Authenticate", challenge) }))
	x.Error(err.Status, l4.Termination{Cause: l4.Denied, Phase: l4.PhaseRequest})
}

func (h *Verify) challenge(err *Error) string {
	var params []string
	add := func(name, value string) {
		if value != "" {
			params = append(params, name+`="`+value+`"`)
		}
	}
	add("realm", h.Realm)
	add("error", err.Code)
	if errors.Is(err, jwt.ErrTokenExpired) {
		add("error_description", "the token has expired")
	}
	if err.Code == "insufficient_scope" {
		add("scope", strings.Join(h.Scopes, " "))
	}
	return strings.TrimRight("Bearer "+strings.Join(params, ", "), " ")
}

// Check returns what is wrong with h, its keys and its handler, each mistake a
// [*penstock.ConfigError].
func (h *Verify) Check() error {
	var m penstock.Mistakes
	m.Need("Verify.Keys", h.Keys, "must be the keys of the issuer, such as a *jwt.JWKS")
	m.In("Verify.Keys", h.Keys)
	m.If(h.Algorithms != nil && len(h.Algorithms) == 0, "Verify.Algorithms", h.Algorithms, "must be nil, or name an algorithm")
	for _, a := range h.Algorithms {
		m.If(!known(a), "Verify.Algorithms", a, "must be algorithms of signatures, such as RS256")
	}
	m.If((h.Issuer == "") != h.AnyIssuer, "Verify.Issuer", h.Issuer, "must be the iss of the tokens, or AnyIssuer must be set instead")
	m.If((len(h.Audience) == 0) != h.AnyAudience, "Verify.Audience", h.Audience, "must be the aud of this service, or AnyAudience must be set instead")
	for _, f := range h.ToRequest {
		m.If(f.Claim == "", "Verify.ToRequest.Claim", "", "must be the name of a claim")
		m.In("Verify.ToRequest.Field", l7.SetField{Name: f.Field})
	}
	m.If(strings.ContainsAny(h.Realm+strings.Join(h.Scopes, ""), `"\`) || !fit(h.Realm), "Verify.Realm", h.Realm, "must not hold quotes, backslashes or control characters, nor may Scopes")
	if h.Header != "" {
		m.In("Verify.Header", l7.SetField{Name: h.Header})
	}
	m.If(strings.ContainsAny(h.Cookie, "=; \t"), "Verify.Cookie", h.Cookie, "must be the name of a cookie")
	m.If(h.MaxBytes < 0, "Verify.MaxBytes", h.MaxBytes, "must not be negative")
	m.Need("Verify.Next", h.Next, "must be the handler that goes on")
	m.In("Verify.Next", h.Next)
	return m.Err()
}

// bytesOf returns the bytes of s, which must not be written to.
func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }
