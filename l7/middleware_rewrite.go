// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"net/http"
	"regexp"
	"strings"

	"github.com/penstock-lb/penstock/l4"
)

// Rewrite changes the target of a request: the path, the query, the host, the
// method. Parts for which no field is set stay byte for byte. The edits of the
// path are applied in the order of the fields; inner handlers see the result.
// The targets of OPTIONS * and CONNECT are not paths and stay.
//
// A result that cannot be sent (a space in a path, a host with a slash) is
// answered 500: a request is never forwarded to an unintended target.
type Rewrite struct {
	// StripPrefix is removed from the path, by element: with "/api", /api becomes
	// / and /api/v1 becomes /v1, but /apiary stays. A slash at its end is ignored.
	StripPrefix string

	// Each match of Regexp in the path is replaced by With, in which $1 and
	// ${name} stand for groups.
	Regexp *regexp.Regexp
	With   string

	// AddPrefix is put before the path. A slash at its end is ignored.
	AddPrefix string

	Path   func(x *Exchange) string // returns the path
	Query  func(x *Exchange) string // returns the query, with or without its "?"
	Host   string                   // the host, or host:port
	HostOf func(x *Exchange) string // instead of Host
	Method string

	Next http.Handler

	checked
}

// ServeExchange implements [Handler].
func (h *Rewrite) ServeExchange(x *Exchange) {
	h.rewrite(x)
	if !h.sendable(x) {
		x.Error(http.StatusInternalServerError, endOf(l4.Internal, l4.PhaseRequest))
		return
	}
	Serve(h.Next, x)
}

func (h *Rewrite) rewrite(x *Exchange) {
	if x.Path != "" && x.Path[0] == '/' { // the targets of OPTIONS * and CONNECT are not paths
		h.rewritePath(x)
	}
	switch {
	case h.HostOf != nil:
		x.Host = h.HostOf(x)
	case h.Host != "":
		x.Host = h.Host
	}
	if h.Method != "" {
		x.Method = h.Method
	}
}

func (h *Rewrite) rewritePath(x *Exchange) {
	if h.StripPrefix != "" && (PathPrefix(h.StripPrefix)).Match(x) {
		if x.Path = x.Path[len(PathPrefix(h.StripPrefix).clean()):]; x.Path == "" {
			x.Path = "/"
		}
	}
	if h.Regexp != nil {
		x.Path = replaceAll(h.Regexp, x.Path, h.With)
	}
	if h.AddPrefix != "" {
		x.Path = strings.TrimSuffix(h.AddPrefix, "/") + x.Path
	}
	if h.Path != nil {
		x.Path = h.Path(x)
	}
	if h.Query != nil {
		if x.Query = h.Query(x); x.Query != "" && x.Query[0] != '?' {
			x.Query = "?" + x.Query
		}
	}
}

// replaceAll is e.ReplaceAllString(s, with), with fewer allocations if e can
// match only once: one for the match, and one for the result unless that is the
// end of s.
func replaceAll(e *regexp.Regexp, s, with string) string {
	if !anchored(e.String()) {
		return e.ReplaceAllString(s, with)
	}
	m := e.FindStringSubmatchIndex(s)
	if m == nil {
		return s
	}
	var room [256]byte
	b := room[:0]
	b = expand(b, e, with, s, m)
	b = append(b, s[m[1]:]...)
	if k := len(s) - len(b); k >= 0 && s[k:] == string(b) {
		return s[k:]
	}
	return string(b)
}

// expand is e.ExpandString, at a third of its cost for groups of one digit.
func expand(b []byte, e *regexp.Regexp, with, s string, m []int) []byte {
	for rest := with; ; {
		i := strings.IndexByte(rest, '$')
		if i < 0 {
			return append(b, rest...)
		}
		if i+1 == len(rest) || class[rest[i+1]]&isDigitByte == 0 || i+2 < len(rest) && isWordByte(rest[i+2]) {
			return e.ExpandString(b, rest, s, m)
		}
		b = append(b, rest[:i]...)
		if n := 2 * int(rest[i+1]-'0'); n+1 < len(m) && m[n] >= 0 {
			b = append(b, s[m[n]:m[n+1]]...)
		}
		rest = rest[i+2:]
	}
}

// isWordByte reports whether c can be part of the name of a group.
func isWordByte(c byte) bool {
	return c == '_' || c >= 0x80 || class[c]&isDigitByte != 0 || 'a' <= lower(c) && lower(c) <= 'z'
}

// anchored reports whether an expression can match only at the beginning of a
// text, judged by its first bytes.
func anchored(expr string) bool {
	return len(expr) > 1 && expr[0] == '^' && indexByte("*+?{", expr[1]) < 0 &&
		strings.IndexByte(expr, '|') < 0 && !strings.Contains(expr, "(?")
}

// sendable is targetOK for the parts that h may have changed; the others are the
// client's and were checked.
func (h *Rewrite) sendable(x *Exchange) bool {
	return (h.Regexp == nil && h.AddPrefix == "" && h.Path == nil || x.asked.path == "" || pathOK(x.Path)) &&
		(h.Query == nil || all(x.Query, isTargetByte)) &&
		(h.Host == "" && h.HostOf == nil || x.Host == "" || validHost(x.Host)) &&
		(h.Method == "" || isToken(x.Method))
}

// targetOK reports whether the target of x can be sent.
func targetOK(x *Exchange) bool {
	return pathOK(x.Path) && all(x.Query, isTargetByte) && (x.Host == "" || validHost(x.Host)) && isToken(x.Method)
}

// ServeHTTP implements [http.Handler].
func (h *Rewrite) ServeHTTP(w http.ResponseWriter, r *http.Request) { ServeHTTP(h, w, r) }
