// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"

	"github.com/penstock-lb/penstock"
	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/ratelimit"
)

// checks walks a tree of handlers. It comes to each only once, so that a tree
// may lead back to itself: a Router whose handler ends TLS may be the handler
// of what was inside.
type checks struct{ *penstock.Mistakes }

// A checker is a literal that others may hold.
type checker interface{ check(c *checks) }

// newChecks returns what begins a walk.
func newChecks() *checks { return &checks{new(penstock.Mistakes)} }

// checkAll returns what is wrong with v and what it holds.
func checkAll(v checker) error {
	c := newChecks()
	c.in("", v)
	return c.Err()
}

// in adds the mistakes of what a field holds.
func (c *checks) in(field string, v any) {
	if w, ok := v.(checker); ok {
		c.Once(field, w, func(m *penstock.Mistakes) { w.check(&checks{m}) })
	} else {
		c.In(field, v)
	}
}

// optional adds what is wrong with the handler of a field that may be left out. One
// that holds a nil pointer is not left out.
func (c *checks) optional(field string, h Handler) {
	if h != nil {
		c.Need(field, h, "must be left out, or hold a handler: there is a nil pointer in it")
	}
	c.in(field, h)
}

// limiter adds what is wrong with the limiter of a field that may be left out.
func (c *checks) limiter(field string, l any) {
	if l != nil {
		c.Need(field, l, "must be left out, or hold a limiter: there is a nil pointer in it")
	}
	c.in(field, l)
}

// next adds what is wrong with the handler of a field that must have one.
func (c *checks) next(field string, h Handler) {
	c.Need(field, h, "must be the handler that goes on")
	c.in(field, h)
}

// checked is part of the handlers that check themselves before they first serve
// a connection. It is a plain number, so that their literals may be copied.
type checked struct{ good uint32 }

// first returns what is wrong with v, of which c is a part, until nothing is.
func (c *checked) first(v checker) error {
	if atomic.LoadUint32(&c.good) != 0 {
		return nil
	}
	err := checkAll(v)
	if err == nil {
		atomic.StoreUint32(&c.good, 1)
	}
	return err
}

// misconfigured ends a connection that cannot be served.
func misconfigured(c net.Conn, err error) error {
	endConn(c, Termination{Internal, PhaseRequest}, err)
	abort(c)
	c.Close()
	return err
}

const notNegative = "must not be negative"

// Check returns what is wrong with s and its tree of handlers, each mistake a
// [*penstock.ConfigError] whose Field is the path to it:
// Server.Handler.Router.Routes[2].Handler.Proxy.Pool. [Server.Serve] calls it.
// A handler of a host's own takes part if it has a Check.
func (s *Server) Check() error { return checkAll(s) }

func (s *Server) check(c *checks) { c.next("Server.Handler", s.Handler) }

// Check returns what is wrong with r and its handlers. [Router.ServeConn] calls
// it at the first connection, as does every handler with a Check.
func (r *Router) Check() error { return checkAll(r) }

func (r *Router) check(c *checks) {
	for i := range r.Routes {
		c.optional(fmt.Sprintf("Router.Routes[%d].Handler", i), r.Routes[i].Handler)
	}
	c.optional("Router.Default", r.Default)
	c.If(len(r.Routes) == 0 && r.Default == nil, "Router.Routes", nil, "must have a route, or Default a handler")
	c.If(r.Silence < 0, "Router.Silence", r.Silence, notNegative)
}

// Check returns what is wrong with p and its pool.
func (p *Proxy) Check() error { return checkAll(p) }

func (p *Proxy) check(c *checks) {
	c.Need("Proxy.Pool", p.Pool, "must be the pool of servers")
	c.In("Proxy.Pool", p.Pool)
	c.In("Proxy.Socket", p.Socket)
	c.If(p.BufferBytes < 0, "Proxy.BufferBytes", p.BufferBytes, notNegative)
}

// Check returns what is wrong with d and its pool. [Dialer.DialContext] calls it
// at the first dial.
func (d *Dialer) Check() error { return checkAll(d) }

func (d *Dialer) check(c *checks) {
	c.Need("Dialer.Pool", d.Pool, "must be the pool of servers")
	c.In("Dialer.Pool", d.Pool)
	c.In("Dialer.Socket", d.Socket)
}

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

// Check returns what is wrong with lc. [ListenConfig.Listen] calls it.
func (lc *ListenConfig) Check() error {
	var m penstock.Mistakes
	m.In("ListenConfig.Socket", lc.Socket)
	return m.Err()
}

// Check returns what is wrong with o.
func (o SocketOptions) Check() error {
	var m penstock.Mistakes
	m.If(o.UserTimeout < 0, "SocketOptions.UserTimeout", o.UserTimeout, notNegative)
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

// Check returns what is wrong with p and its pool. [UDPProxy.Serve] calls it.
func (p *UDPProxy) Check() error { return checkAll(p) }

func (p *UDPProxy) check(c *checks) {
	c.Need("UDPProxy.Pool", p.Pool, "must be the pool of servers")
	c.In("UDPProxy.Pool", p.Pool)
	c.If(p.Replies < 0, "UDPProxy.Replies", p.Replies, notNegative)
}
