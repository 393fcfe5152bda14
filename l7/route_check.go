// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"

	"github.com/penstock-lb/penstock"
)

// problemOf returns what is wrong with a matcher of ours that holds no others,
// and the text that it is about.
func problemOf(m Matcher) (text, what string) {
	switch m := m.(type) {
	case Method:
		return string(m), m.problem()
	case Scheme:
		if text = string(m); text != "http" && text != "https" {
			what = `is neither "http" nor "https"`
		}
	case Host:
		return string(m), m.problem()
	case SNI:
		return string(m), Host(m).problem()
	case Path:
		text = string(m)
		if !strings.HasPrefix(text, "/") && text != "*" {
			return text, "does not begin with a slash"
		}
		if text != "*" {
			what = pathProblem(text, "Path")
		}
	case PathPrefix:
		text = string(m)
		if text != "" && text[0] != '/' {
			return text, "does not begin with a slash"
		}
		what = pathProblem(text, "PathPrefix")
	case PathSuffix:
		text = string(m)
		what = pathProblem(text, "PathSuffix")
	case PathPattern:
		text = string(m)
		if what = m.problem(); what == "" && strings.Contains(text, "*") {
			what = pathProblem(text, "PathPattern")
		}
	case PathRegexp:
		if m.Regexp == nil {
			what = "has no expression"
		}
	case HostRegexp:
		if m.Regexp == nil {
			what = "has no expression"
		}
	case Header:
		if text = m.Name; !isToken(text) {
			what = "is not a field name"
		} else if kindOf(text).owned() {
			what = "is a field that exchanges do not hold"
		}
	case Cookie:
		if text = m.Name; !isToken(text) {
			what = "is not the name of a cookie"
		}
	case ContentType:
		text = string(m)
		if first, second, ok := strings.Cut(text, "/"); !ok || !isToken(first) || !isToken(second) || first == "*" || len(second) > 1 && strings.Contains(second, "*") {
			what = `is not a media type, such as "application/json" or "image/*", without parameters`
		}
	case LocalPort:
		if m == 0 {
			return "0", "is not a port"
		}
	case RemotePorts:
		if m.From > m.To {
			return fmt.Sprintf("%d-%d", m.From, m.To), "has no port between From and To"
		}
	case TLS:
		if m.Max != 0 && m.Min > m.Max {
			return fmt.Sprintf("%#x-%#x", m.Min, m.Max), "has no version between Min and Max"
		}
	case MatchFunc:
		if m == nil {
			what = "is nil"
		}
	}
	return text, what
}

// problem finds methods in lower case: they are case-sensitive (RFC 9110,
// section 9.1), and no client means "get".
func (m Method) problem() string {
	switch {
	case !isToken(string(m)):
		return "is not a method"
	case strings.ToUpper(string(m)) != string(m) && isKnownMethod(strings.ToUpper(string(m))):
		return fmt.Sprintf("is not %q: methods are case-sensitive", strings.ToUpper(string(m)))
	}
	return ""
}

// isKnownMethod reports whether m is a method of RFC 9110 or RFC 5789.
func isKnownMethod(m string) bool {
	switch m {
	case "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE":
		return true
	}
	return false
}

// pathProblem finds what a path of a request can hardly have: a byte that has
// to be escaped, or a star as other routers use it.
func pathProblem(path, as string) string {
	if !all(path, isTargetByte) || strings.Contains(path, "?") {
		return "has a byte that no path has: escape it"
	}
	for rest := path; rest != ""; {
		var el string
		if el, rest = element(strings.TrimPrefix(rest, "/")); !strings.HasSuffix(el, "*") && !(as == "PathSuffix" && strings.HasPrefix(el, "*")) {
			continue
		}
		switch as {
		case "PathSuffix":
			return fmt.Sprintf("has a *, which stands for itself: write PathSuffix(%q)", strings.TrimLeft(path, "*"))
		case "PathPattern":
			return "has a *, which stands for itself: write {name}, or {name...} at the end"
		}
		if base := strings.TrimRight(path, "*"); strings.HasSuffix(base, "/") && !strings.Contains(base, "*") {
			return fmt.Sprintf("has a *, which stands for itself: write PathPrefix(%q)", cmpOr(strings.TrimSuffix(base, "/"), "/"))
		}
		return "has a *, which stands for itself: write a PathPattern or a PathRegexp"
	}
	return ""
}

// checkMatcher is the Check of a matcher that holds no others.
func checkMatcher(m Matcher) error {
	field := matcherName(m)
	switch m.(type) {
	case Header, Cookie:
		field += ".Name"
	case PathRegexp, HostRegexp:
		field += ".Regexp"
	}
	var l penstock.Mistakes
	text, what := problemOf(m)
	l.If(what != "", field, text, what)
	return l.Err()
}

func matcherName(m Matcher) string {
	return strings.TrimPrefix(reflect.TypeOf(m).String(), "l7.")
}

// The methods below return what is wrong with a matcher, each mistake a
// [*penstock.ConfigError]. [Router.Set] calls them, and whoever else holds one.

// Check returns what is wrong with f.
func (f MatchFunc) Check() error { return checkMatcher(f) }

// Check returns what is wrong with m.
func (m Method) Check() error { return checkMatcher(m) }

// Check returns what is wrong with s.
func (s Scheme) Check() error { return checkMatcher(s) }

// Check returns what is wrong with h.
func (h Header) Check() error { return checkMatcher(h) }

// Check returns what is wrong with c.
func (c Cookie) Check() error { return checkMatcher(c) }

// Check returns what is wrong with c.
func (c ContentType) Check() error { return checkMatcher(c) }

// Check returns what is wrong with h.
func (h Host) Check() error { return checkMatcher(h) }

// Check returns what is wrong with s.
func (s SNI) Check() error { return checkMatcher(s) }

// Check returns what is wrong with p.
func (p Path) Check() error { return checkMatcher(p) }

// Check returns what is wrong with p.
func (p PathPrefix) Check() error { return checkMatcher(p) }

// Check returns what is wrong with p.
func (p PathSuffix) Check() error { return checkMatcher(p) }

// Check returns what is wrong with p.
func (p PathPattern) Check() error { return checkMatcher(p) }

// Check returns what is wrong with p.
func (p PathRegexp) Check() error { return checkMatcher(p) }

// Check returns what is wrong with h.
func (h HostRegexp) Check() error { return checkMatcher(h) }

// Check returns what is wrong with p.
func (p LocalPort) Check() error { return checkMatcher(p) }

// Check returns what is wrong with p.
func (p RemotePorts) Check() error { return checkMatcher(p) }

// Check returns what is wrong with t.
func (t TLS) Check() error { return checkMatcher(t) }

// Check returns what is wrong with p.
func (p RemoteIn) Check() error { return checkPrefixes("RemoteIn", p) }

// Check returns what is wrong with p.
func (p ClientIn) Check() error { return checkPrefixes("ClientIn", p) }

// Check returns what is wrong with p.
func (p LocalIn) Check() error { return checkPrefixes("LocalIn", p) }

func checkPrefixes(name string, list []netip.Prefix) error {
	c := newChecks()
	c.prefixes(name, list)
	return c.Err()
}

// Check returns what is wrong with u and its pool.
func (u PoolUsable) Check() error {
	var m penstock.Mistakes
	m.Need("PoolUsable.Pool", u.Pool, "must be the pool that is asked")
	m.In("PoolUsable.Pool", u.Pool)
	m.If(u.Min < 0, "PoolUsable.Min", u.Min, notNegative)
	return m.Err()
}

// Check returns what is wrong with the matchers.
func (a All) Check() error { return checkList("All", a) }

// Check returns what is wrong with the matchers.
func (o Any) Check() error { return checkList("Any", o) }

func checkList(name string, list []Matcher) error {
	var m penstock.Mistakes
	for i, one := range list {
		field := fmt.Sprintf("%s[%d]", name, i)
		m.Need(field, one, "must be a matcher")
		m.In(field, one)
	}
	return m.Err()
}

// Check returns what is wrong with the matcher that is negated.
func (n not) Check() error {
	var m penstock.Mistakes
	m.Need("Not", n.m, "must be of a matcher")
	m.In("Not", n.m)
	return m.Err()
}
