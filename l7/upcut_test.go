// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4/l4test"
)

// inTime fails the test if f, which may be stuck on a mutex, does not return.
func inTime(t *testing.T, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("hangs")
	}
}

// dialingOf begins what a connection takes the place of.
func dialingOf(t *testing.T, h *upHost) *dialing {
	_, d := h.beginDial(t.Context())
	return d
}

// tied returns how many hosts of u there are, and how many of them are attached.
func tied(u *Upstream) (hosts, attached int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, h := range u.hosts {
		hosts++
		h.mu.Lock()
		if h.attached {
			attached++
		}
		h.mu.Unlock()
	}
	return hosts, attached
}

// What happens to a server between its choice and the first connection to it must
// not hang the Upstream: Attach calls Cut at once then.
func TestServerInTroubleBeforeItsFirstConnection(t *testing.T) {
	const addr = "10.0.1.1:80"
	for name, trouble := range map[string]func(p *balance.Pool, s *balance.Server){
		"maint":   func(_ *balance.Pool, s *balance.Server) { s.SetAdmin(balance.Maint, "test") },
		"down":    func(_ *balance.Pool, s *balance.Server) { s.Report(balance.Check, balance.Down, "test") },
		"left":    func(p *balance.Pool, _ *balance.Server) { _ = p.Set() },
		"moved":   func(p *balance.Pool, _ *balance.Server) { _ = p.Set(balance.Endpoint{Name: "a", Addr: "10.0.1.2:80"}) },
		"at once": func(_ *balance.Pool, s *balance.Server) { s.Cut(true, "test") },
	} {
		t.Run(name, func(t *testing.T) {
			p, u := new(balance.Pool), new(Upstream)
			u.init()
			require.NoError(t, p.Set(balance.Endpoint{Name: "a", Addr: addr}))
			lease, err := p.Acquire(t.Context(), balance.Request{})
			require.NoError(t, err)
			defer lease.Done(balance.Outcome{})
			s := lease.Server()
			trouble(p, s)
			inTime(t, func() {
				u.host(s)
				u.host(s)
				trouble(p, s)
				s.Cut(true, "test")
			})
		})
	}
}

// An address that changes as the host is made leaves nothing behind.
func TestHostOfAnAddressThatHasChanged(t *testing.T) {
	p := new(balance.Pool)
	require.NoError(t, p.Set(balance.Endpoint{Name: "a", Addr: "10.0.1.1:80"}))
	u := &Upstream{TLS: func(*balance.Server) *tls.Config { // asked just before
		_ = p.Set(balance.Endpoint{Name: "a", Addr: "10.0.1.2:80"})
		return nil
	}}
	u.init()
	inTime(t, func() { u.host(p.Server("a")) })
	if n, _ := tied(u); n != 0 {
		t.Errorf("%d hosts are left; want none", n)
	}
}

// What a server that leaves had open is let go, whatever its state was.
func TestHostsOfServersThatLeave(t *testing.T) {
	for name, before := range map[string]func(s *balance.Server){
		"up":    func(*balance.Server) {},
		"down":  func(s *balance.Server) { s.Report(balance.Check, balance.Down, "test") },
		"maint": func(s *balance.Server) { s.SetAdmin(balance.Maint, "test") },
	} {
		t.Run(name, func(t *testing.T) {
			p, u := new(balance.Pool), new(Upstream)
			u.init()
			require.NoError(t, p.Set(balance.Endpoint{Name: "a", Addr: "10.0.1.1:80"}))
			h := u.host(p.Server("a"))
			before(p.Server("a"))
			require.NoError(t, p.Set())
			if n, _ := tied(u); n != 0 || h.attached {
				t.Errorf("%d hosts are left, attached: %v", n, h.attached)
			}
		})
	}
}

// countDials counts the connections that u makes.
func countDials(u *Upstream) *atomic.Int64 {
	var n atomic.Int64
	dial := u.Dial
	u.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		n.Add(1)
		return dial(ctx, network, addr)
	}
	return &n
}

// A server that is down and yet picked, in a panic, is like any other one.
func TestServerPickedByPanicKeepsConnections(t *testing.T) {
	var dials *atomic.Int64
	pool := &balance.Pool{Panic: 0.5}
	onBoth(t, func(s *site) http.Handler {
		s.origin("10.0.1.1:80", echo)
		pool = &balance.Pool{Panic: 0.5}
		require.NoError(s, pool.Set(balance.Endpoint{Addr: "10.0.1.1:80"}))
		pool.Server("10.0.1.1:80").Report(balance.Check, balance.Down, "test")
		p := s.proxyTo(pool)
		dials = countDials(p.Upstream)
		return p
	}, func(s *site) {
		for range 5 {
			require.Equal(s, 200, s.get("/").StatusCode)
		}
		require.EqualValues(s, 1, dials.Load(), "connections for five requests")

		// Up, down and in panic again: what was open before is not trusted.
		server := pool.Server("10.0.1.1:80")
		server.Report(balance.Check, balance.Up, "test")
		require.Equal(s, 200, s.get("/").StatusCode)
		server.Report(balance.Check, balance.Down, "test")
		require.Equal(s, 200, s.get("/").StatusCode)
		require.Equal(s, 200, s.get("/").StatusCode)
		require.EqualValues(s, 2, dials.Load(), "connections in all")
	})
}

// A request that was under way as its server went down, or was put into
// maintenance after its choice, leaves no connection behind for later.
func TestConnectionsFromBeforeTheTroubleAreNotKept(t *testing.T) {
	const addr = "10.0.1.1:80"
	for name, trouble := range map[string]func(s *balance.Server){
		"down":  func(s *balance.Server) { s.Report(balance.Check, balance.Down, "test") },
		"maint": func(s *balance.Server) { s.SetAdmin(balance.Maint, "test") },
	} {
		t.Run(name, func(t *testing.T) {
			pool := new(balance.Pool)
			var p *Proxy
			onBoth(t, func(s *site) http.Handler {
				pool = new(balance.Pool)
				require.NoError(s, pool.Set(balance.Endpoint{Addr: addr}))
				s.origin(addr, func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path == "/during" {
						trouble(pool.Server(addr))
					}
				})
				p = s.proxyTo(pool)
				return p
			}, func(s *site) {
				require.Equal(s, 200, s.get("/during").StatusCode)
				synctest.Wait()
				h := p.Upstream.host(pool.Server(addr))
				if len(h.idle) != 0 || len(h.conns) != 0 {
					s.Errorf("%d idle of %d connections; want none", len(h.idle), len(h.conns))
				}
			})
		})
	}
	// The choice was made before, the connection after.
	synctest.Test(t, func(t *testing.T) {
		s := &site{T: t, net: l4test.NewNetwork()}
		s.origin(addr, echo)
		p := s.proxy(addr)
		dial := p.Upstream.Dial
		p.Upstream.Dial = func(ctx context.Context, network, a string) (net.Conn, error) {
			p.Pool.Server(addr).SetAdmin(balance.Maint, "test")
			return dial(ctx, network, a)
		}
		rec := httptest.NewRecorder()
		p.ServeHTTP(rec, httptest.NewRequest("GET", "http://a.test/", nil))
		require.Equal(t, 200, rec.Code)
		h := p.Upstream.host(p.Pool.Server(addr))
		require.Empty(t, h.idle)
		require.Empty(t, h.conns)
	})
}

// Cut with live true reaches requests under way also when the server went down, into
// maintenance or out of the pool before: that is what a drain deadline does.
func TestCutReachesRequestsOfServersInTrouble(t *testing.T) {
	const addr = "10.0.1.1:80"
	for name, trouble := range map[string]func(p *balance.Pool){
		"down":  func(p *balance.Pool) { p.Server(addr).Report(balance.Check, balance.Down, "test") },
		"maint": func(p *balance.Pool) { p.Server(addr).SetAdmin(balance.Maint, "test") },
		"left":  func(p *balance.Pool) { _ = p.Set() },
	} {
		t.Run(name, func(t *testing.T) {
			var pool *balance.Pool
			var up *Upstream
			onBoth(t, func(s *site) http.Handler {
				s.origin(addr, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
				p := s.proxy(addr)
				p.Retry.Tries = 1
				pool, up = p.Pool, p.Upstream
				return p
			}, func(s *site) {
				server := pool.Server(addr)
				got := make(chan answer, 1)
				go func() {
					a, _ := s.ask(s.client, "/", "")
					got <- a
				}()
				synctest.Wait()
				trouble(pool)
				synctest.Wait()
				require.Empty(s, got, "only what carries no work is closed")
				server.Cut(true, "drain deadline")
				before := time.Now()
				require.Equal(s, http.StatusServiceUnavailable, (<-got).StatusCode)
				require.Zero(s, time.Since(before))
				synctest.Wait()
				require.Zero(s, server.InFlight())
				if name == "left" {
					hosts, _ := tied(up)
					require.Zero(s, hosts)
				}
			})
		})
	}
}

// slowClose is a connection that takes its time to close.
type slowClose struct {
	net.Conn
	begun, enough chan struct{}
}

func (c slowClose) Close() error {
	select {
	case c.begun <- struct{}{}:
	default:
	}
	<-c.enough
	return c.Conn.Close()
}

// net/http runs the state hook of a connection from within Reserve, if it has
// ended and nobody knows yet.
func TestReserveOfAClosedConnection(t *testing.T) {
	a, b := net.Pipe()
	go func() { _, _ = io.Copy(io.Discard, b) }()
	slow := slowClose{a, make(chan struct{}, 1), make(chan struct{})}
	u := &Upstream{Reuse: ReuseSafe}
	u.init()
	p := new(balance.Pool)
	require.NoError(t, p.Set(balance.Endpoint{Addr: "10.0.1.1:80"}))
	h := u.host(p.Server("10.0.1.1:80"))
	me := new(session)
	src, err := h.speak(slow, dialingOf(t, h), identity{}, me, false)
	require.NoError(t, err)
	c := src.(*h2Stream).conn
	src.close()
	require.Equal(t, 0, c.users)
	_ = b.Close()
	<-slow.begun
	inTime(t, func() {
		if c.reserve(time.Now(), usage{session: me}, defaultUpStreams) {
			t.Error("a closed connection takes a request")
		}
	})
	require.Empty(t, h.twos)
	require.Equal(t, 0, c.users)
	close(slow.enough)
}

// Whose a connection is changes as requests come; one that looks for its own must not
// read that without the lock.
func TestOwnerOfAConnectionIsReadUnderTheLock(t *testing.T) {
	a, b := net.Pipe()
	defer b.Close()
	go func() { _, _ = io.Copy(io.Discard, b) }()
	u := &Upstream{Reuse: ReuseSafe, Protocols: new(http.Protocols)}
	u.Protocols.SetUnencryptedHTTP2(true)
	u.init()
	p := new(balance.Pool)
	require.NoError(t, p.Set(balance.Endpoint{Addr: "10.0.1.1:80"}))
	h := u.host(p.Server("10.0.1.1:80"))
	me := new(session)
	src, err := h.speak(a, dialingOf(t, h), identity{}, me, false)
	require.NoError(t, err)
	defer src.close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 500 {
			src.(*h2Stream).conn.claim(usage{session: me})
		}
	}()
	for range 500 {
		_, _, err = h.stream(ctx, identity{}, &attempt{use: usage{session: me}, p: new(Proxy)}, new(try))
		require.ErrorIs(t, err, context.Canceled)
	}
	<-done
}

// callingListener calls its server back when it is closed.
type callingListener struct {
	net.Listener
	srv   *Server
	other net.Listener
}

func (l callingListener) Close() error {
	_ = l.srv.Serve(l.other) // which is over
	return l.Listener.Close()
}

func TestListenerClosedWithoutTheLock(t *testing.T) {
	n := l4test.NewNetwork()
	first, err := n.Listen("tcp", "10.0.0.1:80")
	require.NoError(t, err)
	second, err := n.Listen("tcp", "10.0.0.1:81")
	require.NoError(t, err)
	srv := new(Server)
	done := make(chan error, 1)
	ready := make(chan struct{})
	srv.BaseContext = func(net.Listener) context.Context { close(ready); return context.Background() }
	go func() { done <- srv.Serve(callingListener{first, srv, second}) }()
	<-ready
	inTime(t, func() { _ = srv.Close() })
	require.ErrorIs(t, <-done, ErrServerClosed)
}
