// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4/l4test"
)

// origin serves TLS on a Network and says what it saw.
type origin struct {
	states chan tls.ConnectionState
	first  chan []byte // bytes before TLS
}

func startOrigin(t *testing.T, n *l4test.Network, addr string, cfg *tls.Config, header int) *origin {
	ln, err := n.Listen("tcp", addr)
	require.NoError(t, err)
	o := &origin{states: make(chan tls.ConnectionState, 10), first: make(chan []byte, 10)}
	s := &Server{Logger: slog.New(slog.DiscardHandler), Handler: HandlerFunc(func(ctx context.Context, c net.Conn) error {
		b := make([]byte, header)
		if _, err := io.ReadFull(c, b); err != nil {
			c.Close()
			return err
		}
		o.first <- b
		return (&TerminateTLS{Config: cfg, Next: HandlerFunc(func(ctx context.Context, c net.Conn) error {
			o.states <- *c.(*Conn).TLS()
			return echoes(ctx, c)
		})}).ServeConn(ctx, c)
	})}
	go s.Serve(ln)
	t.Cleanup(func() { s.Close() })
	return o
}

func poolOf(t *testing.T, addrs ...string) *balance.Pool {
	p := new(balance.Pool)
	var all []balance.Endpoint
	for _, a := range addrs {
		all = append(all, balance.Endpoint{Addr: a})
	}
	require.NoError(t, p.Set(all...))
	return p
}

func TestOriginateTLS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := l4test.NewNetwork()
		cfg := testConfig(t, "a.test")
		cfg.NextProtos, cfg.ClientAuth = []string{"h2"}, tls.RequestClientCert
		one := startOrigin(t, n, "10.0.0.1:443", cfg, 0)
		two := startOrigin(t, n, "10.0.0.2:443", cfg, 0)
		roots := x509.NewCertPool()
		roots.AddCert(cfg.Certificates[0].Leaf)
		pool := poolOf(t, "10.0.0.1:443", "10.0.0.2:443")
		mine := testCert(t, nil, "proxy")
		own := &tls.Config{RootCAs: roots, ServerName: "a.test", Certificates: []tls.Certificate{mine}}
		o := &OriginateTLS{
			Config: &tls.Config{RootCAs: roots, ServerName: "a.test"},
			PerServer: func(s *balance.Server) *tls.Config {
				if s.Addr() == "10.0.0.2:443" {
					return own
				}
				return nil
			},
		}
		dial := func(addr string, client net.Conn) (net.Conn, error) {
			c, err := n.DialContext(t.Context(), "tcp", addr)
			require.NoError(t, err)
			return o.Handshake(t.Context(), client, c, pool.Server(addr))
		}
		plain, end := l4test.Pipe()
		defer plain.Close()
		defer end.Close()
		for i := range 3 {
			for _, tt := range []struct {
				addr string
				o    *origin
				cert bool
			}{{"10.0.0.1:443", one, false}, {"10.0.0.2:443", two, true}} {
				c, err := dial(tt.addr, plain)
				require.NoError(t, err)
				_, err = io.WriteString(c, "x")
				require.NoError(t, err)
				_, err = io.ReadFull(c, make([]byte, 1)) // the ticket comes before it
				require.NoError(t, err)
				state := <-tt.o.states
				require.Equal(t, "a.test", state.ServerName)
				require.Equal(t, tt.cert, len(state.PeerCertificates) == 1)
				require.Equal(t, i > 0, state.DidResume, "a session is resumed with the server it began with")
				require.NoError(t, c.Close())
				<-tt.o.first
			}
		}
		// The name is the client's to choose, if the host says so; a wrong one
		// fails.
		o.ServerName = func(net.Conn, *balance.Server) string { return "b.test" }
		_, err := dial("10.0.0.1:443", plain)
		require.ErrorIs(t, err, ErrTLS)
		var wrong x509.HostnameError
		require.ErrorAs(t, err, &wrong)
		// Without any name it is the server's address that must be in the
		// certificate.
		o.ServerName, o.Config = nil, &tls.Config{RootCAs: roots}
		_, err = dial("10.0.0.1:443", plain)
		require.ErrorAs(t, err, &wrong)
		require.Equal(t, "10.0.0.1", wrong.Host)
	})
}

// TestReencryptALPN shows that what a client agreed on is asked of the server.
func TestReencryptALPN(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := l4test.NewNetwork()
		for _, tt := range []struct {
			client string
			server []string
			ok     bool
		}{
			{"h2", []string{"h2", "http/1.1"}, true},
			{"http/1.1", []string{"h2", "http/1.1"}, true},
			{"http/1.1", nil, true},
			{"h2", nil, false},
			{"h2", []string{"http/1.1"}, false},
		} {
			addr := fmt.Sprintf("10.0.0.1:%d", 1000+len(tt.client)*10+len(tt.server))
			cfg := testConfig(t, "a.test")
			cfg.NextProtos = tt.server
			startOrigin(t, n, addr, cfg, 0)
			front := testConfig(t, "a.test")
			front.NextProtos = []string{tt.client}
			c, client := handshaken(t, front, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{tt.client}})
			up, err := n.DialContext(t.Context(), "tcp", addr)
			require.NoError(t, err)
			o := &OriginateTLS{Config: &tls.Config{InsecureSkipVerify: true}}
			got, err := o.Handshake(t.Context(), NewConn(client), up, poolOf(t, addr).Server(addr))
			require.Equal(t, tt.ok, err == nil, "%v: %v", tt, err)
			if err == nil {
				require.Contains(t, []string{tt.client, ""}, got.(*tls.Conn).ConnectionState().NegotiatedProtocol)
			}
			c.Close()
			client.Close()
			up.Close()
		}
	})
}

// TestSessions: configurations do not share sessions, and are not kept alive.
func TestSessions(t *testing.T) {
	s := new(sessions)
	state := new(tls.ClientSessionState)
	a, b := &tls.Config{ServerName: "a"}, &tls.Config{ServerName: "b"}
	s.of(a, "one", nil).Put("name", state)
	get := func(base *tls.Config, server string, given tls.ClientSessionCache) bool {
		_, ok := s.of(base, server, given).Get("name")
		return ok
	}
	require.True(t, get(a, "one", nil))
	require.False(t, get(a, "two", nil))
	require.False(t, get(b, "one", nil))
	require.False(t, get(nil, "one", nil))
	given := tls.NewLRUClientSessionCache(1)
	require.False(t, get(a, "one", given))
	s.of(b, "one", given).Put("name", state)
	require.True(t, get(a, "one", given), "the host's own cache is shared as the host likes")
	runtime.KeepAlive(a)
	runtime.KeepAlive(b)
	configs := func() (n int) {
		s.own.Range(func(any, any) bool { n++; return true })
		return n
	}
	require.Equal(t, 3, configs())
	require.Eventually(t, func() bool { runtime.GC(); return configs() == 1 }, 5*time.Second, 10*time.Millisecond)
}
