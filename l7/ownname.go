// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
)

// An ownName is a rule for names of request fields that belong to the gateway: it
// writes or removes them. A trailer field of such a name from the client is not
// forwarded, since a server may merge it into the header (RFC 9110, section
// 6.5.1).
type ownName struct {
	name, prefix, suffix, contains string
	expr                           *regexp.Regexp
}

// fits reports whether the rule covers that name, in any spelling.
func (c *ownName) fits(name string) bool {
	n := len(name)
	return c.name != "" && alike(name, c.name) ||
		c.prefix != "" && n >= len(c.prefix) && covers(name[:len(c.prefix)], c.prefix) ||
		c.suffix != "" && n >= len(c.suffix) && covers(name[n-len(c.suffix):], c.suffix) ||
		c.contains != "" && contains(name, strings.ToLower(c.contains)) ||
		c.expr != nil && matchesName(c.expr, name)
}

// ownField adds the rule for one name, unless there is a rule with that name.
func (f *Fields) ownField(name string) {
	for i := range f.own { // comparing whole rules here would be a quarter of Set
		if f.own[i].name == name {
			return
		}
	}
	f.addOwn(ownName{name: name})
}

// ownRule adds a rule, once.
func (f *Fields) ownRule(c ownName) {
	if !slices.Contains(f.own, c) {
		f.addOwn(c)
	}
}

func (f *Fields) addOwn(c ownName) {
	if f.home != f { // f is a copy: the memory may be shared
		f.own = slices.Clip(f.own)
	}
	f.own = append(f.own, c)
}

// owns reports whether a name belongs to the gateway.
func (f *Fields) owns(name string) bool {
	return slices.ContainsFunc(f.own, func(c ownName) bool { return c.fits(name) })
}

// withoutOwn returns a trailer of the request without the names that the gateway
// owns, nil if nothing is left.
func (f *Fields) withoutOwn(trailer *Fields) *Fields {
	if trailer == nil || len(f.own) == 0 {
		return trailer
	}
	rest := trailer.Clone()
	rest.DelFunc(func(name, _ string) bool { return f.owns(name) })
	return &rest
}

// withoutOwnMap is withoutOwn for a trailer of net/http. It also drops fields that a
// trailer may not have and net/http lets through.
func (f *Fields) withoutOwnMap(trailer http.Header) http.Header {
	if len(trailer) == 0 {
		return trailer
	}
	rest := maps.Clone(trailer)
	maps.DeleteFunc(rest, func(name string, _ []string) bool { return forbiddenTrailer(name) || f.owns(name) })
	return rest
}

// trailer returns the request's trailer as it is forwarded. The body must have
// been read.
func (x *Exchange) trailer() *Fields { return x.Header.withoutOwn(x.down.trailer()) }

func matchesName(e *regexp.Regexp, name string) bool {
	return e.MatchString(http.CanonicalHeaderKey(name)) ||
		strings.IndexByte(name, '_') >= 0 && e.MatchString(http.CanonicalHeaderKey(strings.ReplaceAll(name, "_", "-")))
}

// covers reports whether a pattern matches a name of the same length, where "_"
// in the name matches "-".
func covers(name, pattern string) bool {
	for i := range len(name) {
		if c, p := lower(name[i]), lower(pattern[i]); c != p && (c != '_' || p != '-') {
			return false
		}
	}
	return true
}

// contains reports whether a pattern in lower case matches anywhere in the name.
func contains(name, pattern string) bool {
	name = strings.ToLower(name)
	return strings.Contains(name, pattern) ||
		strings.IndexByte(name, '_') >= 0 && strings.Contains(strings.ReplaceAll(name, "_", "-"), pattern)
}
