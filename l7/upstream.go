// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"context"
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4"
)

// An Upstream makes and keeps the HTTP/1 connections to servers. Several
// proxies and transports may share one. The zero value is ready to use; its
// fields must not change once it is used.
//
// A connection is reused for any client (HAProxy's http-reuse always, made
// safe by replaying what can be replayed), the one that was used last first.
type Upstream struct {
	// Dial connects to a server; nil means a [net.Dialer] without keep-alive
	// probes.
	Dial l4.DialFunc

	// TLS returns the client configuration for a server, and nil for plain
	// text; a nil TLS means plain text to all. Where the configuration has no
	// ServerName, the host part of the server's address is verified. Sessions
	// are resumed if it has a ClientSessionCache.
	TLS func(s *balance.Server) *tls.Config

	ConnectTimeout time.Duration // of dial and TLS handshake together; 0 means 3s, negative none

	MaxIdle     int           // idle connections kept for a server; 0 means 512, negative none
	IdleTimeout time.Duration // of an idle connection; 0 means 30s, less than most servers allow; negative none
	MaxAge      time.Duration // of a connection, up to a tenth less by chance; 0 means no limit
	MaxRequests int           // over one connection; 0 means no limit

	once  sync.Once
	pool  l4.BufferPool
	bulk  l4.BufferPool
	mu    sync.RWMutex
	hosts map[hostKey]*upHost
}

const (
	defaultConnectTimeout = 3 * time.Second
	defaultMaxIdle        = 512
	defaultKeepIdle       = 30 * time.Second
)

// hostKey is what connections must have in common to be exchanged.
type hostKey struct {
	server *balance.Server
	addr   string
}

func (u *Upstream) init() {
	u.once.Do(func() {
		u.pool.Size = headBuffer
		u.bulk.Size = bulkBuffer
		u.hosts = make(map[hostKey]*upHost)
	})
}

// host returns the connections of a server.
func (u *Upstream) host(s *balance.Server) *upHost {
	key := hostKey{s, s.Addr()}
	u.mu.RLock()
	h := u.hosts[key]
	u.mu.RUnlock()
	if h != nil {
		return h
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if h = u.hosts[key]; h == nil {
		h = &upHost{up: u, key: key, conns: make(map[*upConn]struct{})}
		u.hosts[key] = h
		s.Attach(h)
	}
	return h
}

// CloseIdle closes all idle connections.
func (u *Upstream) CloseIdle() {
	u.mu.RLock()
	hosts := make([]*upHost, 0, len(u.hosts))
	for _, h := range u.hosts {
		hosts = append(hosts, h)
	}
	u.mu.RUnlock()
	for _, h := range hosts {
		h.closeIdle(time.Time{})
	}
}

// An upHost holds the connections to one server.
type upHost struct {
	up  *Upstream
	key hostKey

	mu    sync.Mutex
	idle  []*upConn // used last comes last
	conns map[*upConn]struct{}
	timer *time.Timer // closes idle connections in time; nil if there are none
	dead  bool        // the server went down or away: what comes back is closed
}

// Cut implements [balance.Attached].
func (h *upHost) Cut(live bool, reason string) {
	h.up.mu.Lock()
	if h.up.hosts[h.key] == h {
		delete(h.up.hosts, h.key)
	}
	h.up.mu.Unlock()
	h.key.server.Detach(h)
	h.mu.Lock()
	h.dead = true
	if live {
		for c := range h.conns {
			c.cut(reason)
		}
	}
	h.mu.Unlock()
	h.closeIdle(time.Time{})
}

// closeIdle closes the idle connections that were last used before t, all of
// them if t is zero.
func (h *upHost) closeIdle(t time.Time) {
	h.mu.Lock()
	n := 0
	for n < len(h.idle) && (t.IsZero() || h.idle[n].idleAt.Before(t)) {
		n++
	}
	old := append([]*upConn(nil), h.idle[:n]...)
	rest := copy(h.idle, h.idle[n:])
	clear(h.idle[rest:])
	h.idle = h.idle[:rest]
	if h.timer != nil && rest == 0 {
		h.timer.Stop()
		h.timer = nil
	}
	h.mu.Unlock()
	for _, c := range old {
		c.close()
	}
}

// expire runs by timer while there are idle connections.
func (h *upHost) expire() {
	limit := orDefault(h.up.IdleTimeout, defaultKeepIdle)
	h.closeIdle(time.Now().Add(-limit))
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.timer != nil {
		h.timer.Reset(limit / 2)
	}
}

// take returns an idle connection that looks alive, or nil. If ask is true,
// the caller will look by [l4.Conn.Ask] where that can.
func (h *upHost) take(ask bool) *upConn {
	for {
		h.mu.Lock()
		n := len(h.idle)
		if n == 0 {
			h.mu.Unlock()
			return nil
		}
		c := h.idle[n-1]
		h.idle[n-1] = nil
		h.idle = h.idle[:n-1]
		h.mu.Unlock()
		// What a server sends between replies is never a reply, and one that
		// closed an idle connection has done no wrong.
		if ask && c.quiet.bare() || c.quiet.is() {
			c.reused = true
			return c
		}
		c.close()
	}
}

// put keeps a connection for later, or closes it.
func (h *upHost) put(c *upConn) {
	if m := h.up.MaxRequests; m > 0 && c.requests >= m || h.up.MaxAge > 0 && c.idleAt.After(c.expires) {
		c.close()
		return
	}
	h.mu.Lock()
	if h.dead || len(h.idle) >= orDefault(h.up.MaxIdle, defaultMaxIdle) {
		h.mu.Unlock()
		c.close()
		return
	}
	h.idle = append(h.idle, c)
	if h.timer == nil {
		if limit := orDefault(h.up.IdleTimeout, defaultKeepIdle); limit > 0 {
			h.timer = time.AfterFunc(limit/2, h.expire)
		}
	}
	h.mu.Unlock()
}

// dial opens a connection.
func (h *upHost) dial(ctx context.Context) (*upConn, error) {
	if d := orDefault(h.up.ConnectTimeout, defaultConnectTimeout); d > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, d, errConnectTimeout)
		defer cancel()
	}
	dial := h.up.Dial
	if dial == nil {
		dial = (&net.Dialer{KeepAlive: -1}).DialContext
	}
	network, addr := l4.SplitAddr(h.key.addr)
	nc, err := dial(ctx, network, addr)
	if err != nil {
		return nil, connectError(ctx, err)
	}
	if nc, err = h.handshake(ctx, nc, addr); err != nil {
		return nil, &tlsError{connectError(ctx, err)}
	}
	c := &upConn{host: h, c: l4.NewConn(nc), quiet: newQuiet(nc)}
	if age := h.up.MaxAge; age > 0 {
		c.expires = time.Now().Add(age - rand.N(age/10+1)) // not all at once
	}
	h.mu.Lock()
	h.conns[c] = struct{}{}
	h.mu.Unlock()
	return c, nil
}

// handshake does the TLS handshake where there is to be one.
func (h *upHost) handshake(ctx context.Context, nc net.Conn, addr string) (net.Conn, error) {
	if h.up.TLS == nil {
		return nc, nil
	}
	cfg := h.up.TLS(h.key.server)
	if cfg == nil {
		return nc, nil
	}
	if cfg.ServerName == "" && !cfg.InsecureSkipVerify {
		cfg = cfg.Clone()
		if host, _, err := net.SplitHostPort(addr); err == nil {
			cfg.ServerName = host
		}
	}
	t := tls.Client(nc, cfg)
	if err := t.HandshakeContext(ctx); err != nil {
		_ = nc.Close()
		return nil, err
	}
	return t, nil
}

var errConnectTimeout = errors.New("l7: connect timeout")

// connectError tells our own time limit from other ends of the context.
func connectError(ctx context.Context, err error) error {
	if context.Cause(ctx) == errConnectTimeout {
		return errors.Join(errConnectTimeout, err)
	}
	return err
}

// tlsError marks a failure after the TCP connection was there.
type tlsError struct{ error }

func (e *tlsError) Unwrap() error { return e.error }

// upConn is an HTTP/1 connection to a server. One request at a time has it.
type upConn struct {
	host     *upHost
	c        *l4.Conn
	expires  time.Time // zero means never
	idleAt   time.Time // when it was last known to be in use
	requests int
	reused   bool
	quiet    *quiet
	readAt   coarse
	sendAt   coarse

	interrupted atomic.Bool            // the client went away
	cutReason   atomic.Pointer[string] // the server was taken away
	enough      atomic.Bool            // the rest of the request body is not to be sent

	in   *l4.Buffer // bytes read, those before pos consumed; nil when there are none
	pos  int
	held []byte // a piece of the body that a filter has not taken yet
	rep  Reply
	upReply
}

// interrupt makes reads and writes under way, and to come, fail.
func (c *upConn) interrupt() {
	c.interrupted.Store(true)
	_ = c.c.SetDeadline(past)
}

// interruptBody is interrupt for a request body that does not come: the server
// must not take what it has got for all of it.
func (c *upConn) interruptBody() { _ = c.c.SetReadDeadline(past) }

func (c *upConn) cut(reason string) {
	c.cutReason.Store(&reason)
	_ = c.c.SetDeadline(past)
}

// close closes the connection for good.
func (c *upConn) close() {
	c.releaseInput()
	h := c.host
	h.mu.Lock()
	delete(h.conns, c)
	h.mu.Unlock()
	_ = c.c.Close()
}

// release ends the use of a connection: clean means that request and reply
// are complete and that nothing but the next reply can follow.
func (c *upConn) release(clean bool) {
	clean = clean && c.in == nil && !c.interrupted.Load() && c.cutReason.Load() == nil
	if !clean {
		c.close()
		return
	}
	c.host.put(c)
}

func (c *upConn) releaseInput() {
	if c.in != nil { // each pool takes only what is of its size
		c.host.up.pool.Put(c.in)
		c.host.up.bulk.Put(c.in)
		c.in, c.pos = nil, 0
	}
}
