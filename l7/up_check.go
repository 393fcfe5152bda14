// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"fmt"
	"strings"

	"github.com/penstock-lb/penstock"
	"github.com/penstock-lb/penstock/balance"
)

// Check returns what is wrong with p, its pool, its upstream and its mirror.
func (p *Proxy) Check() error { return checkAll(p) }

func (p *Proxy) check(c *checks) {
	c.Need("Proxy.Pool", p.Pool, "must be the pool of servers")
	c.in("Proxy.Pool", p.Pool)
	c.in("Proxy.Upstream", p.Upstream)
	c.in("Proxy.Retry", p.Retry)
	c.in("Proxy.Hedge", p.Hedge)
	c.in("Proxy.Mirror", p.Mirror)
	c.If(p.Forward > ForwardNone, "Proxy.Forward", uint8(p.Forward), "must be a constant of type l7.Forward")
	c.If(p.Via != "" && !isToken(p.Via) && !validHost(p.Via), "Proxy.Via", p.Via, "must be a name, or host:port (RFC 9110, section 7.6.3)")
	for i, u := range p.Upgrades {
		name, version, versioned := strings.Cut(u, "/") // RFC 9110, section 7.8
		c.If(!isToken(name) || versioned && !isToken(version), fmt.Sprintf("Proxy.Upgrades[%d]", i), u, `must be the name of a protocol, such as "websocket", or with a version, such as "TLS/1.3"`)
	}
}

// Check returns what is wrong with r.
func (r Retry) Check() error {
	var m penstock.Mistakes
	for i, class := range r.Classes {
		field := fmt.Sprintf("Retry.Classes[%d]", i)
		m.If(class == balance.OK || class > balance.Stale, field, uint8(class), "must be a constant of type balance.Class other than OK")
		m.If(class == balance.StatusError, field, class, "has no effect here: list the statuses in Retry.Statuses")
	}
	for i, st := range r.Statuses {
		m.If(st < 400 || st > 599, fmt.Sprintf("Retry.Statuses[%d]", i), st, "must be the status of an error, from 400 to 599")
	}
	return m.Err()
}

// Check returns what is wrong with h.
func (h Hedge) Check() error {
	var m penstock.Mistakes
	m.If(h.Delay < 0, "Hedge.Delay", h.Delay, notNegative)
	m.If(!(h.Quantile >= 0 && h.Quantile < 1), "Hedge.Quantile", h.Quantile, "must be at least 0 and below 1, as in 0.95")
	return m.Err()
}

// Check returns what is wrong with m and its handler.
func (m *Mirror) Check() error { return checkAll(m) }

func (m *Mirror) check(c *checks) {
	c.Need("Mirror.To", m.To, "must be the handler that gets the copies")
	c.in("Mirror.To", m.To)
	c.If(!(m.Share >= 0 && m.Share <= 1), "Mirror.Share", m.Share, "must be from 0 to 1; 0 means all")
}

// Check returns what is wrong with u.
func (u *Upstream) Check() error {
	var m penstock.Mistakes
	m.If(u.Reuse > ReuseNever, "Upstream.Reuse", uint8(u.Reuse), "must be a constant of type l7.Reuse")
	p := u.Protocols
	m.If(p != nil && !p.HTTP1() && !p.HTTP2() && !p.UnencryptedHTTP2(), "Upstream.Protocols", nil, "must have a protocol, or be nil for HTTP/1")
	if p != nil && p.HTTP2() && !p.HTTP1() && !p.UnencryptedHTTP2() {
		// A Dial may return a tls.Conn, and ProtocolsOf may have others for every server.
		m.If(u.TLS == nil && u.Dial == nil && u.ProtocolsOf == nil, "Upstream.Protocols", p.String(),
			"must have UnencryptedHTTP2 where TLS is nil (h2c): HTTP2 is that over TLS, and servers would get HTTP/1")
	}
	return m.Err()
}
