// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"net/http"
	"sync/atomic"
)

// Wrap puts middleware of net/http before a handler, at the cost of a native one
// where that is possible:
//
//	&l7.Wrap{With: http.NewCrossOriginProtection().Handler, Next: proxy}
//
// Such middleware works without Wrap as well: around a handler of this package it is
// an [http.Handler] like any other. But then an embedded [http.Server] takes over
// a connection of HTTP/1 for good. With Wrap the connection stays on the byte front. Where the
// middleware only looks at the request, sets fields of the reply, gives the request
// another target or another context with values, and calls the next handler with the
// ResponseWriter that it was given, the exchange goes on natively. Where it does
// more (it answers by itself, puts a ResponseWriter of its own around, changes the
// fields or the body of the request, or sets a deadline in its context), its work is done in the way of net/http: that
// costs more, and means the same.
//
// What the middleware does not see is that the reply may have been sent, but for the
// end of one whose length is not known, when the next handler has returned.
// Requests that ask for an upgrade or wait for a 100 (Continue), and all those under
// a server of the host's, are handled as without Wrap.
type Wrap struct {
	// With is called when the first request comes, by each of those that come at
	// once; what it returns first is used from then on.
	With func(next http.Handler) http.Handler
	Next http.Handler

	checked
	made atomic.Pointer[http.Handler]
}

// ServeExchange implements [Handler].
func (w *Wrap) ServeExchange(x *Exchange) {
	h := w.handler()
	if n, ok := h.(Handler); ok || h == nil { // there was nothing to wrap
		Serve(n, x)
		return
	}
	_, native := w.Next.(Handler)
	x.down.serveForeign(h, native)
}

func (w *Wrap) handler() http.Handler {
	if h := w.made.Load(); h != nil {
		return *h
	}
	h := w.With(w.Next)
	if h == nil {
		return nil
	}
	w.made.CompareAndSwap(nil, &h)
	return *w.made.Load()
}

// ServeHTTP implements [http.Handler].
func (w *Wrap) ServeHTTP(rw http.ResponseWriter, r *http.Request) { ServeHTTP(w, rw, r) }
