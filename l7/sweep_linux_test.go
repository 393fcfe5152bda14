// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/penstock-lb/penstock/balance"
)

// onlyConn waits until s has one connection, in that state, and returns it.
func onlyConn(t *testing.T, s *Server, state int32) *byteConn {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		s.mu.Lock()
		for c := range s.conns.all() {
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

// dialServed has srv serve a socket until the test ends, and returns a client of it.
func dialServed(t *testing.T, srv *Server) net.Conn {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go srv.Serve(ln)
	nc, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { _, _ = nc.Close(), srv.Close() })
	_ = nc.SetDeadline(time.Now().Add(time.Minute))
	return nc
}

// A connection is left to the Parker until its first request comes, and again until the
// second does. It keeps its goroutine from then on, until the sweeper finds it idle.
func TestFirstRequestsAreAwaitedByTheParker(t *testing.T) {
	srv := &Server{
		Handler: HandlerFunc(func(x *Exchange) { x.Respond(200, nil, "ok") }),
		Logger:  slog.New(slog.DiscardHandler),
	}
	srv.sweeper.armed.Store(true) // it never comes
	nc := dialServed(t, srv)
	br := bufio.NewReader(nc)
	for _, state := range []int32{stateParked, stateParked, stateIdle} {
		c := onlyConn(t, srv, state)
		counted := func() bool { return c.c.Parkable() && srv.totals.parked.Load() == 1 }
		if state == stateIdle {
			require.False(t, counted())
		} else { // which comes just behind the state
			require.Eventually(t, counted, 30*time.Second, time.Millisecond)
		}
		_, _ = io.WriteString(nc, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
		res, err := http.ReadResponse(br, nil)
		require.NoError(t, err)
		_, _ = io.Copy(io.Discard, res.Body)
	}
}

// An idle client of HTTP/2 gets a GOAWAY before its connection is closed, parked or not: a
// request that it sends just then is known not to be processed.
func TestIdleHTTP2IsToldBeforeItIsClosed(t *testing.T) {
	srv := &Server{
		Handler:     HandlerFunc(func(x *Exchange) { x.Respond(200, nil, "ok") }),
		IdleTimeout: time.Second,
		Logger:      slog.New(slog.DiscardHandler),
	}
	nc := dialServed(t, srv)
	_, _ = io.WriteString(nc, http2.ClientPreface)
	fr := http2.NewFramer(nc, nc)
	require.NoError(t, fr.WriteSettings())
	get := func(id uint32) {
		var head bytes.Buffer
		enc := hpack.NewEncoder(&head)
		for _, f := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", "a.test"}, {":path", "/"}} {
			_ = enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
		}
		require.NoError(t, fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: head.Bytes(), EndHeaders: true, EndStream: true}))
	}
	get(1)
	for crossed := false; ; {
		f, err := fr.ReadFrame()
		if crossed {
			require.ErrorIs(t, err, io.EOF, "the connection is reset")
			return
		}
		require.NoError(t, err, "it is closed without a word")
		if away, ok := f.(*http2.GoAwayFrame); ok {
			require.Equal(t, uint32(1), away.LastStreamID)
			get(3) // as if it had been sent before the GOAWAY came
			crossed = true
		}
	}
}

// Shutdown tells a parked client of HTTP/2 before it closes the connection.
func TestShutdownTellsParkedHTTP2(t *testing.T) {
	srv := &Server{
		Handler: HandlerFunc(func(x *Exchange) { x.Respond(200, nil, "ok") }),
		Logger:  slog.New(slog.DiscardHandler),
	}
	nc := dialServed(t, srv)
	onlyConn(t, srv, stateParked) // for its first request
	shutdownParked(t, srv, nc)
}

// The same over TLS, where the Parker has the connection below.
func TestShutdownTellsParkedHTTP2OverTLS(t *testing.T) {
	cert := httptest.NewUnstartedServer(nil)
	cert.StartTLS()
	cert.Close()
	srv := &Server{
		Handler:   HandlerFunc(func(x *Exchange) { x.Respond(200, nil, "ok") }),
		Logger:    slog.New(slog.DiscardHandler),
		TLSConfig: &tls.Config{Certificates: cert.TLS.Certificates},
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go srv.ServeTLS(ln, "", "")
	defer srv.Close()
	nc, err := tls.Dial("tcp", ln.Addr().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	require.NoError(t, err)
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(time.Minute))
	shutdownParked(t, srv, nc)
}

// shutdownParked wants a GOAWAY and the end, as the last of the connection.
func shutdownParked(t *testing.T, srv *Server, nc net.Conn) {
	_, _ = io.WriteString(nc, http2.ClientPreface)
	fr := http2.NewFramer(nc, nc)
	require.NoError(t, fr.WriteSettings())
	_, err := fr.ReadFrame()
	require.NoError(t, err)
	for onlyConn(t, srv, stateParked).http2() == nil { // the preface has not come yet
	}
	done := make(chan error, 1)
	go func() { done <- srv.Shutdown(t.Context()) }()
	var last http2.FrameType
	for {
		f, err := fr.ReadFrame()
		if err != nil {
			require.ErrorIs(t, err, io.EOF)
			break
		}
		last = f.Header().Type
	}
	require.Equal(t, http2.FrameGoAway, last)
	_ = nc.Close()
	require.NoError(t, <-done)
}

// The sweeper looks at a parked connection just as that is resumed. What it reads
// must not be what the connection writes then: the race detector sees it whatever the
// order.
func TestSweepOfAResumedConnection(t *testing.T) {
	srv := &Server{
		Handler: HandlerFunc(func(x *Exchange) { x.Respond(200, nil, "ok") }),
		Logger:  slog.New(slog.DiscardHandler),
	}
	nc := dialServed(t, srv)
	br := bufio.NewReader(nc)
	for range 2 {
		c := onlyConn(t, srv, stateParked)
		since := time.Duration(c.state.parkedAt.Load())
		if age := time.Since(srv.sweeper.start) - since; since <= 0 || age < 0 || age > time.Minute {
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
