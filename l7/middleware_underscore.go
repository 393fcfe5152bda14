// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"net/http"
	"strings"

	"github.com/penstock-lb/penstock/l4"
)

// Underscores drops the request fields that have a "_" in their names, as nginx
// does by default (underscores_in_headers). A server that turns names into
// variables, by CGI and its successors, cannot tell X_User from X-User (RFC
// 3875, section 4.1.18), so a client could forge the second, which a gateway
// sets, by the first. Fields that this gateway writes itself ([SetField],
// [BasicAuth], the forwarding fields) are protected without it; fields that
// other parts of a system write are not.
type Underscores struct {
	Refuse bool // answer 400 instead
	Next   http.Handler
}

// Check returns what is wrong with h and its handler.
func (h *Underscores) Check() error { return checkAll(h) }

func (h *Underscores) check(c *checks) { c.next("Underscores.Next", h.Next) }

// ServeExchange implements [Handler].
func (h *Underscores) ServeExchange(x *Exchange) {
	x.Header.ownRule(ownName{contains: "_"})
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
