// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"crypto/tls"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4"
)

// An Upstream makes and keeps the connections to servers. Several proxies and
// transports may share one. The zero value is ready to use; its fields must not
// change once it is used.
//
// A connection is reused for any client (HAProxy's http-reuse always, made
// safe by replaying what can be replayed), the one that was used last first.
// Two requests may share a connection only if it would be opened in the same
// way for both: to the same server, the same address, under the same TLS name
// and with the same PROXY header. A connection on which a server asks for NTLM
// or Negotiate, which log in connections and not requests, is not used again.
type Upstream struct {
	// Dial connects to a server; nil means a [net.Dialer] without keep-alive
	// probes. It must end when its context does.
	Dial l4.DialFunc

	// TLS returns the client configuration for a server, and nil for plain
	// text; a nil TLS means plain text to all. It is called for each connection,
	// and once for each server before that.
	//
	// Certificates are verified unless the configuration says otherwise, under
	// the name that TLSName or its ServerName gives, or else the host part of
	// the server's address. Sessions are resumed: without a ClientSessionCache,
	// each server gets one. GetClientCertificate is asked for each connection, so that is
	// where a client certificate is renewed; connections that are open keep the old
	// one until MaxAge or CloseIdle ends them. A server whose
	// certificate is not valid is not asked in plain text instead, and no other
	// server is tried under the same name.
	TLS func(s *balance.Server) *tls.Config

	// TLSName returns the name to ask a server for (SNI) and to verify. Nil, and
	// an empty name, mean what is said of TLS. [HostOnly] takes the name that
	// the client asked for.
	TLSName func(x *Exchange, s *balance.Server) string

	// ProxyHeader returns the PROXY protocol header that a connection to a
	// server begins with, or nil for none. A header that tells the client's
	// address restricts the connection to the requests of that address and
	// port.
	ProxyHeader func(x *Exchange, s *balance.Server) *l4.ProxyHeader

	// Protocols are those spoken with servers; nil means HTTP/1 only, which
	// costs the least by far. With HTTP1 and HTTP2, TLS servers are offered
	// both (ALPN); HTTP2 alone insists on it. UnencryptedHTTP2 without HTTP1 is
	// HTTP/2 by prior knowledge (h2c). NextProtos in what TLS returns have the
	// last word. Requests that change the protocol (WebSocket) and CONNECT take
	// HTTP/1 where it is allowed; over HTTP/2 they lose the wish to change.
	Protocols *http.Protocols

	ConnectTimeout time.Duration // of dial and TLS handshake together; 0 means 3s, negative none

	MaxIdle     int           // idle HTTP/1 connections kept for a server; 0 means 512, negative none
	IdleTimeout time.Duration // of an idle connection; 0 means 30s, less than most servers allow; negative none
	MaxAge      time.Duration // of a connection, up to a tenth less by chance; 0 means no limit
	MaxRequests int           // over one connection; 0 means no limit
	PingTimeout time.Duration // of an HTTP/2 connection that is silent: after it a PING is sent, and after as long again without an answer the connection is closed; 0 means 15s, negative none

	once     sync.Once
	pool     l4.BufferPool
	bulk     l4.BufferPool
	attempts sync.Pool
	two      *http.Transport // makes the connections of HTTP/2
	mu       sync.RWMutex
	hosts    map[hostKey]*upHost
}

const (
	defaultConnectTimeout = 3 * time.Second
	defaultMaxIdle        = 512
	defaultKeepIdle       = 30 * time.Second
	defaultPingTimeout    = 15 * time.Second
)

// hostKey says which connections are kept together.
type hostKey struct {
	server *balance.Server
	addr   string
}

// identity is what connections to one server must have in common to be
// exchanged: how they were opened.
type identity struct {
	tlsName string // asked for by TLSName
	proxy   string // PROXY header
}

// identify returns the identity of a connection for x.
func (u *Upstream) identify(x *Exchange, s *balance.Server) (id identity, err error) {
	if u.TLSName != nil {
		id.tlsName = u.TLSName(x, s)
	}
	if u.ProxyHeader != nil {
		if h := u.ProxyHeader(x, s); h != nil {
			b, err := h.AppendBinary(nil)
			if err != nil {
				return id, err
			}
			id.proxy = string(b)
		}
	}
	return id, nil
}

// HostOnly is a TLSName of [Upstream]: the host that the client asked for,
// without the port. It leaves out what is an address, as SNI does.
func HostOnly(x *Exchange, _ *balance.Server) string {
	host := hostName(x.Host)
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return ""
	}
	return host
}

func (u *Upstream) init() {
	u.once.Do(func() {
		u.pool.Size = headBuffer
		u.bulk.Size = bulkBuffer
		u.two = u.newTwo()
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
		h.learnProtocols()
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
		h.mu.Lock()
		twos := h.twos
		h.mu.Unlock()
		for _, c := range twos {
			c.closeIfIdle()
		}
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

	protocols
	sessions tls.ClientSessionCache // nil as long as there was no TLS
	twos     []*h2Conn              // never changed in place
	dialing  *h2Dial                // of HTTP/2, under way
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
	twos := h.twos
	h.mu.Unlock()
	for _, c := range twos {
		c.cut(live, reason)
	}
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
func (h *upHost) take(id identity, ask bool) *upConn {
	for {
		h.mu.Lock()
		i := len(h.idle) - 1
		for i >= 0 && h.idle[i].id != id {
			i--
		}
		if i < 0 {
			h.mu.Unlock()
			return nil
		}
		c := h.idle[i]
		if i < len(h.idle)-1 {
			copy(h.idle[i:], h.idle[i+1:])
		}
		h.idle[len(h.idle)-1] = nil
		h.idle = h.idle[:len(h.idle)-1]
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

// upConn is an HTTP/1 connection to a server. One request at a time has it.
type upConn struct {
	host     *upHost
	c        *l4.Conn
	expires  time.Time // zero means never
	idleAt   time.Time // when it was last known to be in use
	requests int
	id       identity
	quiet    *quiet
	readAt   coarse
	sendAt   coarse

	enough atomic.Bool // the rest of the request body is not to be sent
	in     *l4.Buffer  // bytes read, those before pos consumed; nil when there are none
	pos    int
	pump   *pump // sends the request body; nil if there is nothing to wait for
	rep    Reply
	fate
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
	c.x = nil
	c.releaseInput()
	c.forget()
	_ = c.c.Close()
}

// forget takes the connection off the list.
func (c *upConn) forget() {
	c.host.mu.Lock()
	defer c.host.mu.Unlock()
	delete(c.host.conns, c)
}

// release ends the use of a connection: clean means that request and reply
// are complete and that nothing but the next reply can follow.
func (c *upConn) release(clean bool) {
	c.x, c.pump = nil, nil
	if c.in != nil {
		c.consumed()
	}
	if !clean || !c.keep || c.private || c.in != nil || c.lost() {
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
