// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"bufio"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
)

// onlyConn waits until s has one connection, in that state, and returns it.
func onlyConn(t *testing.T, s *Server, state int32) *byteConn {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		s.mu.Lock()
		for c := range s.conns {
			if c.state.is(state) {
				s.mu.Unlock()
				return c
			}
		}
		s.mu.Unlock()
	}
	t.Fatal("no connection in that state")
	return nil
}

// A connection is left to the Parker until its first request comes, and again until the
// second does. It keeps its goroutine from then on, until the sweeper finds it idle.
func TestFirstRequestsAreAwaitedByTheParker(t *testing.T) {
	srv := &Server{
		Handler: HandlerFunc(func(x *Exchange) { x.Respond(200, nil, "ok") }),
		Logger:  slog.New(slog.DiscardHandler),
	}
	srv.sweeper.armed.Store(true) // it never comes
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go srv.Serve(ln)
	defer srv.Close()
	nc, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(10 * time.Second))
	br := bufio.NewReader(nc)
	for _, state := range []int32{stateParked, stateParked, stateIdle} {
		c := onlyConn(t, srv, state)
		require.Equal(t, state != stateIdle, c.c.Parkable() && srv.totals.parked.Load() == 1)
		_, _ = io.WriteString(nc, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
		res, err := http.ReadResponse(br, nil)
		require.NoError(t, err)
		_, _ = io.Copy(io.Discard, res.Body)
	}
}

// The sweeper looks at a parked connection just as that is resumed. What it reads
// must not be what the connection writes then: the race detector sees it whatever the
// order.
func TestSweepOfAResumedConnection(t *testing.T) {
	srv := &Server{
		Handler: HandlerFunc(func(x *Exchange) { x.Respond(200, nil, "ok") }),
		Logger:  slog.New(slog.DiscardHandler),
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go srv.Serve(ln)
	defer srv.Close()
	nc, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(10 * time.Second))
	br := bufio.NewReader(nc)
	for range 2 {
		c := onlyConn(t, srv, stateParked)
		since := time.Duration(c.state.parkedAt.Load())
		if age := time.Since(srv.sweeper.start) - since; since <= 0 || age < 0 || age > 10*time.Second {
			t.Fatalf("it has been parked for %v", age)
		}
		srv.sweeper.sweep(srv)
		_, _ = io.WriteString(nc, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
		res, err := http.ReadResponse(br, nil)
		require.NoError(t, err)
		_, _ = io.Copy(io.Discard, res.Body)
	}
}

// A buffer that was given back is somebody else's at once.
func TestChaosInputGivenBack(t *testing.T) {
	u := new(Upstream)
	u.init()
	p := new(balance.Pool)
	require.NoError(t, p.Set(balance.Endpoint{Addr: "10.0.1.1:80"}))
	h := u.host(p.Server("10.0.1.1:80"))
	done := make(chan struct{})
	for range 4 {
		go func() {
			defer func() { done <- struct{}{} }()
			for i := range 2000 {
				c := &upConn{host: h, in: input{buf: u.pool.Get()}}
				if i%2 == 0 {
					c.in.set(u.bulk.Get())
				}
				c.in.buf.B = c.in.buf.B[:1]
				c.releaseInput()
			}
		}()
	}
	for range 4 {
		<-done
	}
	if b := u.pool.Get(); cap(b.B) != headBuffer {
		t.Errorf("a buffer of %d bytes among those for heads", cap(b.B))
	}
	if b := u.bulk.Get(); cap(b.B) != bulkBuffer {
		t.Errorf("a buffer of %d bytes among those for bodies", cap(b.B))
	}
}
