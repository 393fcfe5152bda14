// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httptrace"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4"
)

// protocols are the protocols that may be used with a server.
type protocols struct {
	one  bool        // HTTP/1
	two  atomic.Bool // HTTP/2; false once a server has chosen HTTP/1
	alpn []string    // offered over TLS, in order; nil means no ALPN
	ext  atomic.Bool // the server has offered extended CONNECT
}

// learnProtocols determines the protocols for the server of h.
func (h *upHost) learnProtocols() {
	u := h.up
	h.one = true
	p := u.Protocols
	if u.ProtocolsOf != nil {
		if own := u.ProtocolsOf(h.key.server); own != nil {
			p = own
		}
	}
	if u.TLS != nil {
		if cfg := u.TLS(h.key.server); cfg != nil {
			switch {
			case len(cfg.NextProtos) > 0:
				h.alpn = cfg.NextProtos
			case p != nil && p.HTTP2() && p.HTTP1():
				h.alpn = []string{"h2", "http/1.1"}
			case p != nil && p.HTTP2():
				h.alpn = []string{"h2"}
			}
			h.two.Store(slices.Contains(h.alpn, "h2"))
			h.one = !h.two.Load() || slices.Contains(h.alpn, "http/1.1")
			return
		}
	}
	if p != nil && p.UnencryptedHTTP2() && !p.HTTP1() {
		h.one = false
		h.two.Store(true)
	}
}

// get returns a connection for one request, and whether it is new. With fresh
// an HTTP/1 connection is always new.
func (h *upHost) get(ctx context.Context, id identity, t *attempt, l *try, fresh bool) (source, bool, error) {
	if h.one && !fresh {
		if c := h.take(id, t.whole && !t.x.expect && t.trace == nil, t.use); c != nil {
			c.session = t.use.session
			return c, false, nil
		}
	}
	if h.two.Load() && !(t.forceOne && h.one && !(t.extends && h.ext.Load())) {
		if src, dialed, err := h.stream(ctx, id, t, l); src != nil || err != nil {
			return src, dialed, err
		}
	}
	id = id.keep()
	nc, d, err := h.dial(ctx, id, h.oneOnly(), t.distrust, l.deadline)
	if err != nil {
		return nil, false, err
	}
	if st := tlsState(nc); st != nil && st.NegotiatedProtocol == "h2" { // Dial has agreed on that
		h.two.Store(true)
		src, err := h.speak(nc, d, id, t.use.session, t.login)
		return src, err == nil, err
	}
	return h.newConn(nc, d, id, t.use.session), true, nil
}

// oneOnly returns the ALPN offer without HTTP/2.
func (h *upHost) oneOnly() []string {
	if len(h.alpn) == 0 {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(h.alpn), func(p string) bool { return p == "h2" })
}

// newConn makes an HTTP/1 connection of nc, the result of d.
func (h *upHost) newConn(nc net.Conn, d *dialing, id identity, s *session) *upConn {
	conn := l4.NewConn(nc)
	c := &upConn{host: h, id: id, session: s, c: conn, quiet: newQuiet(conn), expires: h.expiry()}
	cut := h.replace(d, func() {
		h.conns[c] = struct{}{}
		c.cuts = h.cuts
	})
	if cut != nil {
		c.cut(*cut)
	}
	return c
}

// expiry returns when a connection opened now reaches MaxAge; zero means never.
func (h *upHost) expiry() time.Time {
	age := h.up.MaxAge
	if age <= 0 {
		return time.Time{}
	}
	return time.Now().Add(age - time.Duration(h.up.chance.float64(h.up.Seed)*float64(age/10+1))) // not all at once
}

// keep returns a copy of the identity that does not refer to the request.
func (id identity) keep() identity {
	id.tlsName = strings.Clone(id.tlsName)
	return id
}

// dial opens a connection and counts it. The caller has to replace the dialing by a
// connection.
func (h *upHost) dial(ctx context.Context, id identity, alpn []string, distrust *tlsError, deadline time.Time) (nc net.Conn, d *dialing, err error) {
	ctx, d = h.beginDial(lasting(ctx))
	h.counts.dials.Add(1)
	defer func() {
		if nc == nil { // otherwise the host's code panicked
			h.counts.dialErrors.Add(1)
			h.endDial(d)
		}
	}()
	nc, err = h.connect(ctx, id, alpn, distrust, deadline)
	return nc, d, err
}

// connect opens a connection: TCP, PROXY header, TLS.
func (h *upHost) connect(ctx context.Context, id identity, alpn []string, distrust *tlsError, deadline time.Time) (net.Conn, error) {
	now := time.Now()
	if d := until(now, orDefault(h.up.ConnectTimeout, defaultConnectTimeout), deadline); d > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, d, errConnectTimeout)
		defer cancel()
	}
	network, addr := l4.SplitAddr(h.key.addr)
	cfg := h.tlsConfig(id, addr, alpn)
	if cfg != nil && distrust != nil && cfg.ServerName == distrust.name {
		return nil, &tlsError{cfg.ServerName, fmt.Errorf("%w: %w", errDistrusted, distrust.err)}
	}
	dial := h.up.Dial
	if dial == nil {
		dial = (&net.Dialer{KeepAlive: -1}).DialContext
	}
	nc, err := dial(ctx, network, addr)
	if nc, err = balance.Dialed("l7: Upstream.Dial", nc, err); err != nil {
		return nil, connectError(ctx, err)
	}
	if h.up.Dial == nil {
		nc = l4.Adopt(nc)
	}
	up := false
	defer func() {
		if !up { // otherwise a TLS callback panicked
			_ = nc.Close()
		}
	}()
	if id.proxy != "" {
		at, _ := ctx.Deadline()
		_ = nc.SetWriteDeadline(at)
		stop := context.AfterFunc(ctx, func() { _ = nc.SetWriteDeadline(past) })
		_, err := nc.Write([]byte(id.proxy))
		if !stop() {
			err = ctx.Err()
		}
		if err != nil {
			return nil, connectError(ctx, err)
		}
		_ = nc.SetWriteDeadline(time.Time{})
	}
	if cfg == nil {
		if t, ok := nc.(*tls.Conn); ok { // Dial's own
			if err := l4.Handshake(ctx, t); err != nil {
				return nil, &tlsError{"", connectError(ctx, err)}
			}
		}
		up = true
		return nc, nil
	}
	t := tls.Client(underTLS{l4.NewConn(nc)}, cfg)
	trace := httptrace.ContextClientTrace(ctx)
	if trace != nil && trace.TLSHandshakeStart != nil {
		trace.TLSHandshakeStart()
	}
	err = l4.Handshake(ctx, t)
	if trace != nil && trace.TLSHandshakeDone != nil {
		trace.TLSHandshakeDone(t.ConnectionState(), err)
	}
	if err != nil {
		return nil, &tlsError{cfg.ServerName, connectError(ctx, err)}
	}
	up = true
	return t, nil
}

// underTLS is the connection under a *tls.Conn that is not Dial's own.
type underTLS struct{ *l4.Conn }

func (c underTLS) NetConn() net.Conn { return c.Conn }

// errNoCloseNotify is the end of a reply that only a close_notify would complete.
var errNoCloseNotify = fmt.Errorf("l7: the server has ended TLS without close_notify (RFC 9112, section 9.8): %w", io.ErrUnexpectedEOF)

// cutShort reports whether the stream of nc, which has returned io.EOF, may have been cut.
func cutShort(nc net.Conn) bool {
	t, ok := nc.(*tls.Conn)
	if !ok {
		return false
	}
	_, ours := t.NetConn().(underTLS)
	return ours && l4.CutShort(t)
}

// tlsConfig returns the configuration of a new connection, nil for plain text.
func (h *upHost) tlsConfig(id identity, addr string, alpn []string) *tls.Config {
	if h.up.TLS == nil {
		return nil
	}
	cfg := h.up.TLS(h.key.server)
	if cfg == nil {
		return nil
	}
	cfg = cfg.Clone()
	if id.tlsName != "" {
		cfg.ServerName = id.tlsName
	} else if cfg.ServerName == "" {
		if host, _, err := net.SplitHostPort(addr); err == nil {
			cfg.ServerName = host
		}
	}
	if alpn != nil {
		cfg.NextProtos = alpn
	}
	if cfg.ClientSessionCache == nil {
		cfg.ClientSessionCache = h.sessionCache(cfg)
	}
	return cfg
}

// sessionCache returns the TLS sessions that may be resumed: those begun with
// the current client certificate, since a resumed session keeps the certificate
// with which it began.
func (h *upHost) sessionCache(cfg *tls.Config) tls.ClientSessionCache {
	who := clientCertificate(cfg)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.sessions == nil || h.sessionsOf != who {
		h.sessions, h.sessionsOf = tls.NewLRUClientSessionCache(0), who
	}
	return h.sessions
}

// clientCertificate returns the certificate that would be sent to a server that
// accepts any, "" if there is none.
func clientCertificate(cfg *tls.Config) string {
	var c *tls.Certificate
	switch {
	case cfg.GetClientCertificate != nil:
		c, _ = cfg.GetClientCertificate(&tls.CertificateRequestInfo{Version: tls.VersionTLS13, SignatureSchemes: []tls.SignatureScheme{
			tls.ECDSAWithP256AndSHA256, tls.ECDSAWithP384AndSHA384, tls.ECDSAWithP521AndSHA512,
			tls.Ed25519, tls.PSSWithSHA256, tls.PSSWithSHA384, tls.PSSWithSHA512,
		}})
	case len(cfg.Certificates) > 0:
		c = &cfg.Certificates[0]
	}
	if c == nil || len(c.Certificate) == 0 {
		return ""
	}
	return string(c.Certificate[0])
}

var (
	errConnectTimeout = errors.New("l7: connect timeout")
	errDistrusted     = errors.New("a server tried before had no valid certificate for this name")
)

// connectError tells our own time limit, and the removal of the server, from
// other ends of the context.
func connectError(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	if cause == errConnectTimeout {
		return errors.Join(errConnectTimeout, err)
	}
	if cut, ok := errors.AsType[*cutError](cause); ok {
		return cut
	}
	return err
}

// tlsError is a failure after the TCP connection was made.
type tlsError struct {
	name string // the requested server name
	err  error
}

func (e *tlsError) Error() string { return fmt.Sprintf("l7: TLS to %q: %v", e.name, e.err) }
func (e *tlsError) Unwrap() error { return e.err }

// untrusted reports whether the server's certificate was invalid.
func (e *tlsError) untrusted() bool {
	_, ok := errors.AsType[*tls.CertificateVerificationError](e.err)
	return ok
}
