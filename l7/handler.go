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
// handler goes on with the exchange of the outer one: what that has found out
// (Client, Balance, values of a [Key], ErrorPage, the record) holds, and what the
// middleware has changed in the request (method, URL, Host, fields, body,
// ContentLength) counts. RemoteAddr and TLS are those of the connection, whatever
// the middleware says. Each call of the inner handler works on an [Exchange] of its
// own, so the middleware may call it in any goroutine and more than once; of
// several, the one that ended last is on record.
type Handler interface {
	http.Handler
	ServeExchange(x *Exchange)
}

// errNoHandler is about a field Next or the like that a Check was not asked for.
var errNoHandler = errors.New("l7: a handler is nil where one must go on with the exchange")

// Serve has h answer the exchange: a native handler directly, any other as the
// leaf of the tree, with a request that carries the exchange's edits. A
// [http.ServeMux] is looked through: the handler that it chooses may be native.
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
			if err := firstUse(n); err != nil { // it was not to be seen before
				x.misconfigured(err)
				return
			}
			x.last = n
			n.ServeExchange(x)
			return
		}
	}
	x.down.serveForeign(h, false)
}
