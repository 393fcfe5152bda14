// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"

	"github.com/penstock-lb/penstock/l4"
)

// Misdirected answers 421 (RFC 9110, section 15.5.20) to a request whose host
// differs from the name (SNI) that its TLS connection asked for: a client
// certificate that was checked for one name is not valid for another. A client
// that shares a connection among names, as RFC 9113, section 9.1.1 allows, then
// retries over another connection.
//
// A [Server] with a GetConfigForClient does so by itself if the name of the
// request requires a client certificate and the name of the connection does not,
// or requires one of other authorities; see [Server.AnyHost]. Misdirected is for
// an [http.Server] of the host's, and for hosts that want the names to be equal
// in any case. Put it before handlers that look at certificates. Requests in
// plain text, and HTTP/1.0 requests without a Host, pass.
type Misdirected struct {
	// Same reports whether a connection for the name sni may carry requests for
	// host; both are in lower case, host has no port. Nil means that they must be
	// equal. Sni is empty if the client sent none; if host is an IP address that
	// is correct, and Same is not called.
	Same func(sni, host string) bool

	Next http.Handler
}

// Check returns what is wrong with h and its handler.
func (h *Misdirected) Check() error { return checkAll(h) }

func (h *Misdirected) check(c *checks) { c.next("Misdirected.Next", h.Next) }

// ServeExchange implements [Handler].
func (h *Misdirected) ServeExchange(x *Exchange) {
	sni, host, differ := x.names()
	if !differ || h.Same != nil && h.Same(sni, host) {
		Serve(h.Next, x)
		return
	}
	x.Error(http.StatusMisdirectedRequest, endOf(l4.Denied, l4.PhaseRequest))
}

// ServeHTTP implements [http.Handler].
func (h *Misdirected) ServeHTTP(w http.ResponseWriter, r *http.Request) { ServeHTTP(h, w, r) }

// names returns the name that the connection asked for and that of the request,
// and whether they differ.
func (x *Exchange) names() (sni, host string, differ bool) {
	if x.TLS == nil || x.Host == "" {
		return "", "", false
	}
	sni = x.TLS.ServerName
	if equalFold(sni, x.Host) { // the usual case
		return sni, sni, false
	}
	sni, host = plainName(sni), plainName(hostName(x.Host))
	if sni == "" {
		if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
			return sni, host, false // an address is not sent as SNI (RFC 6066, section 3)
		}
	}
	return sni, host, sni != host
}

func plainName(s string) string { return strings.ToLower(strings.TrimSuffix(s, ".")) }

// misdirected caches the result for the last host that was requested on a
// connection for another name.
type misdirected struct {
	mu    sync.Mutex // HTTP/2 has many requests at once
	known bool
	host  string
	wrong bool
}

// misdirects reports whether x is for a name that requires other client
// certificates than its connection did.
func (s *Server) misdirects(x *Exchange, last *misdirected) bool {
	if x.TLS == nil || s.AnyHost || s.TLSConfig == nil || s.TLSConfig.GetConfigForClient == nil {
		return false
	}
	sni, host, differ := x.names()
	if !differ {
		return false
	}
	last.mu.Lock()
	known, wrong := last.known && last.host == host, last.wrong
	last.mu.Unlock()
	if known {
		return wrong
	}
	wrong = !s.sameClients(x, sni, host)
	last.mu.Lock()
	last.known, last.host, last.wrong = true, strings.Clone(host), wrong
	last.mu.Unlock()
	return wrong
}

// sameClients reports whether a client that was accepted under the name sni would
// have been accepted under the name host. If that cannot be found out, it is
// false.
func (s *Server) sameClients(x *Exchange, sni, host string) bool {
	want, err := s.configFor(x, host)
	if err != nil {
		return false
	}
	if want.ClientAuth == tls.NoClientCert {
		return true
	}
	have, err := s.configFor(x, sni)
	if err != nil {
		return false
	}
	if have == want {
		return true
	}
	sameCAs := have.ClientCAs == want.ClientCAs || have.ClientCAs != nil && want.ClientCAs != nil && have.ClientCAs.Equal(want.ClientCAs)
	return have.ClientAuth == want.ClientAuth && sameCAs &&
		want.VerifyPeerCertificate == nil && want.VerifyConnection == nil // funcs cannot be compared
}

// configFor returns the configuration that a handshake like that of x would get
// under a name.
func (s *Server) configFor(x *Exchange, name string) (cfg *tls.Config, err error) {
	if _, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil {
		name = ""
	}
	hello := &tls.ClientHelloInfo{
		ServerName: name, CipherSuites: []uint16{x.TLS.CipherSuite}, SupportedVersions: []uint16{x.TLS.Version},
		Conn: helloConn{remote: net.TCPAddrFromAddrPort(x.Remote), local: net.TCPAddrFromAddrPort(x.Local)},
	}
	if p := x.TLS.NegotiatedProtocol; p != "" {
		hello.SupportedProtos = []string{p}
	}
	err = guard(x, "GetConfigForClient", func() error {
		cfg, err = s.TLSConfig.GetConfigForClient(hello)
		return err
	})
	if cfg == nil && err == nil {
		cfg = s.TLSConfig
	}
	return cfg, err
}

// helloConn is the connection of a hypothetical handshake: it only has
// addresses.
type helloConn struct {
	net.Conn
	remote, local net.Addr
}

var errNoConn = errors.New("l7: there is no handshake on this connection")

func (c helloConn) RemoteAddr() net.Addr    { return c.remote }
func (c helloConn) LocalAddr() net.Addr     { return c.local }
func (helloConn) Read([]byte) (int, error)  { return 0, errNoConn }
func (helloConn) Write([]byte) (int, error) { return 0, errNoConn }
func (helloConn) Close() error              { return errNoConn }
