// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"
)

// Path matches exactly that path, byte by byte as it will be forwarded: "/a%62"
// is not "/ab". To treat them alike, use [Normalize] first.
type Path string

// Match implements [Matcher].
func (p Path) Match(x *Exchange) bool { return x.Path == string(p) }

// PathPrefix matches by path element: "/api" and "/api/" match /api, /api/ and
// /api/v1, but not /apiary. "/" and "" match every request.
type PathPrefix string

// Match implements [Matcher].
func (p PathPrefix) Match(x *Exchange) bool {
	prefix := p.clean()
	return prefix == "" || strings.HasPrefix(x.Path, prefix) &&
		(len(x.Path) == len(prefix) || x.Path[len(prefix)] == '/')
}

// clean returns the prefix without a slash at its end.
func (p PathPrefix) clean() string { return strings.TrimSuffix(string(p), "/") }

// PathSuffix matches the end of the path: ".png".
type PathSuffix string

// Match implements [Matcher].
func (p PathSuffix) Match(x *Exchange) bool { return strings.HasSuffix(x.Path, string(p)) }

// PathRegexp matches paths in which the expression matches; anchor it with ^
// and $. [PathValue] returns its named groups. It is not indexed: it is tried
// for each request for its hosts.
type PathRegexp struct{ *regexp.Regexp }

// Match implements [Matcher].
func (p PathRegexp) Match(x *Exchange) bool { return p.MatchString(x.Path) }

// HostRegexp matches hosts, in lower case and without a port, in which the
// expression matches.
type HostRegexp struct{ *regexp.Regexp }

// Match implements [Matcher].
func (h HostRegexp) Match(x *Exchange) bool { return h.MatchString(hostOf(x.Host)) }

// PathPattern matches element by element: "/users/{id}/files/{name...}". An
// element in braces matches any one non-empty element. A last one that ends in
// three dots matches all remaining elements, if any. [PathValue] returns what
// they matched.
type PathPattern string

// Match implements [Matcher].
func (p PathPattern) Match(x *Exchange) bool { return p.walk(x.Path, nil) }

// walk compares path with the pattern and calls visit with each name and what
// it matched, as on the wire.
func (p PathPattern) walk(path string, visit func(name, raw string)) bool {
	pat := string(p)
	for {
		if pat == "" || path == "" {
			return pat == path
		}
		if pat[0] != '/' || path[0] != '/' {
			return false
		}
		want, patRest := element(pat[1:])
		have, rest := element(path[1:])
		switch name, wild := wildcard(want); {
		case wild && strings.HasSuffix(name, "..."):
			if visit != nil {
				visit(strings.TrimSuffix(name, "..."), path[1:])
			}
			return true
		case wild && have != "":
			if visit != nil {
				visit(name, have)
			}
		case wild || want != have:
			return false
		}
		pat, path = patRest, rest
	}
}

// element cuts the first element off a path without its leading slash.
func element(s string) (first, rest string) {
	if i := strings.IndexByte(s, '/'); i >= 0 {
		return s[:i], s[i:]
	}
	return s, ""
}

func wildcard(element string) (name string, ok bool) {
	if n := len(element); n > 2 && element[0] == '{' && element[n-1] == '}' {
		return element[1 : n-1], true
	}
	return "", false
}

// literal returns the elements before the first wildcard, as a clean prefix,
// and the number of bytes in all elements that are not wildcards.
func (p PathPattern) literal() (prefix string, length int) {
	open := false
	for rest := string(p); rest != ""; {
		var el string
		el, rest = element(strings.TrimPrefix(rest, "/"))
		if _, wild := wildcard(el); wild {
			open = true
			continue
		}
		if length += len(el) + 1; !open {
			prefix += "/" + el
		}
	}
	return prefix, length
}

func (p PathPattern) problem() string {
	if !strings.HasPrefix(string(p), "/") {
		return "does not begin with a slash"
	}
	seen := map[string]bool{}
	for rest := string(p); rest != ""; {
		var el string
		el, rest = element(strings.TrimPrefix(rest, "/"))
		name, wild := wildcard(el)
		switch name := strings.TrimSuffix(name, "..."); {
		case !wild && strings.ContainsAny(el, "{}"), strings.ContainsAny(name, "{}"):
			return "has a brace within an element"
		case strings.HasPrefix(el, ":") && len(el) > 1:
			return fmt.Sprintf("has a colon, which stands for itself: write {%s}", el[1:])
		case !wild && (!all(el, isTargetByte) || strings.Contains(el, "?")):
			return "has a byte that must be escaped in a path"
		case !wild:
		case strings.Contains(name, ":"):
			return "has a colon in the name of an element: for an expression write a PathRegexp"
		case name == "" || seen[name]:
			return "has a name that is empty or used twice"
		default:
			seen[name] = true
		}
		if strings.HasSuffix(name, "...") && rest != "" {
			return "has an element after {" + name + "}"
		}
	}
	return ""
}

// captured holds the matcher of the route and the path that it matched, for
// [PathValue]. The path of the exchange may have been rewritten since.
type captured struct {
	by   Matcher // PathPattern or PathRegexp
	path string
}

var captureKey Key[captured]

// PathValue returns what the element {name} of the route's [PathPattern], or
// the group of that name of its [PathRegexp], has matched. It is
// percent-decoded if it can be. It is "" if there is no such name.
func PathValue(x *Exchange, name string) string {
	c, _ := captureKey.Get(x)
	raw := ""
	switch m := c.by.(type) {
	case PathPattern:
		m.walk(c.path, func(n, v string) {
			if n == name {
				raw = v
			}
		})
	case PathRegexp:
		if i := m.SubexpIndex(name); i >= 0 {
			if sub := m.FindStringSubmatch(c.path); sub != nil {
				raw = sub[i]
			}
		}
	}
	if v, err := url.PathUnescape(raw); err == nil {
		return v
	}
	return raw
}

// eachQuery calls do for each parameter of a query until it returns false.
func eachQuery(query string, do func(name, value string) bool) {
	query = strings.TrimPrefix(query, "?")
	for query != "" {
		var pair string
		pair, query, _ = strings.Cut(query, "&")
		rawName, rawValue, _ := strings.Cut(pair, "=")
		name, err := url.QueryUnescape(rawName)
		if err != nil || pair == "" {
			continue
		}
		value, err := url.QueryUnescape(rawValue)
		if err == nil && !do(name, value) {
			return
		}
	}
}
