// SPDX-License-Identifier: Apache-2.0

package l7

import "strings"

// A Matcher decides whether a [Route] applies to an exchange. It must not
// change the exchange, must not block, and may be called by several goroutines
// at once.
//
// Matchers are values: Host("a.example"), PathPrefix("/api"), All{Method("GET"), Cookie{Name:
// "beta"}}. A matcher of your own is a [MatchFunc] or any type with the method; a [Narrower] is
// indexed by the router. A matcher of something that is absent (a field, a certificate) does not
// match.
type Matcher interface {
	Match(x *Exchange) bool
}

// MatchFunc is a func as a [Matcher].
type MatchFunc func(x *Exchange) bool

// Match calls f.
func (f MatchFunc) Match(x *Exchange) bool { return f(x) }

// All matches if all of its matchers do. An empty All always matches.
type All []Matcher

// Match implements [Matcher].
func (a All) Match(x *Exchange) bool { return matches(a, x, 0) }

// Any matches if one of its matchers does. An empty Any never matches.
type Any []Matcher

// Match implements [Matcher].
func (o Any) Match(x *Exchange) bool { return matches(o, x, 0) }

// Not returns a matcher that matches if m does not.
func Not(m Matcher) Matcher { return not{m} }

type not struct{ m Matcher }

func (n not) Match(x *Exchange) bool { return matches(n, x, 0) }

// Method matches one request method. Methods are case-sensitive (RFC 9110,
// section 9.1).
type Method string

// Match implements [Matcher].
func (m Method) Match(x *Exchange) bool { return x.Method == string(m) }

// Scheme matches "http" or "https", the scheme that the client used.
type Scheme string

// Match implements [Matcher].
func (s Scheme) Match(x *Exchange) bool { return x.Scheme == string(s) }

// Header matches if a line of that name has that value. If neither Value nor
// Test is set, any value matches. Names are compared without regard to case,
// values byte by byte.
type Header struct {
	Name  string
	Value string
	Test  func(value string) bool // instead of Value

	// Items compares each item of the comma-separated list in all lines (RFC 9110,
	// section 5.6.1) instead of whole lines.
	Items bool
}

// Match implements [Matcher].
func (h Header) Match(x *Exchange) bool {
	for i := range x.Header.list {
		f := &x.Header.list[i]
		if !f.named(h.Name) {
			continue
		}
		if !h.Items {
			if h.is(f.Value) {
				return true
			}
			continue
		}
		found := false
		eachItem(f.Value, func(item string) { found = found || h.is(item) })
		if found {
			return true
		}
	}
	return false
}

func (h Header) is(value string) bool { return valueIs(value, h.Value, h.Test) }

func valueIs(value, want string, test func(string) bool) bool {
	if test != nil {
		return test(value)
	}
	return want == "" || value == want
}

// ContentType matches the media type of the request body: "application/json",
// or "image/*" for all of one type. Parameters and case are ignored.
type ContentType string

// Match implements [Matcher].
func (c ContentType) Match(x *Exchange) bool {
	v, ok := x.Header.Lookup("Content-Type")
	if !ok {
		return false
	}
	v, _, _ = strings.Cut(v, ";")
	v = trimOWS(v)
	if all, ok := strings.CutSuffix(string(c), "*"); ok {
		return len(v) >= len(all) && equalFold(v[:len(all)], all)
	}
	return equalFold(v, c)
}

// Cookie matches if the client sent a cookie of that name and value. If neither
// Value nor Test is set, any value matches. Name and value are compared byte by
// byte.
type Cookie struct {
	Name  string
	Value string
	Test  func(value string) bool // instead of Value
}

// Match implements [Matcher].
func (c Cookie) Match(x *Exchange) bool {
	found := false
	eachCookie(&x.Header, func(name, value string) bool {
		found = name == c.Name && valueIs(value, c.Value, c.Test)
		return !found
	})
	return found
}

// Query matches if the query has a parameter of that name and value. If neither
// Value nor Test is set, any value matches. Name and value are compared after
// decoding (%41 is A, + is a space); a parameter that cannot be decoded does
// not match.
type Query struct {
	Name  string
	Value string
	Test  func(value string) bool // instead of Value
}

// Match implements [Matcher].
func (q Query) Match(x *Exchange) bool {
	found := false
	eachQuery(x.Query, func(name, value string) bool {
		found = name == q.Name && valueIs(value, q.Value, q.Test)
		return !found
	})
	return found
}

// QueryValue returns the decoded value of the first parameter of that name.
func QueryValue(x *Exchange, name string) (string, bool) {
	var v string
	found := false
	eachQuery(x.Query, func(n, value string) bool {
		if found = n == name; found {
			v = value
		}
		return !found
	})
	return v, found
}
