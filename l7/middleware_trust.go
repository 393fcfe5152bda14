// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"net/http"
	"net/netip"
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
			x.Client, scheme = t.client(x), x.Header.lastClaim("X-Forwarded-Proto")
		}
		x.Header.dropClaims(t.writes)
		if scheme = httpScheme(scheme); scheme != "" {
			x.Scheme = scheme
		}
	}
	Serve(t.Next, x)
}

// writes reports whether a field is one that trusted proxies write. Other
// fields about the client, such as X-Real-IP and other spellings, are not
// trusted.
func (t *TrustForwarded) writes(name string) bool {
	if t.Standard {
		return equalFold(name, "forwarded")
	}
	const prefix = "x-forwarded-"
	return len(name) > len(prefix) && equalFold(name[:len(prefix)], prefix) && strings.IndexByte(name, '_') < 0
}

// TrustForwarded trusts the forwarding fields of requests that come from your
// proxies: X-Forwarded-For sets [Exchange.Client], and X-Forwarded-Proto sets Scheme.
// The fields are then forwarded, with the address of that proxy appended. Addresses
// are read from the right, and the first one that is not a proxy's is the client; any
// client may have written those to the left of it. Of several values of
// X-Forwarded-Proto, or X-Forwarded-Host, the last one is used: the nearest proxy's.
// The proxies must set, or drop, every X-Forwarded field that servers use. Forwarded,
// X-Real-IP and spellings with "_" are dropped, since they may come from the client.
// Fields that an outer handler has set are kept.
//
// With Standard the proxies write Forwarded (RFC 7239) instead: its for and
// proto are used in the same way, and all other fields are dropped.
//
// Trusted fields get our element appended whatever [Proxy.Forward] is, except for ForwardNone.
// Fields of the other kind, if Forward asks for them, begin with the client that was found. An
// element that is not valid, or that hides its node, ends the search: the client is then the proxy
// that sent it.
type TrustForwarded struct {
	Prefixes []netip.Prefix // of the proxies
	Standard bool           // the proxies write Forwarded
	Next     http.Handler

	checked
}

// trusts reports whether addr is a trusted proxy.
func (t *TrustForwarded) trusts(addr netip.Addr) bool {
	for _, p := range t.Prefixes {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// client finds the client among the addresses of X-Forwarded-For.
func (t *TrustForwarded) client(x *Exchange) netip.Addr {
	client := x.Remote.Addr()
	for i := len(x.Header.list) - 1; i >= 0; i-- {
		fd := &x.Header.list[i]
		if fd.kind != kindForwarded || !equalFold(fd.Name, "x-forwarded-for") {
			continue
		}
		for v := fd.Value; v != ""; {
			item := v
			if j := strings.LastIndexByte(v, ','); j >= 0 {
				v, item = v[:j], v[j+1:]
			} else {
				v = ""
			}
			a, ok := parseNode(trimOWS(item))
			if !ok {
				return client
			}
			if client = a; !t.trusts(a) {
				return client
			}
		}
	}
	return client
}

// standard finds the client among the elements of Forwarded, from the right,
// and the scheme of the same element. It stops at a node that is not an
// address, and at a field that is not valid.
func (t *TrustForwarded) standard(x *Exchange) (client netip.Addr, scheme string) {
	client = x.Remote.Addr()
	var room [8]hop
	hops := room[:0]
	for v := range x.Header.claims("Forwarded") {
		var ok bool
		if hops, ok = parseForwarded(hops, v); !ok {
			hops = hops[:0] // elements to the left cannot be parsed reliably
		}
	}
	for i := len(hops) - 1; i >= 0; i-- {
		if p := hops[i].proto; httpScheme(p) != "" {
			scheme = p
		}
		a, ok := parseNode(hops[i].node)
		if !ok {
			return client, scheme
		}
		if client = a; !t.trusts(a) {
			return client, scheme
		}
	}
	return client, scheme
}
