// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/penstock-lb/penstock"
	"github.com/penstock-lb/penstock/balance"
)

// Check returns what is wrong with s, each a [*penstock.ConfigError].
// [Source.Watch] calls it.
func (s *Source) Check() error {
	var m penstock.Mistakes
	name := s.Name
	if s.Service != "" {
		name = s.service()
	}
	_, err := dnsmessage.NewName(dot(name))
	m.If(err != nil || s.Name == "", "Source.Name", s.Name, "must be a domain name")
	m.If(s.Service == "" && (s.Port <= 0 || s.Port > 65535), "Source.Port", s.Port, "must be a port from 1 to 65535")
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
	m.If(s.Tries < 0, "Source.Tries", s.Tries, "must not be negative")
	m.If(!(s.Jitter <= 1), "Source.Jitter", s.Jitter, "must be at most 1, a part of the time")
	return m.Err()
}
