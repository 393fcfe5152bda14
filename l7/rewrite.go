// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"net/http"
	"regexp"
	"strings"

	"github.com/penstock-lb/penstock/l4"
)

// Rewrite changes what is asked for: the path, the query, the host, the
// method. What is not set stays, byte for byte. The edits of the path are
// made in the order of the fields; handlers inside see the result.
//
// A result that cannot be sent (a space in a path, a host with a slash) is
// answered 500: a request is never forwarded to another place than meant.
type Rewrite struct {
	// StripPrefix is taken off the path, by element: "/api" makes / of /api
	// and /v1 of /api/v1, and leaves /apiary. A slash at its end is ignored.
	StripPrefix string

	// Regexp is replaced by With in the path, each time it is found; $1 and
	// ${name} stand for its groups.
	Regexp *regexp.Regexp
	With   string

	// AddPrefix is put before the path. A slash at its end is ignored.
	AddPrefix string

	Path   func(x *Exchange) string // makes the path
	Query  func(x *Exchange) string // makes the query, with or without its "?"
	Host   string                   // the host, or host:port
	HostOf func(x *Exchange) string // instead of Host
	Method string

	Next http.Handler
}

// ServeExchange implements [Handler].
func (h *Rewrite) ServeExchange(x *Exchange) {
	h.rewrite(x)
	if !targetOK(x) {
		x.Error(http.StatusInternalServerError, endOf(l4.Internal, l4.PhaseRequest))
		return
	}
	Serve(h.Next, x)
}

func (h *Rewrite) rewrite(x *Exchange) {
	if h.StripPrefix != "" && (PathPrefix(h.StripPrefix)).Match(x) {
		if x.Path = x.Path[len(PathPrefix(h.StripPrefix).clean()):]; x.Path == "" {
			x.Path = "/"
		}
	}
	if h.Regexp != nil {
		x.Path = h.Regexp.ReplaceAllString(x.Path, h.With)
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

// targetOK reports whether what x asks for can be sent.
func targetOK(x *Exchange) bool {
	return (x.Path == "*" || strings.HasPrefix(x.Path, "/")) &&
		all(x.Path, isTargetByte) && !strings.Contains(x.Path, "?") &&
		all(x.Query, isTargetByte) && (x.Host == "" || validHost(x.Host)) && isToken(x.Method)
}

// ServeHTTP implements [http.Handler].
func (h *Rewrite) ServeHTTP(w http.ResponseWriter, r *http.Request) { ServeHTTP(h, w, r) }
