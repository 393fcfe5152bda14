// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"net/netip"

	"github.com/penstock-lb/penstock/balance"
)

// The keys below are for [Limit], [HashBy] and [Stick]: what they limit,
// balance or remember by. Each is false for an exchange that has no such key.

// ByClient is the address of the client: see Exchange.Client. IPv4 mapped
// into IPv6 is the same as IPv4.
func ByClient(x *Exchange) (netip.Addr, bool) {
	return x.Client.Unmap(), x.Client.IsValid()
}

// ByClientNet returns the network of the client, of that many bits of an IPv4
// or IPv6 address: who has one IPv6 address commonly has 2^64 of them, so
// limits are better kept by ByClientNet(32, 64) than by address.
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

// ByHeader is the first line of a request field.
func ByHeader(name string) func(*Exchange) (string, bool) {
	return func(x *Exchange) (string, bool) { return x.Header.Lookup(name) }
}

// ByCookie is the first request cookie of that name.
func ByCookie(name string) func(*Exchange) (string, bool) {
	return func(x *Exchange) (string, bool) { return CookieValue(x, name) }
}

// ByQuery is the first query parameter of that name, decoded.
func ByQuery(name string) func(*Exchange) (string, bool) {
	return func(x *Exchange) (string, bool) { return QueryValue(x, name) }
}

// hashOf hashes the keys above for a balance.Request.
func hashOf(key any) uint64 {
	switch k := key.(type) {
	case string:
		return balance.Hash(k)
	case netip.Addr:
		return balance.HashAddr(k)
	case netip.Prefix:
		return balance.HashAddr(k.Addr())
	}
	return 0
}
