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
// an [http.Handler] like any other. But then an embedded [http.Server] takes over an
// HTTP/1 connection for good when a request comes whose body has not arrived with its
// head. With Wrap around a native handler the connection stays on the byte front, and the
// body can be relayed while it comes. The exceptions are requests that ask for an upgrade or
// wait for a 100 (Continue), as curl does before it sends more than 1 MiB: they are handled
// as without Wrap, and so are all requests under an http.Server of the host's.
//
// The exchange stays native where the middleware only looks at the request, sets
// fields of the reply, gives the request another target or a context with values, and
// calls the next handler with the ResponseWriter that it was given. Where it does more
// (it replies by itself, wraps the ResponseWriter, changes the fields or the body of
// the request, or sets a deadline in its context), the exchange goes through its
// ResponseWriter as in net/http: that costs more and has the same result. A logger that
// wraps the ResponseWriter is best replaced by Server.OnDone, with [LogTo] or a func of
// your own, which costs nothing of that.
//
// A handler that replies in every case, such as a router of another library or an
// [http.ServeMux], is no middleware and needs no Wrap: it is the Handler or the Next
// itself.
//
// When the next handler returns, the reply may have been sent already, except for the
// end of one of unknown length. The middleware does not notice.
type Wrap struct {
	// With is called for the first request, and may be called by several that come
	// at once; the handler that it returns first is used from then on.
	With func(next http.Handler) http.Handler
	Next http.Handler

	checked
	made atomic.Pointer[http.Handler]
}

// ServeExchange implements [Handler].
func (w *Wrap) ServeExchange(x *Exchange) {
	h := w.handler()
	if n, ok := h.(Handler); ok || h == nil { // With returned Next, or nothing
		Serve(n, x)
		return
	}
	wraps := wrapsForeign
	if _, ok := w.Next.(Handler); ok {
		wraps = wrapsNative
	}
	x.down.serveForeign(h, wraps)
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
