// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"net/http"
	"strings"
)

// ServeHTTP implements [http.Handler].
func (t *TrustForwarded) ServeHTTP(w http.ResponseWriter, r *http.Request) { ServeHTTP(t, w, r) }

// ServeExchange implements [Handler].
func (t *TrustForwarded) ServeExchange(x *Exchange) {
	if t.trusts(x.Remote.Addr()) {
		x.trusted, x.rfc7239 = true, t.Standard
		scheme := ""
		if t.Standard {
			x.Client, scheme = t.standard(x)
		} else {
			x.Client, scheme = t.client(x), lastItem(&x.Header, "X-Forwarded-Proto")
		}
		x.Header.DelFunc(func(name, _ string) bool { return kindOf(name) == kindForwarded && !t.writes(name) })
		if scheme = httpScheme(scheme); scheme != "" {
			x.Scheme = scheme
		}
	}
	Serve(t.Next, x)
}

// httpScheme returns the scheme of HTTP under which a client came, or "". Some
// proxies tell of a WebSocket by the scheme that its URI has (RFC 6455, section
// 3).
func httpScheme(s string) string {
	switch {
	case equalFold(s, "https"), equalFold(s, "wss"):
		return "https"
	case equalFold(s, "http"), equalFold(s, "ws"):
		return "http"
	}
	return ""
}

// writes reports whether a field is one of those that our proxies write. What
// else tells of clients, X-Real-IP and other spellings, comes from anybody.
func (t *TrustForwarded) writes(name string) bool {
	if t.Standard {
		return equalFold(name, "forwarded")
	}
	const prefix = "x-forwarded-"
	return len(name) > len(prefix) && equalFold(name[:len(prefix)], prefix) && strings.IndexByte(name, '_') < 0
}

// lastItem returns the last item of the last line of a list: what the nearest
// proxy has said, behind what others may have.
func lastItem(f *Fields, name string) string {
	last := ""
	for v := range f.Values(name) {
		last = v
	}
	return trimOWS(last[strings.LastIndexByte(last, ',')+1:])
}
