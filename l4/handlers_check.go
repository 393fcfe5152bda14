// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"crypto/tls"
	"fmt"
	"net/netip"
	"strings"

	"github.com/penstock-lb/penstock"
	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/ratelimit"
)

// Check returns what is wrong with l, its limiters and its handlers.
func (l *Limit) Check() error { return checkAll(l) }

func (l *Limit) check(c *checks) {
	c.next("Limit.Next", l.Next)
	c.limiter("Limit.All", l.All)
	c.limiter("Limit.PerClient", l.PerClient)
	c.If(l.All == nil && l.PerClient == nil, "Limit.All", nil, "must be a limiter, such as a ratelimit.Limiter, or PerClient one: nothing is limited")
	c.If(l.ClientBits > 128, "Limit.ClientBits", l.ClientBits, clientBits)
	c.optional("Limit.Refuse", l.Refuse)
}

// Check returns what is wrong with l. [PacedListener.Accept] calls it at the
// first connection.
func (l *PacedListener) Check() error { return checkAll(l) }

func (l *PacedListener) check(c *checks) {
	c.Need("PacedListener.Listener", l.Listener, "must be the listener to slow down")
	c.Need("PacedListener.Rate", l.Rate, "must be the limiter of connections")
	c.in("PacedListener.Rate", l.Rate)
}

// Check returns what is wrong with t, its limiters and its handler.
func (t *Throttle) Check() error { return checkAll(t) }

func (t *Throttle) check(c *checks) {
	c.next("Throttle.Next", t.Next)
	c.In("Throttle.In", t.In)
	c.In("Throttle.Out", t.Out)
}

// Check returns what is wrong with the limiters of b.
func (b Bandwidth) Check() error {
	var m penstock.Mistakes
	c := &checks{&m}
	c.limiter("Bandwidth.All", b.All)
	c.limiter("Bandwidth.PerClient", b.PerClient)
	m.If(b.ClientBits > 128, "Bandwidth.ClientBits", b.ClientBits, clientBits)
	const inFlight = "must be a law of time, such as GCRA: bytes that have passed are never given back"
	switch l := b.All.(type) {
	case *ratelimit.Limiter:
		m.If(l != nil && isInFlight(l.Law), "Bandwidth.All.Limiter.Law", nil, inFlight)
	}
	switch l := b.PerClient.(type) {
	case *ratelimit.Keyed[netip.Addr]:
		m.If(l != nil && isInFlight(l.Law), "Bandwidth.PerClient.Keyed.Law", nil, inFlight)
	}
	return m.Err()
}

const clientBits = "must be at most 128, the bits of an address"

func isInFlight(l ratelimit.Law) bool {
	switch l.(type) {
	case ratelimit.InFlight, *ratelimit.InFlight:
		return true
	}
	return false
}

// Check returns what is wrong with a and its handlers.
func (a *AcceptProxy) Check() error { return checkAll(a) }

func (a *AcceptProxy) check(c *checks) {
	c.next("AcceptProxy.Next", a.Next)
	c.optional("AcceptProxy.Others", a.Others)
	c.If(a.MaxBytes > 0 && a.MaxBytes < 16, "AcceptProxy.MaxBytes", a.MaxBytes, "must be at least 16: no header of version 2 is shorter, and hardly one of version 1")
}

// Check returns what is wrong with a and its handlers.
func (a *AcceptPostgreSQL) Check() error { return checkAll(a) }

func (a *AcceptPostgreSQL) check(c *checks) {
	c.next("AcceptPostgreSQL.Next", a.Next)
	c.optional("AcceptPostgreSQL.Plain", a.Plain)
}

// Check returns what is wrong with t and its handler.
func (t *TerminateTLS) Check() error { return checkAll(t) }

func (t *TerminateTLS) check(c *checks) {
	c.next("TerminateTLS.Next", t.Next)
	c.Need("TerminateTLS.Config", t.Config, "must be a configuration with a certificate, see Certificates")
	c.If(t.Config != nil && !hasCertificate(t.Config), "TerminateTLS.Config.Certificates", nil,
		"must have a certificate, or GetCertificate or GetConfigForClient be set: see Certificates")
	if t.Config != nil {
		checkVersions(c.Mistakes, "TerminateTLS.Config", t.Config)
	}
}

// Check returns what is wrong with t. [OriginateTLS.Handshake] calls it.
func (t *OriginateTLS) Check() error {
	var m penstock.Mistakes
	checkTLS(&m, "OriginateTLS.Config", t.Config)
	return m.Err()
}

// checkTLS looks for what lets no handshake with a server succeed, whatever the server is.
func checkTLS(m *penstock.Mistakes, field string, cfg *tls.Config) {
	if cfg == nil {
		return
	}
	checkVersions(m, field, cfg)
	name := cfg.ServerName
	if _, err := netip.ParseAddr(name); err == nil || name == "" {
		return
	}
	m.If(!isDomain(name), field+".ServerName", name, "must be the name in the certificate alone, in ASCII, without a scheme or a port")
}

func checkVersions(m *penstock.Mistakes, field string, cfg *tls.Config) {
	m.If(cfg.MinVersion > cfg.MaxVersion && cfg.MaxVersion != 0, field+".MinVersion", cfg.MinVersion, "must not be above MaxVersion")
}

// isDomain reports whether s is a name as certificates have it.
func isDomain(s string) bool {
	return !strings.Contains(s, ":") && (balance.Endpoint{Addr: s + ":1"}).Check() == nil
}

func hasCertificate(cfg *tls.Config) bool {
	return len(cfg.Certificates) > 0 || cfg.GetCertificate != nil || cfg.GetConfigForClient != nil
}

// Check returns what is wrong with p. [SendProxy.Handshake] calls it.
func (p *SendProxy) Check() error {
	var m penstock.Mistakes
	m.If(p.Version < 0 || p.Version > 2, "SendProxy.Version", p.Version, "must be 1 or 2, or 0 for 2")
	return m.Err()
}

// Check returns what is wrong with the names of c.
func (c *Certificates) Check() error {
	var m penstock.Mistakes
	for i, name := range c.Except {
		m.If(!isDomain(name), fmt.Sprintf("Certificates.Except[%d]", i), name, "must be a whole name without *, in ASCII, without a scheme or a port")
	}
	return m.Err()
}
