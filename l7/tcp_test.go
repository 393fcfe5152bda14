// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/l7/l7test"
)

// tcpSite is a byte front before an origin, over real sockets.
type tcpSite struct {
	t       *testing.T
	addr    string
	origin  *l7test.Origin
	pool    *balance.Pool
	server  *l7.Server
	mu      sync.Mutex
	records []l7.Record
}

func newTCPSite(t *testing.T, endpoint balance.Endpoint, scripts ...l7test.Script) *tcpSite {
	t.Helper()
	listen := func() net.Listener {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return ln
	}
	s := &tcpSite{t: t, origin: &l7test.Origin{Scripts: scripts}, pool: new(balance.Pool)}
	up, down := listen(), listen()
	go s.origin.Serve(up)
	if endpoint.Addr == "" {
		endpoint.Addr = up.Addr().String()
	}
	if err := s.pool.Set(endpoint); err != nil {
		t.Fatal(err)
	}
	s.server = &l7.Server{Handler: &l7.Proxy{Pool: s.pool, Upstream: new(l7.Upstream)}, Logger: discardLog(), OnDone: func(r *l7.Record) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.records = append(s.records, *r)
	}}
	served := make(chan error, 1)
	go func() { served <- s.server.Serve(down) }()
	s.addr = down.Addr().String()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := s.server.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown = %v", err)
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("Serve = %v", err)
		}
		s.origin.Close()
	})
	return s
}

func (s *tcpSite) dial(request string) *net.TCPConn {
	s.t.Helper()
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, request); err != nil {
		s.t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

// eventually waits until cond holds.
func (s *tcpSite) eventually(what string, cond func() bool) {
	s.t.Helper()
	for end := time.Now().Add(30 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("it never came to this: %s", what)
		}
	}
}

func (s *tcpSite) last() (r l7.Record, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n = len(s.records); n > 0 {
		r = s.records[n-1]
	}
	return r, n
}

const upgradeA = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"

// Each side of a tunnel may end what it sends without ending what it gets.
func TestTunnelTCP(t *testing.T) {
	s := newTCPSite(t, balance.Endpoint{}, l7test.Script{l7test.Tunnel("websocket")})
	c := s.dial(upgradeA + "early ")
	br := bufio.NewReader(c)
	if res, err := http.ReadResponse(br, nil); err != nil || res.StatusCode != 101 || res.Header.Get("Upgrade") != "websocket" {
		t.Fatal(res, err)
	}
	io.WriteString(c, "and late")
	c.CloseWrite()
	if b, err := io.ReadAll(br); string(b) != "early and late" || err != nil {
		t.Errorf("read %q, %v", b, err)
	}
	c.Close()
	s.eventually("a record", func() bool { _, n := s.last(); return n == 1 })
	r, _ := s.last()
	if r.Status != 101 || r.Termination.Cause != l4.Normal || r.BytesIn != 14 || r.BytesOut != 14 || r.Total == 0 {
		t.Errorf("record = %+v", r)
	}
	s.eventually("no lease", func() bool { return s.pool.Server(r.Server).InFlight() == 0 })
}

// The server may end a tunnel, too, and may have sent something with its 101.
func TestTunnelServerEndsTCP(t *testing.T) {
	s := newTCPSite(t, balance.Endpoint{}, l7test.Script{l7test.Send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\nbye"), l7test.Close()})
	c := s.dial(upgradeA)
	b, err := io.ReadAll(c)
	if err != nil || !strings.HasSuffix(string(b), "\r\n\r\nbye") {
		t.Errorf("read %q, %v", b, err)
	}
}

// A client that leaves ends what is done for it, wherever that is.
func TestClientLeavesTCP(t *testing.T) {
	fin := func(c *net.TCPConn) { c.Close() }
	rst := func(c *net.TCPConn) { c.SetLinger(0); c.Close() }
	for name, leave := range map[string]func(*net.TCPConn){"FIN": fin, "RST": rst} {
		t.Run("waiting "+name, func(t *testing.T) {
			s := newTCPSite(t, balance.Endpoint{}, l7test.Script{l7test.Stall()})
			c := s.dial(getA)
			s.eventually("a request", func() bool { return len(s.origin.Requests()) == 1 })
			leave(c)
			s.eventually("no connection", func() bool { _, open := s.origin.Conns(); return open == 0 })
			s.eventually("a record", func() bool { _, n := s.last(); return n == 1 })
			if r, _ := s.last(); r.Termination != (l4.Termination{Cause: l4.ClientAborted, Phase: l4.PhaseHeaders}) || r.Status != 499 {
				t.Errorf("record = %v %+v", r.Termination, r)
			}
		})
		t.Run("queued "+name, func(t *testing.T) {
			s := newTCPSite(t, balance.Endpoint{MaxConns: 1}, l7test.Script{l7test.Stall()})
			first := s.dial(getA)
			s.eventually("a request", func() bool { return len(s.origin.Requests()) == 1 })
			second := s.dial(getA)
			s.eventually("a queue", func() bool { return s.pool.Stats().Queued == 1 })
			leave(second)
			s.eventually("a record", func() bool { _, n := s.last(); return n == 1 })
			if r, _ := s.last(); r.Termination != (l4.Termination{Cause: l4.ClientAborted, Phase: l4.PhaseQueue}) || r.Tries != 0 {
				t.Errorf("record = %v %+v", r.Termination, r)
			}
			leave(first)
			s.eventually("no connection", func() bool { _, open := s.origin.Conns(); return open == 0 })
		})
		t.Run("reading "+name, func(t *testing.T) {
			s := newTCPSite(t, balance.Endpoint{}, l7test.Script{l7test.Send("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhello"), l7test.Stall()})
			c := s.dial(getA)
			io.ReadFull(c, make([]byte, 50))
			leave(c)
			s.eventually("no connection", func() bool { _, open := s.origin.Conns(); return open == 0 })
			s.eventually("a record", func() bool { _, n := s.last(); return n == 1 })
			if r, _ := s.last(); r.Termination != (l4.Termination{Cause: l4.ClientAborted, Phase: l4.PhaseData}) {
				t.Errorf("record = %v %+v", r.Termination, r)
			}
		})
		t.Run("sending "+name, func(t *testing.T) {
			s := newTCPSite(t, balance.Endpoint{}, l7test.Script{l7test.Echo()})
			c := s.dial("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhello")
			s.eventually("a request", func() bool { return len(s.origin.Requests()) == 1 })
			leave(c)
			s.eventually("no connection", func() bool { _, open := s.origin.Conns(); return open == 0 })
			s.eventually("a record", func() bool { _, n := s.last(); return n == 1 })
			if r, _ := s.last(); r.Termination.Cause != l4.ClientAborted {
				t.Errorf("record = %v %+v", r.Termination, r)
			}
			if s.origin.Requests()[0].Complete {
				t.Error("the server got a complete request")
			}
		})
	}
}

// Large bodies both ways, over the paths that real sockets take.
func TestBulkTCP(t *testing.T) {
	s := newTCPSite(t, balance.Endpoint{}, l7test.Script{l7test.Echo()})
	body := strings.Repeat("0123456789abcdef", 1<<16) // 1 MiB
	for _, chunked := range []bool{false, true} {
		var r io.Reader = strings.NewReader(body)
		if chunked {
			r = io.MultiReader(r)
		}
		res, err := http.Post("http://"+s.addr+"/", "text/plain", r)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || string(b) != body {
			t.Errorf("chunked %v: %d bytes, %v", chunked, len(b), err)
		}
	}
	http.DefaultClient.CloseIdleConnections()
}

// Replies about as long as the buffers arrive whole, and cut where the server
// cut them, in whatever pieces they come.
func TestLongReplyTCP(t *testing.T) {
	for _, size := range []int{16<<10 - 64, 16 << 10, 16<<10 + 1, 64 << 10, 80 << 10, 80<<10 + 1, 200 << 10} {
		body := strings.Repeat("0123456789abcdef", size/16+1)[:size]
		reply := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", size, body)
		const missing = 11
		s := newTCPSite(t, balance.Endpoint{}, l7test.Script{l7test.Send(reply)}, l7test.Script{l7test.Send(reply[:len(reply)-missing]), l7test.Close()})
		c := s.dial(getA)
		br := bufio.NewReader(c)
		for n := range 2 {
			res, err := http.ReadResponse(br, nil)
			if err != nil {
				t.Fatal(size, err)
			}
			got, err := io.ReadAll(res.Body)
			if n == 0 && (err != nil || string(got) != body) {
				t.Errorf("%d bytes: read %d of them, %v", size, len(got), err)
			}
			if n == 1 && (err != io.ErrUnexpectedEOF || string(got) != body[:size-missing]) {
				t.Errorf("%d bytes: read %d of %d, %v", size, len(got), size-missing, err)
			}
			if n == 0 {
				io.WriteString(c, getA)
			}
		}
		s.eventually("two records", func() bool { _, n := s.last(); return n == 2 })
		if r, _ := s.last(); r.Termination.Cause != l4.ServerAborted || r.Termination.Phase != l4.PhaseData || r.BytesOut != int64(size-missing) {
			t.Errorf("%d bytes: record = %+v", size, r)
		}
	}
}

// An error reply to a client that is still sending arrives.
func TestRefusedUploadTCP(t *testing.T) {
	s := newTCPSite(t, balance.Endpoint{}, l7test.Script{l7test.Early(), l7test.Reply(413, "too much", "Connection", "close"), l7test.Wait(300 * time.Millisecond), l7test.Close()})
	for i := range 5 {
		c := s.dial("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 3000000\r\n\r\n")
		go io.WriteString(c, strings.Repeat("x", 3000000))
		b, err := io.ReadAll(c)
		if !strings.HasPrefix(string(b), "HTTP/1.1 413 ") || !strings.HasSuffix(string(b), "too much") {
			r, _ := s.last()
			t.Errorf("%d: read %q, %v; record: %v, %v, faults %v, %d requests, %+v", i, b, err, r.Termination, r.Err, s.origin.Faults(), len(s.origin.Requests()), r)
		}
		c.Close()
	}
}

func ExampleServer() {
	ln, _ := net.Listen("tcp", "127.0.0.1:0")
	srv := &l7.Server{Handler: l7.HandlerFunc(func(x *l7.Exchange) {
		x.Respond(200, nil, "hello from "+x.Path)
	})}
	go srv.Serve(ln)
	res, err := http.Get("http://" + ln.Addr().String() + "/x")
	if err != nil {
		fmt.Println(err)
		return
	}
	body, _ := io.ReadAll(res.Body)
	res.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	fmt.Println(res.StatusCode, string(body), srv.Shutdown(context.Background()))
	// Output: 200 hello from /x <nil>
}

// Close ends a tunnel of a Proxy inside a foreign handler. Its relay works by the
// bare descriptor, which does not tell it that the connection is closed.
func TestCloseEndsTunnelsInsideForeignHandlersTCP(t *testing.T) {
	origin := &l7test.Origin{Scripts: []l7test.Script{{l7test.Tunnel("websocket")}}}
	up, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go origin.Serve(up)
	defer origin.Close()
	pool := new(balance.Pool)
	if err := pool.Set(balance.Endpoint{Addr: up.Addr().String()}); err != nil {
		t.Fatal(err)
	}
	proxy := &l7.Proxy{Pool: pool, Upstream: new(l7.Upstream)}
	down, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &l7.Server{Logger: discardLog(), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		proxy.ServeHTTP(w, r)
	})}
	go server.Serve(down)
	c, err := net.Dial("tcp", down.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	io.WriteString(c, upgradeA)
	br := bufio.NewReader(c)
	if res, err := http.ReadResponse(br, nil); err != nil || res.StatusCode != 101 {
		t.Fatal(res, err)
	}
	io.WriteString(c, "hello")
	if _, err := io.ReadFull(br, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); server.Close() }()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		c.Close() // or nothing ever ends
		t.Fatal("Close waits for a tunnel that it has closed")
	}
}
