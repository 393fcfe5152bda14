// SPDX-License-Identifier: Apache-2.0

package l7

import "net/netip"

// The keys below are for [Limit], [HashBy] and [Stick]: what they limit,
// balance or remember by. Each is false for an exchange that has no such key.

// several is the key of all requests that have more than one value where a key
// is looked for. None of the values can be it.
const several = "\nseveral"

// maxZone is the longest IPv6 zone that is part of a key: the name of an
// interface (IFNAMSIZ). Those of a request field may be as long as a head.
const maxZone = 16

// ByClient is the address of the client: see Exchange.Client. IPv4 mapped
// into IPv6 is the same as IPv4. For limits see [ByClientNet].
func ByClient(x *Exchange) (netip.Addr, bool) {
	a := x.Client.Unmap()
	if len(a.Zone()) > maxZone {
		a = a.WithZone("")
	}
	return a, a.IsValid()
}

// byNetwork is the client's IPv4 address, or the first of its 64-bit network of
// IPv6: what a Limit goes by if nothing else is said.
func byNetwork(x *Exchange) (netip.Addr, bool) {
	a := x.Client.Unmap()
	if a.Is6() {
		p, _ := a.Prefix(64)
		a = p.Addr()
	}
	return a, a.IsValid()
}

// ByClientNet returns the network of the client, of that many bits of an IPv4
// or IPv6 address. A client that has one IPv6 address commonly has 2^64 of them
// (RFC 4291, section 2.5.4), so a [Limit] without a Key goes by the networks of
// ByClientNet(32, 64).
func ByClientNet(bits4, bits6 int) func(*Exchange) (netip.Prefix, bool) {
	return func(x *Exchange) (netip.Prefix, bool) {
		a, bits := x.Client.Unmap(), bits6
		if a.Is4() {
			bits = bits4
		}
		p, err := a.WithZone("").Prefix(bits)
		return p, err == nil
	}
}

// ByHost is the host of the request in lower case, without a port.
func ByHost(x *Exchange) (string, bool) { return hostOf(x.Host), x.Host != "" }

// ByPath is the path as on the wire.
func ByPath(x *Exchange) (string, bool) { return x.Path, true }

// ByHeader is the value of a request field. Requests that have several lines of
// it with different values all have the same key, one of their own: which of the
// lines the server goes by is not known here, so a client could escape its limit
// by a line that says nothing.
func ByHeader(name string) func(*Exchange) (string, bool) {
	return func(x *Exchange) (v string, ok bool) {
		for i := range x.Header.list {
			if f := &x.Header.list[i]; f.named(name) {
				if ok && f.Value != v {
					return several, true
				}
				v, ok = f.Value, true
			}
		}
		return v, ok
	}
}

// ByCookie is the first request cookie of that name. Browsers send several of
// one name, the most specific path first (RFC 6265, section 5.4), and a client
// can send what it likes: limit by a cookie only what a server has signed.
func ByCookie(name string) func(*Exchange) (string, bool) {
	return func(x *Exchange) (string, bool) { return CookieValue(x, name) }
}

// ByQuery is the query parameter of that name, decoded. Of several with different
// values it is as with [ByHeader].
func ByQuery(name string) func(*Exchange) (string, bool) {
	return func(x *Exchange) (v string, ok bool) {
		eachQuery(x.Query, func(n, value string) bool {
			switch {
			case n != name:
			case ok && value != v:
				v = several
				return false
			default:
				v, ok = value, true
			}
			return true
		})
		return v, ok
	}
}
