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

// writes reports whether a field is one of those that our proxies write. What
// else tells of clients, X-Real-IP and other spellings, comes from anybody.
func (t *TrustForwarded) writes(name string) bool {
	if t.Standard {
		return equalFold(name, "forwarded")
	}
	const prefix = "x-forwarded-"
	return len(name) > len(prefix) && equalFold(name[:len(prefix)], prefix) && strings.IndexByte(name, '_') < 0
}

// TrustForwarded believes the forwarding fields of requests that come from
// proxies of ours: X-Forwarded-For sets [Exchange.Client], X-Forwarded-Proto
// Scheme. The fields are then passed on, with the address of that proxy
// appended. Addresses are read from the right, and the first one that is not
// ours is the client: what stands left of it anybody may have written. Of
// several values of X-Forwarded-Proto, or X-Forwarded-Host, the last counts:
// the nearest proxy's. Our proxies must set, or drop, every X-Forwarded field
// that servers go by; Forwarded, X-Real-IP and spellings with "_" are dropped,
// as they are anybody's. What a handler outside of it has set is no claim, and stays.
//
// With Standard our proxies write Forwarded (RFC 7239) instead, whose for and
// proto are read likewise, and all others are dropped.
//
// Fields of the kind that was believed get our element whatever
// [Proxy.Forward] says, but for ForwardNone; those of the other kind, if it
// asks for them, begin with the client that was found. An element that is not valid, or that hides its node, ends the
// search: the client is then the proxy that sent it.
type TrustForwarded struct {
	Prefixes []netip.Prefix // of our proxies
	Standard bool           // they write Forwarded
	Next     http.Handler

	checked
}

// trusts reports whether addr is one of our proxies.
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
// and the scheme that it was told of with. A node that is no address, or a
// field that is not valid, is as far as it goes.
func (t *TrustForwarded) standard(x *Exchange) (client netip.Addr, scheme string) {
	client = x.Remote.Addr()
	var room [8]hop
	hops := room[:0]
	for v := range x.Header.claims("Forwarded") {
		var ok bool
		if hops, ok = parseForwarded(hops, v); !ok {
			hops = hops[:0] // what stands left of it cannot be told from it
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
