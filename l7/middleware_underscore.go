// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"net/http"
	"strings"

	"github.com/penstock-lb/penstock/l4"
)

// Underscores drops the request fields that have a "_" in their names, as nginx
// does by default (underscores_in_headers). A server that makes variables of
// names, by CGI and what took after it, cannot tell X_User from X-User (RFC
// 3875, section 4.1.18), so that the first would pass for what a gateway says in
// the second. Fields that the gateway writes itself ([SetField], [BasicAuth],
// the forwarding fields) need no such help; those that other parts of a system
// write do.
type Underscores struct {
	Refuse bool // answer 400 instead
	Next   http.Handler
}

// Check returns a [*penstock.ConfigError] for what cannot be used.
func (h *Underscores) Check() error { return checkAll(h) }

func (h *Underscores) check(c *checks) { c.next("Underscores.Next", h.Next) }

// ServeExchange implements [Handler].
func (h *Underscores) ServeExchange(x *Exchange) {
	x.Header.ownField(ownName{contains: "_"})
	if !x.Header.hasUnderscore() {
		Serve(h.Next, x)
		return
	}
	if h.Refuse {
		x.Error(http.StatusBadRequest, endOf(l4.Denied, l4.PhaseRequest))
		return
	}
	x.Header.DelFunc(func(name, _ string) bool { return strings.IndexByte(name, '_') >= 0 })
	Serve(h.Next, x)
}

// ServeHTTP implements [http.Handler].
func (h *Underscores) ServeHTTP(w http.ResponseWriter, r *http.Request) { ServeHTTP(h, w, r) }
