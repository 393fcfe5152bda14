// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4/l4test"
)

// TestRelayCutAtTheEnd: a cut that comes while a relay ends by itself changes
// neither how it has ended nor how it is closed. Under the race detector it says
// that closing reads what a cut writes.
func TestRelayCutAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, a := l4test.Pipe()
		b, server := l4test.Pipe()
		r := &relay{}
		front, back := NewConn(a), NewConn(b)
		r.init(front, back, (&RelayOptions{}).complete(), func(*relay) {
			front.Close()
			back.Close()
		})
		r.up.finish()
		var wg sync.WaitGroup
		r.mu.Lock()
		r.down.over, r.running = true, 0 // as the last direction does, and before it closes
		r.mu.Unlock()
		wg.Go(func() { r.cut(Termination{Killed, PhaseData}, context.Canceled) })
		wg.Go(r.close)
		wg.Wait()
		require.Equal(t, RelayResult{}, r.result())
		wantError(t, client, io.EOF)
		wantError(t, server, io.EOF)
	})
}

// TestProxyWithoutServerThatIsOver: the context may end before the relay begins.
func TestProxyWithoutServerThatIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := l4test.NewNetwork()
		p := &Proxy{Pool: pool(t, "10.0.1.1:80"), Dial: func(_ context.Context, network, addr string) (net.Conn, error) {
			return n.DialContext(t.Context(), network, addr)
		}}
		ln := listen(t, n, "10.0.1.1:80")
		defer ln.Close()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for range 10 {
			c, client := l4test.Pipe()
			go p.ServeConn(ctx, c)
			wantError(t, client, syscall.ECONNRESET)
		}
		synctest.Wait()
		require.Zero(t, p.Pool.Server("10.0.1.1:80").InFlight())
	})
}

// TestCloseEndsHalfClosed: closing the server ends what waits for an answer, too,
// at both ends.
func TestCloseEndsHalfClosed(t *testing.T) {
	t.Run("goroutines", func(t *testing.T) {
		play(t, &Proxy{Pool: pool(t, "10.0.1.1:80")}, func(t *testing.T, s *scene) {
			client, server := s.connect(s.backend("10.0.1.1:80"))
			client.CloseWrite()
			wantError(t, server, io.EOF)
			require.NoError(t, s.server.Close())
			synctest.Wait()
			_, err := server.Write([]byte("x"))
			require.ErrorIs(t, err, syscall.ECONNRESET)
			require.Zero(t, s.proxy.Pool.Server("10.0.1.1:80").InFlight())
			require.Equal(t, "KD", s.record().Termination.String())
		})
	})
	t.Run("events", func(t *testing.T) {
		onSockets(t, "tcp", &Proxy{}, func(t *testing.T, s *stage) {
			client, server := s.connect()
			closeWrite(t, client)
			wantError(t, server, io.EOF)
			require.NoError(t, s.server.Close())
			for m := range s.proxy.Pool.All() {
				require.Zero(t, m.InFlight())
			}
			require.Equal(t, "KD", s.record().Termination.String())
		})
	})
}

// TestCloseResets: a client that is cut off must not take that for the end, wherever
// its connection has got to.
func TestCloseResets(t *testing.T) {
	wait := HandlerFunc(func(ctx context.Context, c net.Conn) error { <-ctx.Done(); return nil })
	full := narrow(t, "10.0.1.1:80")
	held, err := full.Acquire(t.Context(), balance.Request{})
	require.NoError(t, err)
	defer held.Done(balance.Outcome{})
	for name, handler := range map[string]func() Handler{
		"handler":       func() Handler { return wait },
		"TLS handshake": func() Handler { return &TerminateTLS{Config: testConfig(t, "a.test"), Next: wait} },
		"inside of TLS": func() Handler { return &TerminateTLS{Config: testConfig(t, "a.test"), Next: wait} },
		"PROXY header":  func() Handler { return &AcceptProxy{Trusted: MustParsePrefixes("0.0.0.0/0"), Next: wait} },
		"SSLRequest":    func() Handler { return &AcceptPostgreSQL{Next: wait} },
		"first bytes":   func() Handler { return &Router{Routes: []Route{{FirstBytes("x"), wait}}, Timeout: -1} },
		"queue":         func() Handler { return &Proxy{Pool: full} },
		"Listener":      func() Handler { return new(Listener) },
		"Attach":        func() Handler { return new(Attach) },
		"tarpit":        func() Handler { return &Tarpit{} },
	} {
		t.Run(name, func(t *testing.T) {
			world(t, func(t *testing.T, n *l4test.Network) {
				s := &Server{Handler: handler(), Logger: quiet}
				ended := serve(s, listen(t, n, "10.0.0.1:80"))
				var c net.Conn = dial(t, n, "10.0.0.1:80")
				if name == "inside of TLS" {
					secure := tls.Client(c, &tls.Config{InsecureSkipVerify: true})
					require.NoError(t, secure.Handshake())
					c = secure
				}
				synctest.Wait()
				require.NoError(t, s.Close())
				require.ErrorIs(t, ended(), ErrServerClosed)
				wantError(t, c, syscall.ECONNRESET)
			})
			if name == "handler" || name == "inside of TLS" {
				return // leave it to the server
			}
			synctest.Test(t, func(t *testing.T) { // nor when the context ends first
				a, b := l4test.Pipe()
				ctx, cancel := context.WithCancel(t.Context())
				go handler().ServeConn(ctx, b)
				synctest.Wait()
				cancel()
				wantError(t, a, syscall.ECONNRESET)
			})
		})
	}
}
