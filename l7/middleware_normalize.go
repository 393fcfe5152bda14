// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"bytes"
	"cmp"
	"net/http"
	"slices"
	"strings"

	"github.com/penstock-lb/penstock/l4"
)

// Normalize rewrites equivalent targets to one form, before a router or an
// access rule looks at them. The result is forwarded. Each normalization is
// optional, since a server may distinguish targets that are equivalent by RFC
// 3986, section 6.2.2. They are applied in the order of the fields.
type Normalize struct {
	DecodeUnreserved bool // %41 becomes A: letters, digits and -._~ only
	UpperHex         bool // %2f becomes %2F
	MergeSlashes     bool // //a///b becomes /a/b
	DotSegments      bool // /a/./b/../c becomes /a/c; %2e counts as a dot
	SortQuery        bool // parameters by name; those of one name keep their order
	DefaultPort      bool // removes :80 under http and :443 under https from the host

	// Strict answers 400 to malformed targets instead of forwarding them: a %
	// without two hex digits, dot segments that climb above the root.
	Strict bool

	Next http.Handler

	checked
}

// ServeExchange implements [Handler].
func (h *Normalize) ServeExchange(x *Exchange) {
	if !h.normalize(x) {
		x.Error(http.StatusBadRequest, endOf(l4.Denied, l4.PhaseRequest))
		return
	}
	Serve(h.Next, x)
}

// normalize returns false if Strict refuses the target.
func (h *Normalize) normalize(x *Exchange) bool {
	if h.Strict && !(escapesOK(x.Path) && escapesOK(x.Query)) {
		return false
	}
	if (h.DecodeUnreserved || h.UpperHex) && strings.Contains(x.Path, "%") {
		x.Path = h.escapes(x.Path)
	}
	if (h.DecodeUnreserved || h.UpperHex) && strings.Contains(x.Query, "%") {
		x.Query = h.escapes(x.Query)
	}
	if h.MergeSlashes && strings.Contains(x.Path, "//") {
		x.Path = mergeSlashes(x.Path)
	}
	if h.DotSegments && hasDots(x.Path) {
		path, above := removeDots(x.Path)
		if above && h.Strict {
			return false
		}
		x.Path = path
	}
	if h.SortQuery && len(x.Query) > 1 {
		x.Query = sortQuery(x.Query)
	}
	if h.DefaultPort && x.Method != http.MethodConnect { // the target of CONNECT needs a port
		switch x.Scheme {
		case "http":
			x.Host = strings.TrimSuffix(x.Host, ":80")
		case "https":
			x.Host = strings.TrimSuffix(x.Host, ":443")
		}
	}
	return true
}

func isHex(c byte) bool { return class[c]&isHexByte != 0 }

func escapesOK(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] == '%' {
			if i+2 >= len(s) || !isHex(s[i+1]) || !isHex(s[i+2]) {
				return false
			}
			i += 2
		}
	}
	return true
}

// escapes rewrites the percent-encodings of s that are well formed.
func (h *Normalize) escapes(s string) string {
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '%' || i+2 >= len(s) || !isHex(s[i+1]) || !isHex(s[i+2]) {
			b = append(b, s[i])
			continue
		}
		c := unhex(s[i+1])<<4 | unhex(s[i+2])
		switch {
		case h.DecodeUnreserved && isUnreserved(c) && !(isHex(c) && stray(b)):
			b = append(b, c)
		case h.UpperHex:
			b = append(b, '%', upper(s[i+1]), upper(s[i+2]))
		default:
			b = append(b, s[i:i+3]...)
		}
		i += 2
	}
	return string(b)
}

// stray reports whether b ends in an incomplete percent-encoding, which
// following hex digits would complete: %7%41 must not become %7A.
func stray(b []byte) bool {
	n := len(b)
	return n > 0 && b[n-1] == '%' || n > 1 && b[n-2] == '%'
}

func unhex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return lower(c) - 'a' + 10
}

func upper(c byte) byte {
	if 'a' <= c && c <= 'z' {
		return c - 32
	}
	return c
}

func mergeSlashes(s string) string {
	b := make([]byte, 0, len(s))
	for i := range len(s) {
		if s[i] != '/' || i == 0 || s[i-1] != '/' {
			b = append(b, s[i])
		}
	}
	return string(b)
}

// dots returns 1 or 2 if a path element consists of that many dots,
// percent-encoded ones included, and 0 otherwise.
func dots(element string) int {
	n := 0
	for element != "" {
		switch {
		case element[0] == '.':
			element = element[1:]
		case len(element) >= 3 && element[:2] == "%2" && lower(element[2]) == 'e':
			element = element[3:]
		default:
			return 0
		}
		if n++; n > 2 {
			return 0
		}
	}
	return n
}

func hasDots(path string) bool {
	for rest := path; strings.HasPrefix(rest, "/"); {
		var el string
		if el, rest = element(rest[1:]); dots(el) > 0 {
			return true
		}
	}
	return false
}

// removeDots implements RFC 3986, section 5.2.4. It reports whether the path
// would have climbed above its root.
func removeDots(path string) (clean string, above bool) {
	b := make([]byte, 0, len(path))
	for rest := path; strings.HasPrefix(rest, "/"); {
		var el string
		el, rest = element(rest[1:])
		switch dots(el) {
		case 2:
			if len(b) == 0 {
				above = true
			}
			b = b[:max(0, bytes.LastIndexByte(b, '/'))]
			fallthrough
		case 1:
			if rest == "" {
				b = append(b, '/')
			}
		default:
			b = append(append(b, '/'), el...)
		}
	}
	return string(b), above
}

// sortQuery sorts the parameters by name, byte by byte.
func sortQuery(query string) string {
	type param struct {
		name string // computed once, not at each comparison
		text string
		at   int
	}
	params := make([]param, 0, strings.Count(query, "&")+1)
	sorted := true
	for text := range strings.SplitSeq(query[1:], "&") {
		name, _, _ := strings.Cut(text, "=")
		n := len(params)
		sorted = sorted && (n == 0 || params[n-1].name <= name)
		params = append(params, param{name, text, n})
	}
	if sorted {
		return query
	}
	slices.SortFunc(params, func(a, b param) int {
		return cmp.Or(strings.Compare(a.name, b.name), a.at-b.at)
	})
	b := make([]byte, 0, len(query))
	sep := byte('?')
	for i := range params {
		b = append(append(b, sep), params[i].text...)
		sep = '&'
	}
	return string(b)
}

// ServeHTTP implements [http.Handler].
func (h *Normalize) ServeHTTP(w http.ResponseWriter, r *http.Request) { ServeHTTP(h, w, r) }
