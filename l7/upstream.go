// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"crypto/tls"
	"math"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4"
)

// An Upstream opens and keeps the connections to servers. Several proxies and
// transports may share one. The zero value is ready to use; the fields must not
// change once it is used.
//
// Idle connections are reused as Reuse says, the most recently used one first. A request
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
	// replaced. If it
	// returns a [*tls.Conn], and TLS is nil, the protocol is the one that the handshake
	// has agreed on (ALPN). A wrapper of a socket should have the method NetConn of a [*tls.Conn]: what a server
	// sends between two requests, such as a second reply to the first, is seen through
	// it, and the connection is not used again.
	Dial l4.DialFunc

	// TLS returns the client configuration for a server, and nil for plain text; a
	// nil TLS means plain text for all. It is called for each connection, and
	// before the first one to a server, without a lock and by several goroutines
	// at once.
	//
	// Certificates are verified unless the configuration says otherwise, under the
	// name that TLSName or its ServerName gives, or else the host part of the
	// server's address. Sessions are resumed: without a ClientSessionCache, each
	// server gets one, for as long as the client certificate is the same.
	// GetClientCertificate is called before each connection, whether a session is
	// resumed or not, so it can renew a client certificate, as [l4.Certificates.GetClient]
	// does; open connections keep the
	// old one until MaxAge or CloseIdle ends them. If the certificate of a server is
	// not valid, there is no fallback to plain text, and no other server is tried
	// under the same name.
	//
	// A reply that neither a Content-Length nor chunks end is complete only if the server
	// ends TLS by a close_notify, and otherwise cut (RFC 9112, section 9.8). For a server
	// that sends none, Dial can return the [*tls.Conn]: then any end will do, as for net/http.
	TLS func(s *balance.Server) *tls.Config

	// TLSName returns the name to send to a server (SNI) and to verify. Nil, and
	// an empty name, mean the name described at TLS. [HostOnly] returns the host
	// that the client asked for.
	TLSName func(x *Exchange, s *balance.Server) string

	// ProxyHeader returns the PROXY protocol header that a connection to a server
	// begins with, or nil for none. A header with the client's address restricts
	// the connection to requests from that address and port.
	ProxyHeader func(x *Exchange, s *balance.Server) *l4.ProxyHeader

	// Protocols are the protocols for servers; nil means HTTP/1 only, which costs
	// the least by far. With HTTP1 and HTTP2, TLS servers are offered both (ALPN);
	// HTTP2 alone requires it. UnencryptedHTTP2 without HTTP1 is HTTP/2 by prior
	// knowledge (h2c). NextProtos in the configuration that TLS returns take
	// precedence.
	//
	// Requests for an upgrade (WebSocket) are sent as extended CONNECT (RFC 8441) to a
	// server that has offered it over HTTP/2. Otherwise they use HTTP/1 if it is
	// allowed, as CONNECT does; if it is not, they are sent without the upgrade. Any
	// HTTP/2 server may get a CONNECT.
	Protocols *http.Protocols
	// ProtocolsOf returns the protocols for one server. Nil, and a nil result,
	// mean Protocols. It is called before the first connection to a server, under
	// the same conditions as TLS.
	ProtocolsOf func(s *balance.Server) *http.Protocols

	Reuse Reuse // which requests may reuse a connection; 0 means ReuseAlways

	ConnectTimeout time.Duration // of dial and TLS handshake together; 0 means 3s, negative means none

	MaxIdle     int           // idle HTTP/1 connections kept per server; 0 means as many as IdleTimeout lets live, negative means none
	IdleTimeout time.Duration // of an idle connection, which is closed up to half of that later; 0 means 30s, less than most servers allow, negative means none
	MaxAge      time.Duration // of a connection, minus up to a tenth at random; 0 or negative means no limit
	Seed        uint64        // for that random part; 0 means at random
	MaxRequests int           // over one connection; 0 or negative means no limit
	MaxStreams  int           // HTTP/2 streams at once on a connection, above which another one is opened if that is possible; 0 means 100, negative means none: as many as the server allows
	PingTimeout time.Duration // of an HTTP/2 connection that is silent: after it a PING is sent, and after as long again without an answer the connection is closed; 0 means 15s, negative means none

	chance chance
	once   sync.Once
	buffers
	attempts sync.Pool
	mu       sync.RWMutex
	hosts    map[hostKey]*upHost
	counts   balance.PerServer[upCounts] // kept over a change of address
}

const (
	defaultConnectTimeout = 3 * time.Second
	defaultMaxIdle        = math.MaxInt
	defaultUpStreams      = 100
	defaultKeepIdle       = 30 * time.Second
	defaultPingTimeout    = 15 * time.Second
)

// hostKey identifies the connections that are kept together.
type hostKey struct {
	server *balance.Server
	addr   string
}

// identity is how a connection was opened. Connections to one server are
// interchangeable if it is equal.
type identity struct {
	tlsName string // from TLSName
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

// HostOnly is a func for [Upstream].TLSName. It returns the host that the
// client asked for, without the port, and "" for an IP address, which SNI does
// not allow.
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
	// Both of these call other code, and Attach may call Cut at once, so neither
	// is called under the lock.
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
	if s.Addr() != key.addr { // the change may have come before Attach, without a Cut
		fresh.Cut(false, "address changed")
	}
	return fresh
}

// drop removes the host of a server that has left or moved.
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
