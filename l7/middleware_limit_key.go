// SPDX-License-Identifier: Apache-2.0

package l7

import "net/netip"

// The keys below are for [Limit], [HashBy] and [Stick]. Each is false for an
// exchange that has no such key.

// several is the key of all requests with more than one value for a key. No
// value can be equal to it.
const several = "\nseveral"

// maxZone is the longest IPv6 zone in a key: that of an interface name
// (IFNAMSIZ). A zone in a request field could be as long as a head.
const maxZone = 16

// ByClient returns the address of the client: see Exchange.Client. IPv4 mapped
// into IPv6 is the same as IPv4. For limits see [ByClientNet].
func ByClient(x *Exchange) (netip.Addr, bool) {
	a := x.Client.Unmap()
	if len(a.Zone()) > maxZone {
		a = a.WithZone("")
	}
	return a, a.IsValid()
}

// byNetwork returns the client's IPv4 address, or the first address of its IPv6
// /64. It is the default of a Limit.
func byNetwork(x *Exchange) (netip.Addr, bool) {
	a := x.Client.Unmap()
	if a.Is6() {
		p, _ := a.Prefix(64)
		a = p.Addr()
	}
	return a, a.IsValid()
}

// ByClientNet returns the network of the client, with that many bits of an IPv4
// or IPv6 address. A client with one IPv6 address usually has 2^64 of them (RFC
// 4291, section 2.5.4), so a [Limit] without a Key uses the networks of
// ByClientNet(32, 64). More bits than an address has mean all of them, negative means 0:
// one network of all.
func ByClientNet(bits4, bits6 int) func(*Exchange) (netip.Prefix, bool) {
	return func(x *Exchange) (netip.Prefix, bool) {
		a, bits := x.Client.Unmap(), bits6
		if a.Is4() {
			bits = bits4
		}
		bits = max(0, min(bits, a.BitLen()))
		p, _ := a.WithZone("").Prefix(bits)
		return p, p.IsValid()
	}
}

// ByHost returns the host of the request in lower case, without a port.
func ByHost(x *Exchange) (string, bool) { return hostOf(x.Host), x.Host != "" }

// ByPath returns the path as on the wire.
func ByPath(x *Exchange) (string, bool) { return x.Path, true }

// ByHeader returns the value of a request field. All requests with several lines
// of different values share one key, which differs from every value: it is not
// known which line the server uses, so a client could otherwise evade its limit
// with an extra line.
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

// ByCookie returns the first request cookie of that name. Browsers send several
// of one name, the most specific path first (RFC 6265, section 5.4), and a
// client can send any value: limit only by a cookie that a server has signed.
func ByCookie(name string) func(*Exchange) (string, bool) {
	return func(x *Exchange) (string, bool) { return CookieValue(x, name) }
}

// ByQuery returns the query parameter of that name, decoded. Several different
// values are handled as in [ByHeader].
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
