// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"errors"
	"net/http"
)

// A Handler is a native [http.Handler]: ServeExchange does the work on both
// fronts, and ServeHTTP is one line:
//
//	func (h *Mine) ServeHTTP(w http.ResponseWriter, r *http.Request) { l7.ServeHTTP(h, w, r) }
//
// A native handler inside middleware of net/http that is itself inside a native
// handler continues the exchange of the outer one. Client, Balance, values of a
// [Key], ErrorPage and the record are those of the outer exchange; what the
// middleware has changed in the request (method, URL, Host, fields, body,
// ContentLength) applies. Remote and TLS are those of the connection, even if the
// middleware changes RemoteAddr or TLS. Each call of the inner handler works on an
// [Exchange] of its own, so the middleware may call it in any goroutine and more
// than once; the record is that of the call that ended last. The outer exchange is found
// by the ResponseWriter, also inside others that have Unwrap, and by the context of the
// request. A middleware that replaces both begins another exchange, of which only its
// own request is known.
type Handler interface {
	http.Handler
	ServeExchange(x *Exchange)
}

// errNoHandler is the error of a nil Next, or a similar field, of a handler that
// was not checked.
var errNoHandler = errors.New("l7: a handler is nil: Next, or a field like it")

// Serve passes the exchange to h: directly to a native handler, and to any
// other as the leaf of the tree, with a request that carries the exchange's
// edits. If h is an [http.ServeMux], Serve looks up the handler that it would
// choose, which may be native.
func Serve(h http.Handler, x *Exchange) {
	if n, ok := h.(Handler); ok {
		x.last = n
		n.ServeExchange(x)
		return
	}
	if h == nil {
		x.misconfigured(errNoHandler)
		return
	}
	if m, ok := h.(*http.ServeMux); ok {
		inner, pattern := m.Handler(x.Request())
		if n, ok := inner.(Handler); ok && pattern != "" {
			if err := firstUse(n); err != nil { // no Check could find it before
				x.misconfigured(err)
				return
			}
			x.last = n
			n.ServeExchange(x)
			return
		}
	}
	x.down.serveForeign(h, wrapsNothing)
}
