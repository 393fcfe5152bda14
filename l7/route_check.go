// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"

	"github.com/penstock-lb/penstock"
)

// problemOf returns what is wrong with a matcher of this package that holds no others,
// and the text at fault.
func problemOf(m Matcher) (text, what string) {
	_, text, what = fieldProblem(m)
	return text, what
}

// fieldProblem is problemOf that says which field it is, "" for the matcher itself.
func fieldProblem(m Matcher) (field, text, what string) {
	switch m := m.(type) {
	case Header:
		return m.problem()
	case Cookie:
		return m.problem()
	case Query:
		return valueProblem(m.Name, m.Name != "", "is not the name of a parameter", m.Value, true, m.Test != nil)
	case PathRegexp:
		if m.Regexp == nil {
			return "Regexp", "", "has no expression"
		}
	case HostRegexp:
		if m.Regexp == nil {
			return "Regexp", "", "has no expression"
		}
	case ALPN:
		return "", string(m), m.problem()
	case JA4:
		return "", string(m), m.problem()
	case RemotePorts:
		if m.To == 0 {
			field = "To"
		}
	}
	text, what = textProblem(m)
	return field, text, what
}

// valueProblem finds what is wrong with a matcher of a name and a value.
func valueProblem(name string, nameOK bool, notName, value string, valueOK, test bool) (field, text, what string) {
	switch {
	case !nameOK:
		return "Name", name, notName
	case value != "" && test:
		return "Value", value, "is not looked at: Test is called instead"
	case !valueOK:
		return "Value", value, "is never sent in this form: no request can match"
	}
	return "", "", ""
}

func (h Header) problem() (field, text, what string) {
	if isToken(h.Name) && kindOf(h.Name).owned() {
		return "Name", h.Name, "is a field that Exchange.Header never has"
	}
	sent := validValue(h.Value) && strings.Trim(h.Value, " \t") == h.Value
	if h.Items && strings.Contains(h.Value, ",") && !strings.Contains(h.Value, `"`) {
		sent = false // it would be two items
	}
	return valueProblem(h.Name, isToken(h.Name), "is not a field name", h.Value, sent, h.Test != nil)
}

func (c Cookie) problem() (field, text, what string) {
	sent := cookieAttr(c.Value) || !strings.ContainsAny(c.Value, ";\r\n\x00") && strings.TrimSpace(c.Value) == c.Value
	return valueProblem(c.Name, isToken(c.Name), "is not the name of a cookie", c.Value, sent, c.Test != nil)
}

// problem finds what is no name of a protocol, or hardly the one that was meant.
// (IANA, "TLS Application-Layer Protocol Negotiation (ALPN) Protocol IDs".)
func (a ALPN) problem() string {
	switch strings.ToLower(string(a)) {
	case "h2", "http/2", "http2", "h2c", "http/2.0":
		if a != "h2" {
			return `is not "h2", as HTTP/2 over TLS is called (RFC 9113, section 3.2)`
		}
	case "http/1.1", "http1.1", "http1", "http/1":
		if a != "http/1.1" {
			return `is not "http/1.1" (RFC 7301, section 6)`
		}
	}
	switch {
	case len(a) > 255:
		return "is longer than 255 bytes, the maximum"
	case strings.Contains(string(a), ","):
		return "is not one protocol: write an ALPN for each, in an Any"
	}
	return ""
}

// problem finds what is no fingerprint.
func (j JA4) problem() string {
	parts := strings.Split(string(j), "_")
	hash := func(s string) bool { return len(s) == 12 && strings.Trim(s, "0123456789abcdef") == "" }
	if len(parts) != 3 || len(parts[0]) != 10 || !hash(parts[1]) || !hash(parts[2]) {
		return "is not a whole fingerprint, as in Record.JA4: to match a part, write a MatchFunc that looks at Exchange.JA4"
	}
	return ""
}

// textProblem is problemOf for matchers that are a text or numbers.
func textProblem(m Matcher) (text, what string) {
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
		if m.From > m.To || m.To == 0 {
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

// problem refuses known methods in lower case: methods are case-sensitive (RFC
// 9110, section 9.1), and "get" is most likely a mistake.
func (m Method) problem() string {
	switch {
	case m == "*":
		return "is not a method: leave it out, and all of them match"
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

// pathProblem finds bytes that the path of a request hardly ever has: one that
// has to be escaped, or a star as in the patterns of other routers.
func pathProblem(path, as string) string {
	if !all(path, isTargetByte) || strings.Contains(path, "?") {
		return "has a byte that must be escaped in a path"
	}
	for rest := path; rest != ""; {
		var el string
		el, rest = element(strings.TrimPrefix(rest, "/"))
		if _, wild := wildcard(el); wild && as != "PathPattern" {
			return "has braces, which stand for themselves: write a PathPattern"
		}
		if !strings.HasSuffix(el, "*") && !(as == "PathSuffix" && strings.HasPrefix(el, "*")) {
			continue
		}
		switch as {
		case "PathSuffix":
			if suffix := strings.TrimLeft(path, "*"); suffix != path && !strings.Contains(suffix, "*") {
				return fmt.Sprintf("has a *, which stands for itself: write PathSuffix(%q)", suffix)
			}
			return "has a *, which stands for itself: write a PathPattern or a PathRegexp"
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
	var l penstock.Mistakes
	if field, text, what := fieldProblem(m); what != "" {
		if field != "" {
			field = "." + field
		}
		l.If(true, matcherName(m)+field, text, what)
	}
	return l.Err()
}

func matcherName(m Matcher) string {
	return strings.TrimPrefix(reflect.TypeOf(m).String(), "l7.")
}

// The methods below return what is wrong with a matcher, each mistake a
// [*penstock.ConfigError]. [Router.Set] calls them, and the Check of every
// literal that holds a matcher.

// Check returns what is wrong with f.
func (f MatchFunc) Check() error { return checkMatcher(f) }

// Check returns what is wrong with m.
func (m Method) Check() error { return checkMatcher(m) }

// Check returns what is wrong with s.
func (s Scheme) Check() error { return checkMatcher(s) }

// Check returns what is wrong with h.
func (h Header) Check() error { return checkMatcher(h) }

// Check returns what is wrong with q.
func (q Query) Check() error { return checkMatcher(q) }

// Check returns what is wrong with a.
func (a ALPN) Check() error { return checkMatcher(a) }

// Check returns what is wrong with j.
func (j JA4) Check() error { return checkMatcher(j) }

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
	m.Need("PoolUsable.Pool", u.Pool, "must be the pool to check")
	m.In("PoolUsable.Pool", u.Pool)
	m.If(u.Min < 0, "PoolUsable.Min", u.Min, notNegative)
	return m.Err()
}

// Check returns what is wrong with the matchers.
func (a All) Check() error { return checkTree(a, 0) }

// Check returns what is wrong with the matchers.
func (o Any) Check() error { return checkTree(o, 0) }

// Check returns what is wrong with the matcher that is negated.
func (n not) Check() error { return checkTree(n, 0) }

// matcher adds what is wrong with the matcher of a field that may be nil.
func (c *checks) matcher(field string, m Matcher) { c.Add(field, checkTree(m, 0)) }

// checkTree returns what is wrong with m, which lies inside that many Narrowers, and with
// the matchers that it holds.
func checkTree(m Matcher, within int) error {
	var l penstock.Mistakes
	switch m := m.(type) {
	case All:
		checkList(&l, "All", m, within)
	case Any:
		checkList(&l, "Any", m, within)
	case not:
		l.Need("Not", m.m, "must be of a matcher")
		l.Add("Not", checkTree(m.m, within))
	case Narrower:
		field := matcherName(m) + ".Within"
		if l.If(within == maxWithin, field, nil, tooDeep); within < maxWithin {
			l.Add(field, checkTree(m.Within(), within+1))
		}
		l.In("", m)
	default:
		l.In("", m)
	}
	return l.Err()
}

func checkList(l *penstock.Mistakes, name string, list []Matcher, within int) {
	for i, m := range list {
		field := fmt.Sprintf("%s[%d]", name, i)
		l.Need(field, m, "must be a matcher")
		l.Add(field, checkTree(m, within))
	}
}
