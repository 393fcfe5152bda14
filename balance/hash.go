// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"encoding/binary"
	"net/netip"
)

// Hash returns a key for [Request] made of s. It is never 0, and the same in every
// process and release, so that several balancers agree. It does not resist
// deliberate collisions.
func Hash(s string) uint64 {
	// FNV-1a over 8 bytes at a time, then mixed.
	const prime = 1099511628211
	h := uint64(14695981039346656037) ^ uint64(len(s))
	for ; len(s) >= 8; s = s[8:] {
		w := uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
			uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
		h = mix(h^w) * prime
	}
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * prime
	}
	return nonzero(mix(h))
}

// HashAddr returns a key made of a. An IPv4 address and its form in IPv6
// (::ffff:a.b.c.d) give the same key; a zone does not count. It is never 0.
func HashAddr(a netip.Addr) uint64 {
	b := a.As16()
	hi, lo := binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
	return nonzero(mix(mix(hi+0x9e3779b97f4a7c15) ^ lo))
}

func nonzero(h uint64) uint64 {
	if h == 0 {
		return 1
	}
	return h
}
