// SPDX-License-Identifier: Apache-2.0

package l7

import "net/http"

// ServeHTTP implements [http.Handler].
func (t *TrustForwarded) ServeHTTP(w http.ResponseWriter, r *http.Request) { ServeHTTP(t, w, r) }

// ServeExchange implements [Handler].
func (t *TrustForwarded) ServeExchange(x *Exchange) {
	if t.trusts(x.Remote.Addr()) {
		x.trusted = true
		scheme := ""
		if t.Standard {
			x.Client, scheme = t.standard(x)
			x.Header.DelFunc(func(name, _ string) bool {
				return kindOf(name) == kindForwarded && !equalFold(name, "forwarded")
			})
		} else {
			x.Client, scheme = t.client(x), x.Header.Get("X-Forwarded-Proto")
		}
		if scheme == "http" || scheme == "https" {
			x.Scheme = scheme
		}
	}
	Serve(t.Next, x)
}
