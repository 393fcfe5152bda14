// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// Prefixes is a set of IP addresses, made of prefixes. The zero value is
// empty. It does not change, so any number of goroutines may use it; a set that
// changes is a new one behind an atomic pointer.
type Prefixes struct {
	set     map[netip.Prefix]struct{}
	lengths []int // of the prefixes in set, each once
}

// ParsePrefixes returns the set of the prefixes, "10.0.0.0/8", and single
// addresses, "192.0.2.7". IPv4-mapped IPv6 ones stand for the IPv4 ones.
func ParsePrefixes(prefixes ...string) (Prefixes, error) {
	s := Prefixes{set: make(map[netip.Prefix]struct{}, len(prefixes))}
	for _, text := range prefixes {
		p, err := parsePrefix(text)
		if err != nil {
			return Prefixes{}, fmt.Errorf("l4: %w", err)
		}
		s.set[p] = struct{}{}
		if !slices.Contains(s.lengths, p.Bits()) {
			s.lengths = append(s.lengths, p.Bits())
		}
	}
	return s, nil
}

// MustParsePrefixes is [ParsePrefixes] for prefixes that are constants; it
// panics on an error.
func MustParsePrefixes(prefixes ...string) Prefixes {
	s, err := ParsePrefixes(prefixes...)
	if err != nil {
		panic(err)
	}
	return s
}

func parsePrefix(s string) (netip.Prefix, error) {
	if !strings.Contains(s, "/") {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return netip.Prefix{}, err
		}
		a = a.Unmap().WithZone("")
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err == nil && p.Addr().Is4In6() {
		if p.Bits() < 96 {
			return p, fmt.Errorf("prefix %s is wider than the IPv4-mapped addresses", s)
		}
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Masked(), err
}

// Contains reports whether one of the prefixes contains a, of which an
// IPv4-mapped address stands for the IPv4 one and a zone does not matter. An
// invalid address is in no set. The cost is a look-up for each length of prefix
// in use, however many prefixes there are.
func (s Prefixes) Contains(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	for _, bits := range s.lengths {
		p, err := a.Prefix(bits) // fails if bits are too many for a's family
		if err != nil {
			continue
		}
		if _, ok := s.set[p]; ok {
			return true
		}
	}
	return false
}

// ContainsAddr is Contains for the address of a connection; false for one that
// has no IP address, such as a Unix socket.
func (s Prefixes) ContainsAddr(a net.Addr) bool {
	ap, ok := addrPort(a)
	return ok && s.Contains(ap.Addr())
}

// RemoteIn matches connections whose client has an address in s. It needs no bytes.
func RemoteIn(s Prefixes) Matcher {
	return func(p *Peeked) Verdict { return is(s.ContainsAddr(p.Conn.RemoteAddr())) }
}

// LocalIn matches connections that were made to an address in s. It needs no bytes.
func LocalIn(s Prefixes) Matcher {
	return func(p *Peeked) Verdict { return is(s.ContainsAddr(p.Conn.LocalAddr())) }
}

// RemotePorts matches connections from a port from lowest to highest, both
// included. It needs no bytes.
func RemotePorts(lowest, highest uint16) Matcher {
	return func(p *Peeked) Verdict { return portIn(p.Conn.RemoteAddr(), lowest, highest) }
}

// LocalPorts matches connections to a port from lowest to highest, both included.
// It needs no bytes.
func LocalPorts(lowest, highest uint16) Matcher {
	return func(p *Peeked) Verdict { return portIn(p.Conn.LocalAddr(), lowest, highest) }
}

func portIn(a net.Addr, lowest, highest uint16) Verdict {
	ap, ok := addrPort(a)
	return is(ok && lowest <= ap.Port() && ap.Port() <= highest)
}
