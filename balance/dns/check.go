// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/penstock-lb/penstock"
	"github.com/penstock-lb/penstock/balance"
)

// Check returns what is wrong with s, each a [*penstock.ConfigError].
// [Source.Watch] calls it.
func (s *Source) Check() error {
	var m penstock.Mistakes
	if reason := checkName(s.Name); reason != "" {
		m.If(true, "Source.Name", s.Name, reason)
	} else if s.Service != "" {
		_, err := dnsmessage.NewName(dot(s.service()))
		m.If(err != nil, "Source.Name", s.Name, "must be shorter: with the service it has more than 255 bytes")
	}
	m.If(s.Service != "" && !isService(s.Service), "Source.Service", s.Service,
		`must be the name of a service as in "http": letters, digits and hyphens, without the underscore`)
	_, _, _, named := splitSRV(s.Name)
	m.If(s.Service == "" && !named && (s.Port <= 0 || s.Port > 65535), "Source.Port", s.Port, "must be a port from 1 to 65535")
	m.If(s.Service != "" && s.Port != 0, "Source.Port", s.Port, "must be 0 with a Service: SRV records bring their own")
	m.If(s.Proto != "" && s.Proto != "tcp" && s.Proto != "udp", "Source.Proto", s.Proto, `must be "tcp" or "udp"`)
	m.If(s.Network != "" && s.Network != "ip" && s.Network != "ip4" && s.Network != "ip6",
		"Source.Network", s.Network, `must be "ip", "ip4" or "ip6"`)
	for i, addr := range s.Servers {
		host, port, err := net.SplitHostPort(addr)
		field := fmt.Sprintf("Source.Servers[%d]", i)
		m.If(err != nil || host == "" || port == "", field, addr, `must be "host:port"`)
		var wrong *penstock.ConfigError
		if err == nil && errors.As((balance.Endpoint{Name: "a", Addr: addr}).Check(), &wrong) {
			m.If(host != "" && port != "", field, addr, wrong.Reason)
		}
	}
	for _, d := range []struct {
		field string
		value time.Duration
	}{{"Timeout", s.Timeout}, {"MinTTL", s.MinTTL}, {"MaxTTL", s.MaxTTL}, {"Retry", s.Retry}} {
		m.If(d.value < 0, "Source."+d.field, d.value, "must not be negative")
	}
	m.If(s.MinTTL > s.maxTTL() && s.MaxTTL >= 0, "Source.MinTTL", s.MinTTL, "must not be more than MaxTTL")
	m.If(s.Tries < 0, "Source.Tries", s.Tries, "must not be negative")
	m.If(!(s.Jitter <= 1), "Source.Jitter", s.Jitter, "must be at most 1, a part of the time")
	return m.Err()
}

// checkName returns what is wrong with a name to ask for, or nothing (RFC 1035, section
// 2.3.4).
func checkName(name string) string {
	if strings.Contains(name, "://") {
		return "must be a domain name alone, without a scheme"
	}
	if host, _, err := net.SplitHostPort(name); err == nil {
		return fmt.Sprintf("must be a domain name alone: write %q, and the port as Port", host)
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return "must be a domain name: an address needs no question, give it to the pool by Set"
	}
	for i := range len(name) {
		switch c := name[i]; {
		case c >= 0x80:
			return "must be in ASCII: write the form of the name in the DNS, as in xn--bcher-kva.example for bücher.example (punycode)"
		case c <= ' ', c == 0x7f, c == '/', c == '@':
			return "must be a domain name"
		}
	}
	for label := range strings.SplitSeq(strings.TrimSuffix(name, "."), ".") {
		if label == "" || len(label) > 63 {
			return "must be a domain name: its parts have from 1 to 63 bytes"
		}
	}
	if _, err := dnsmessage.NewName(dot(name)); err != nil {
		return "must be a domain name, of at most 254 bytes"
	}
	if service, proto, domain, ok := splitSRV(name); ok {
		return fmt.Sprintf("must be the domain alone: write Service: %q, Proto: %q, Name: %q", service, proto, domain)
	}
	return ""
}

// splitSRV splits _service._proto.name, as SRV records are named (RFC 2782).
func splitSRV(name string) (service, proto, domain string, ok bool) {
	labels := strings.SplitN(name, ".", 3)
	if len(labels) < 3 {
		return "", "", "", false
	}
	service, found := strings.CutPrefix(labels[0], "_")
	proto, both := strings.CutPrefix(strings.ToLower(labels[1]), "_")
	return service, proto, labels[2], found && both && service != "" && isService(service) && (proto == "tcp" || proto == "udp")
}

// isService reports whether s may stand behind the underscore of an SRV record (RFC
// 6335, section 5.1). More than its 15 letters are in use.
func isService(s string) bool {
	for i := range len(s) {
		switch c := s[i] | 0x20; {
		case '0' <= s[i] && s[i] <= '9', s[i] == '-' && i > 0, 'a' <= c && c <= 'z':
		default:
			return false
		}
	}
	return len(s) < 63
}
