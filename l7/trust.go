// SPDX-License-Identifier: Apache-2.0

package l7

import "net/http"

// ServeHTTP implements [http.Handler].
func (t *TrustForwarded) ServeHTTP(w http.ResponseWriter, r *http.Request) { ServeHTTP(t, w, r) }

// ServeExchange implements [Handler].
func (t *TrustForwarded) ServeExchange(x *Exchange) {
	if t.trusts(x.Remote.Addr()) {
		x.trusted = true
		x.Client = t.client(x)
		if p := x.Header.Get("X-Forwarded-Proto"); p == "http" || p == "https" {
			x.Scheme = p
		}
	}
	Serve(t.Next, x)
}
