// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"crypto/tls"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4"
)

// An Upstream makes and keeps the connections to servers. Several proxies and
// transports may share one. The zero value is ready to use; its fields must not
// change once it is used.
//
// A connection is reused, for whom Reuse says, the one that was used last first. A request
// for which one is being opened waits for that one.
// Two requests may share a connection only if it would be opened in the same
// way for both: to the same server, the same address, under the same TLS name
// and with the same PROXY header. A connection on which a server asks for NTLM
// or Negotiate, or a client offers them unasked, which log in connections and
// not requests, is kept for the client's connection over which it was logged
// in, and not used again where that is not known. Such a request takes HTTP/1
// where that is allowed. Where only HTTP/2 is, which has no logins of a connection
// (servers ask for HTTP/1.1 by HTTP_1_1_REQUIRED, RFC 9113, section 7), it gets a connection
// for itself alone: a login of one step succeeds, one of several steps does not.
type Upstream struct {
	// Dial connects to a server; nil means a [net.Dialer] without keep-alive
	// probes: timeouts bound every wait of an ordinary exchange, and IdleTimeout
	// what is idle, sooner than TCP would find a dead server. A connection gets its
	// probes when it becomes a stream or a tunnel, which may be quiet for long;
	// HTTP/2 has PING. It must end when its context does; deadlines that it has set are
	// replaced. Over a [*tls.Conn] that it
	// returns, with TLS nil, what is spoken is what its handshake has agreed on.
	Dial l4.DialFunc

	// TLS returns the client configuration for a server, and nil for plain
	// text; a nil TLS means plain text to all. It is called for each connection,
	// and before the first one to a server, without a lock and by several
	// goroutines at once.
	//
	// Certificates are verified unless the configuration says otherwise, under
	// the name that TLSName or its ServerName gives, or else the host part of
	// the server's address. Sessions are resumed: without a ClientSessionCache,
	// each server gets one, for as long as the client certificate is the same.
	// GetClientCertificate is asked before each connection, whether a session is
	// resumed or not, so that is where a client certificate is renewed; connections
	// that are open keep the old one until MaxAge or CloseIdle ends them. A server
	// whose certificate is not valid is not asked in plain text instead, and no other
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
	// last word.
	//
	// Requests that change the protocol (WebSocket) go as extended CONNECT (RFC
	// 8441) to a server that has offered that over a connection of HTTP/2. Else they
	// take HTTP/1 where it is allowed, as CONNECT does, and where it is not, they lose
	// the wish to change. CONNECT goes to any server of HTTP/2.
	Protocols *http.Protocols
	// ProtocolsOf says for one server what Protocols says for all. Nil, and nil
	// that it returns, mean Protocols. It is called as TLS is, before the first
	// connection to a server.
	ProtocolsOf func(s *balance.Server) *http.Protocols

	Reuse Reuse // for whom a connection may be used again; 0 means ReuseAlways

	ConnectTimeout time.Duration // of dial and TLS handshake together; 0 means 3s, negative means none

	MaxIdle     int           // idle HTTP/1 connections kept for a server; 0 means 512, negative means none
	IdleTimeout time.Duration // of an idle connection, which is closed up to half of that later; 0 means 30s, less than most servers allow, negative means none
	MaxAge      time.Duration // of a connection, up to a tenth less by chance; 0 or negative means no limit
	Seed        uint64        // of that chance; 0 means at random
	MaxRequests int           // over one connection; 0 or negative means no limit
	PingTimeout time.Duration // of an HTTP/2 connection that is silent: after it a PING is sent, and after as long again without an answer the connection is closed; 0 means 15s, negative means none

	chance chance
	once   sync.Once
	buffers
	attempts sync.Pool
	mu       sync.RWMutex
	hosts    map[hostKey]*upHost
	counts   balance.PerServer[upCounts] // they outlive a change of address
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
		u.setSizes()
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
	// Both of these call code that is not ours, and Attach may call Cut at once:
	// neither is done under the lock.
	fresh := &upHost{up: u, key: key, counts: u.counts.Of(s), conns: make(map[*upConn]struct{}), attached: true}
	fresh.learnProtocols()
	u.mu.Lock()
	if h = u.hosts[key]; h == nil {
		u.hosts[key] = fresh
	}
	u.mu.Unlock()
	if h != nil {
		return h
	}
	s.Attach(fresh)
	if s.Addr() != key.addr { // maybe before it was attached, so that it was not told
		fresh.Cut(false, "address changed")
	}
	return fresh
}

// drop forgets the host of a server that has left or moved.
func (u *Upstream) drop(h *upHost) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.hosts[h.key] == h {
		delete(u.hosts, h.key)
	}
}

// CloseIdle closes all idle connections.
func (u *Upstream) CloseIdle() {
	u.init()
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
