// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"math/bits"
	"net/netip"
	"strings"
	"sync/atomic"
)

// An Entry is one entry of a [Map].
type Entry[V any] struct {
	Key   string
	Value V
}

// A Map looks up strings: the text itself, its longest prefix or suffix, or the
// domain that it belongs to. Set replaces all entries atomically, also during
// lookups; of two entries with the same key the first wins. The zero Map is
// empty. A lookup takes no lock, and its time does not depend on the number of
// entries. All methods may be called at once.
type Map[V any] struct {
	table atomic.Pointer[mapTable[V]]
}

type mapTable[V any] struct {
	entries []Entry[V]
	byKey   map[string]int32
	lens    []uint64 // bit n: there is a key of n bytes
	longest int
}

// Set replaces all entries.
func (m *Map[V]) Set(entries ...Entry[V]) {
	t := &mapTable[V]{entries: append([]Entry[V](nil), entries...), byKey: make(map[string]int32, len(entries))}
	for _, e := range t.entries {
		t.longest = max(t.longest, len(e.Key))
	}
	t.lens = make([]uint64, t.longest/64+1)
	for i, e := range t.entries {
		if _, ok := t.byKey[e.Key]; ok {
			continue
		}
		t.byKey[e.Key] = int32(i)
		t.lens[len(e.Key)/64] |= 1 << (len(e.Key) % 64)
	}
	m.table.Store(t)
}

// Len returns the number of entries, duplicates included.
func (m *Map[V]) Len() int {
	if t := m.table.Load(); t != nil {
		return len(t.entries)
	}
	return 0
}

// has reports whether there is a key of n bytes, n being at most t.longest.
func (t *mapTable[V]) has(n int) bool { return t.lens[n/64]&(1<<(n%64)) != 0 }

// Exact returns the value of the entry whose key is s.
func (m *Map[V]) Exact(s string) (v V, ok bool) {
	t := m.table.Load()
	if t == nil || len(s) > t.longest {
		return v, false
	}
	if i, ok := t.byKey[s]; ok {
		return t.entries[i].Value, true
	}
	return v, false
}

// Prefix returns the value of the longest entry that is a prefix of s.
func (m *Map[V]) Prefix(s string) (v V, ok bool) {
	t := m.table.Load()
	if t == nil {
		return v, false
	}
	for n := min(len(s), t.longest); n >= 0; n-- {
		if t.has(n) {
			if i, ok := t.byKey[s[:n]]; ok {
				return t.entries[i].Value, true
			}
		}
	}
	return v, false
}

// Suffix returns the value of the longest entry that is a suffix of s.
func (m *Map[V]) Suffix(s string) (v V, ok bool) {
	t := m.table.Load()
	if t == nil {
		return v, false
	}
	for n := min(len(s), t.longest); n >= 0; n-- {
		if t.has(n) {
			if i, ok := t.byKey[s[len(s)-n:]]; ok {
				return t.entries[i].Value, true
			}
		}
	}
	return v, false
}

// Domain returns the value of the entry that is host or a domain above it:
// "example.com" matches example.com and a.example.com. Of several, the longest
// wins. Entries must be in lower case, without a dot at either end; the case,
// the port and a trailing dot of host are ignored.
func (m *Map[V]) Domain(host string) (v V, ok bool) {
	t := m.table.Load()
	if t == nil {
		return v, false
	}
	if i := t.domain(hostOf(host), func(best, i int32) bool { return best < 0 }); i >= 0 {
		return t.entries[i].Value, true
	}
	return v, false
}

// DomainListed is Domain, except that of several entries the one listed first
// wins.
func (m *Map[V]) DomainListed(host string) (v V, ok bool) {
	t := m.table.Load()
	if t == nil {
		return v, false
	}
	if i := t.domain(hostOf(host), func(best, i int32) bool { return best < 0 || i < best }); i >= 0 {
		return t.entries[i].Value, true
	}
	return v, false
}

func (t *mapTable[V]) domain(host string, better func(best, i int32) bool) int32 {
	best := int32(-1)
	for {
		if len(host) <= t.longest && t.has(len(host)) {
			if i, ok := t.byKey[host]; ok && better(best, i) {
				best = i
			}
		}
		dot := strings.IndexByte(host, '.')
		if dot < 0 {
			return best
		}
		host = host[dot+1:]
	}
}

// A PrefixEntry is one entry of an [AddrMap].
type PrefixEntry[V any] struct {
	Prefix netip.Prefix
	Value  V
}

// An AddrMap looks up addresses by the longest prefix that contains them. Set
// replaces all entries atomically; of two with the same prefix the first wins.
// IPv4 and IPv4 mapped into IPv6 are the same. The zero AddrMap is empty. All
// methods may be called at once.
type AddrMap[V any] struct {
	table atomic.Pointer[addrTable[V]]
}

type addrTable[V any] struct {
	byPrefix map[netip.Prefix]V
	bits4    uint64    // bit n: there is an IPv4 prefix of n bits
	bits6    [3]uint64 // and of IPv6
}

// Set replaces all entries. Host bits of a prefix are ignored, and invalid
// prefixes are left out.
func (m *AddrMap[V]) Set(entries ...PrefixEntry[V]) {
	t := &addrTable[V]{byPrefix: make(map[netip.Prefix]V, len(entries))}
	for _, e := range entries {
		p := unmapPrefix(e.Prefix).Masked()
		if _, ok := t.byPrefix[p]; ok || !p.IsValid() {
			continue
		}
		t.byPrefix[p] = e.Value
		if n := p.Bits(); p.Addr().Is4() {
			t.bits4 |= 1 << n
		} else {
			t.bits6[n/64] |= 1 << (n % 64)
		}
	}
	m.table.Store(t)
}

func unmapPrefix(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p
}

// Lookup returns the value of the longest prefix that contains a.
func (m *AddrMap[V]) Lookup(a netip.Addr) (v V, ok bool) {
	t := m.table.Load()
	if t == nil || !a.IsValid() {
		return v, false
	}
	a = a.Unmap().WithZone("")
	if a.Is4() {
		return t.longest(a, t.bits4, 0)
	}
	for i := 2; i >= 0; i-- {
		if v, ok := t.longest(a, t.bits6[i], i*64); ok {
			return v, true
		}
	}
	return v, false
}

// longest tries the prefix lengths in use, the longest first.
func (t *addrTable[V]) longest(a netip.Addr, lengths uint64, base int) (v V, ok bool) {
	for lengths != 0 {
		n := 63 - bits.LeadingZeros64(lengths)
		lengths &^= 1 << n
		if p, err := a.Prefix(base + n); err == nil {
			if v, ok := t.byPrefix[p]; ok {
				return v, true
			}
		}
	}
	return v, false
}
