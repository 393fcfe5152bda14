// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/penstock-lb/penstock"
)

const (
	notNegative = "must not be negative"
	atLeastZero = "must be a number, and not negative"
	nilInside   = "must be left out, or hold a policy: there is a nil pointer in it"
)

// Check returns what is wrong with p and its policy, each a
// [*penstock.ConfigError]. [Pool.Set] and [Pool.Follow] call it.
func (p *Pool) Check() error {
	p.init()
	var m penstock.Mistakes
	if conf := p.core.conf; conf != p { // a subset has nothing of its own but the policy
		m.Add("", conf.Check())
		if p.policy != nil {
			m.Need("Pool.Policy", p.policy, nilInside)
		}
		m.In("Pool.Policy", p.policy)
		return m.Err()
	}
	if p.Policy != nil {
		m.Need("Pool.Policy", p.Policy, nilInside)
	}
	m.In("Pool.Policy", p.Policy)
	m.In("Pool.SlowStart", p.SlowStart)
	m.In("Pool.Tiers", p.Tiers)
	m.In("Pool.Locality", p.Locality)
	m.In("Pool.Budget", p.Budget)
	m.In("Pool.Queue.Share", p.Queue.Share)
	m.If(!within(p.Panic, 1), "Pool.Panic", p.Panic, upTo(1))
	m.If(p.FullConns < 0, "Pool.FullConns", p.FullConns, notNegative)
	m.If(p.WhenFull > WaitOrGoOn, "Pool.WhenFull", uint8(p.WhenFull), "must be a constant of type balance.WhenFull")
	for i, f := range p.OnOutcome {
		m.Need(fmt.Sprintf("Pool.OnOutcome[%d]", i), f, "must be a func")
	}
	return m.Err()
}

// within reports whether v is from 0 to limit; NaN is not.
func within(v, limit float64) bool { return v >= 0 && v <= limit }

func upTo(limit float64) string { return fmt.Sprintf("must be from 0 to %g", limit) }

// Check returns what is wrong with e. [Pool.Set] calls it.
func (e Endpoint) Check() error {
	// Sets may be long and are usually valid, so no value is boxed before a check fails.
	var m penstock.Mistakes
	switch {
	case e.Addr != "":
		if reason := checkAddr(e.Addr); reason != "" {
			m.If(true, "Endpoint.Addr", e.Addr, reason)
		}
	case e.Value == nil || e.Name == "":
		m.If(true, "Endpoint.Addr", e.Addr, `must not be empty: write "host:port" or "unix:/path", or set Name and Value for a member in this process`)
	}
	if e.Weight > MaxWeight {
		m.If(true, "Endpoint.Weight", e.Weight, "must be at most "+strconv.Itoa(MaxWeight))
	}
	if e.MinConns < 0 {
		m.If(true, "Endpoint.MinConns", e.MinConns, notNegative)
	} else if e.MinConns > max(e.MaxConns, 0) {
		m.If(true, "Endpoint.MinConns", e.MinConns, fmt.Sprintf("must be at most MaxConns (%d)", max(e.MaxConns, 0)))
	}
	if e.Tier < 0 {
		m.If(true, "Endpoint.Tier", e.Tier, notNegative)
	}
	return m.Err()
}

// checkAddr returns what is wrong with addr, or nothing.
func checkAddr(addr string) string {
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		switch {
		case path == "":
			return "must have a path after unix:"
		case strings.Contains(path, "\x00"):
			return "must have a path without NUL: an abstract socket is written unix:@name"
		case len(path) > 107:
			return "must have a path of at most 107 bytes: sockets have no longer ones (unix(7))"
		}
		return ""
	}
	if scheme, rest, ok := strings.Cut(addr, "://"); ok {
		return "must be host:port without a scheme and a path: write " + strconv.Quote(bareAddr(scheme, rest))
	}
	host, port, err := net.SplitHostPort(addr)
	switch {
	case err != nil || host == "" || port == "":
		return "must be host:port or unix:/path"
	case !isPort(port):
		return "must have a port from 1 to 65535, or the name of one"
	}
	return checkHost(host)
}

// checkHost returns what is wrong with a host that is to be dialed, or nothing. What
// is not an address must be a name, and the last label of names that have several is
// no number, so that none looks like an address (RFC 1123, section 2.1; RFC 3696,
// section 2). Names in other letters than those of ASCII are in the DNS in another
// form (RFC 5890, section 2.3.2.1), which the resolvers of Go do not make.
func checkHost(host string) string {
	if strings.Contains(host, ":") {
		if _, err := netip.ParseAddr(host); err == nil {
			return ""
		}
		return "must have a host that is a name or an address: between the brackets is no address of IPv6"
	}
	name := strings.TrimSuffix(host, ".")
	if strings.ContainsFunc(name, func(r rune) bool { return r >= 0x80 }) {
		return "must have a host in ASCII: write the form of the name in the DNS, as in xn--bcher-kva.example for bücher.example (punycode)"
	}
	var last string
	for last = range strings.SplitSeq(name, ".") {
		if last == "" || len(last) > 63 || len(name) > 253 {
			return "must have a host that is a name or an address: the parts of a name have from 1 to 63 bytes, and all of it at most 253"
		}
	}
	switch {
	case name == "*":
		return "must have a host that is a name or an address: a server is dialed, so write where it listens, such as 127.0.0.1"
	case !isName(name):
		return "must have a host that is a name or an address: names have letters, digits, hyphens, underscores and dots only"
	case len(last) < len(name) && strings.Trim(last, "0123456789") == "":
		if _, err := netip.ParseAddr(host); err == nil {
			return ""
		}
		return "must have a host that is a name or an address: IPv4 has four numbers from 0 to 255, without leading zeros, as in 10.0.0.1"
	}
	return ""
}

// isName reports whether s has only bytes that occur in names.
func isName(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case '0' <= c && c <= '9', 'a' <= c|0x20 && c|0x20 <= 'z', c == '-', c == '_', c == '.':
		default:
			return false
		}
	}
	return true
}

// bareAddr returns the host:port of a URL.
func bareAddr(scheme, rest string) string {
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		rest = rest[:i]
	}
	rest = rest[strings.LastIndexByte(rest, '@')+1:]
	if _, _, err := net.SplitHostPort(rest); err == nil || rest == "" {
		return rest
	}
	port := "80"
	if scheme == "https" {
		port = "443"
	}
	return net.JoinHostPort(strings.Trim(rest, "[]"), port)
}

// isPort reports whether s is the number of a port, or may be the name of a
// service (RFC 6335, section 5.1).
func isPort(s string) bool {
	letter := false
	for i := range len(s) {
		switch c := s[i] | 0x20; {
		case '0' <= s[i] && s[i] <= '9', s[i] == '-':
		case 'a' <= c && c <= 'z':
			letter = true
		default:
			return false
		}
	}
	if letter {
		return len(s) <= 15
	}
	n, err := strconv.Atoi(s)
	return err == nil && 1 <= n && n <= 65535
}

// Check returns what is wrong with s.
func (s SlowStart) Check() error {
	var m penstock.Mistakes
	m.If(!within(s.Aggression, 100), "SlowStart.Aggression", s.Aggression, upTo(100))
	m.If(!within(s.Floor, 1), "SlowStart.Floor", s.Floor, upTo(1))
	return m.Err()
}

// Check returns what is wrong with t.
func (t Tiers) Check() error {
	var m penstock.Mistakes
	m.If(!within(t.Overprovision, 100), "Tiers.Overprovision", t.Overprovision, upTo(100))
	return m.Err()
}

// Check returns what is wrong with l.
func (l Locality) Check() error {
	var m penstock.Mistakes
	m.If(!within(l.Share, 1), "Locality.Share", l.Share, upTo(1))
	return m.Err()
}

// Check returns what is wrong with b.
func (b Budget) Check() error {
	var m penstock.Mistakes
	m.If(!(b.Share <= 100), "Budget.Share", b.Share, "must be at most 100, a part of the requests")
	return m.Err()
}

// Check returns what is wrong with c. A pool with the policy calls it, as it
// does the Check of every policy that has one.
func (c TwoChoices) Check() error {
	var m penstock.Mistakes
	m.If(c.N < 0 || c.N > 16, "TwoChoices.N", c.N, "must be from 0 to 16")
	return m.Err()
}

// HasOnOutcome reports whether OnOutcome is not empty; for a subset, that of
// its pool. From then on its funcs are called, also those added after the first Set.
func (p *Pool) HasOnOutcome() bool {
	p.init()
	c := p.core
	c.mu.Lock()
	defer c.mu.Unlock()
	funcs := c.conf.OnOutcome
	var h hooks
	if old := c.hooks.Load(); old != nil {
		h = *old
	}
	if len(h.funcs) != len(funcs) {
		h.funcs = funcs
		c.hooks.Store(&h)
	}
	return len(funcs) > 0
}
