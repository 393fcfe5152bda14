// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"

	"github.com/penstock-lb/penstock/balance"
)

// A HandshakeFunc prepares a connection to a server before anything is relayed
// to it; see [Proxy].
type HandshakeFunc = func(ctx context.Context, client, server net.Conn, s *balance.Server) (net.Conn, error)

// Handshakes runs all of them in order, each on the connection that the one before
// returned: [SendProxy] first and [OriginateTLS] after it, since the header is sent
// before TLS.
func Handshakes(all ...HandshakeFunc) HandshakeFunc {
	return func(ctx context.Context, client, server net.Conn, s *balance.Server) (net.Conn, error) {
		for _, f := range all {
			next, err := f(ctx, client, server, s)
			if next, err = balance.Dialed("l4: a func of Handshakes", next, err); err != nil {
				return server, err // the caller closes it
			}
			server = next
		}
		return server, nil
	}
}

// OriginateTLS makes a [Proxy] speak TLS to its servers:
//
//	proxy.Handshake = (&l4.OriginateTLS{Config: config}).Handshake
//
// Together with [TerminateTLS] that is re-encryption, without it TLS is added
// for clients that have none. The zero value trusts the authorities of the
// system. It must not be copied or changed once it is used; it may be used for
// any number of connections at once.
type OriginateTLS struct {
	// Config is used for all servers; nil means an empty one. Sessions are
	// resumed even if it has no ClientSessionCache, each with the server it
	// began with.
	//
	// If it has no NextProtos, the server is offered what was agreed on with
	// the client by ALPN, and must take it unless it is http/1.1: the bytes are
	// of that protocol.
	Config *tls.Config

	// PerServer returns the configuration for one server, with its own
	// authorities or client certificate; nil, or a nil result, means Config. It
	// should return the same pointer each time: sessions are resumed only under
	// it.
	PerServer func(s *balance.Server) *tls.Config

	// ServerName returns the name to ask the server for, and to find in its
	// certificate; nil or an empty result means the ServerName of the
	// configuration, and if that is empty the host in the server's address.
	ServerName func(client net.Conn, s *balance.Server) string

	sessions sessions
}

// Handshake speaks TLS over server, and is what Proxy.Handshake calls. Errors
// match [ErrTLS].
func (t *OriginateTLS) Handshake(ctx context.Context, client, server net.Conn, s *balance.Server) (net.Conn, error) {
	if err := t.Check(); err != nil {
		return nil, err
	}
	cfg, agreed := t.config(client, s)
	c := tls.Client(NewConn(server), cfg) // a Conn sees how it ends, see CutShort
	if err := handshake(ctx, c, 0); err != nil {
		return nil, err
	}
	if got := c.ConnectionState().NegotiatedProtocol; agreed != "" && got != agreed && (got != "" || agreed != "http/1.1") {
		return nil, fmt.Errorf("%w: the client speaks %q, the server %q", ErrTLS, agreed, got)
	}
	return c, nil
}

// config is the configuration for one connection; agreed is the protocol that
// the server has to take, if it is the client's.
func (t *OriginateTLS) config(client net.Conn, s *balance.Server) (cfg *tls.Config, agreed string) {
	base := t.Config
	if t.PerServer != nil {
		if own := t.PerServer(s); own != nil {
			base = own
		}
	}
	if base == nil {
		cfg = &tls.Config{}
	} else {
		cfg = base.Clone()
	}
	if t.ServerName != nil {
		if name := t.ServerName(client, s); name != "" {
			cfg.ServerName = name
		}
	}
	if cfg.ServerName == "" {
		if host, _, err := net.SplitHostPort(s.Addr()); err == nil {
			cfg.ServerName = host
		}
	}
	if cfg.NextProtos == nil {
		if state := tlsStateOf(client); state != nil && state.NegotiatedProtocol != "" {
			agreed = state.NegotiatedProtocol
			cfg.NextProtos = []string{agreed}
		}
	}
	cfg.ClientSessionCache = t.sessions.of(base, s.Name(), cfg.ClientSessionCache)
	return cfg, agreed
}
