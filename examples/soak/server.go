// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A server is one of those behind the gateways, on all ports. It checks what it gets,
// and does to its connections what it is told.
type server struct {
	l    *ledger
	host string
	tls  *tls.Config

	refusing atomic.Bool  // answers 503
	cutting  atomic.Bool  // breaks off in the middle of replies, now and then
	latency  atomic.Int64 // of each write

	mu    sync.Mutex
	ends  []func()
	conns map[*peer]bool
	flow  chan struct{} // closed unless it is stalled
	wg    sync.WaitGroup
}

func newServer(l *ledger, host string, config *tls.Config) *server {
	s := &server{l: l, host: host, tls: config, conns: make(map[*peer]bool), flow: make(chan struct{})}
	close(s.flow)
	return s
}

// up opens all ports, unless they are open.
func (s *server) up() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.ends) > 0 {
		return nil
	}
	quiet := log.New(io.Discard, "", 0)
	clear, secure := new(http.Protocols), new(http.Protocols)
	clear.SetHTTP1(true)
	clear.SetUnencryptedHTTP2(true)
	secure.SetHTTP1(true)
	secure.SetHTTP2(true)
	web := &http.Server{Handler: s, Protocols: clear, ErrorLog: quiet}
	safe := &http.Server{Handler: s, Protocols: secure, TLSConfig: s.tls, ErrorLog: quiet}
	for _, f := range []struct {
		port  string
		serve func(net.Listener) error
	}{{ports["web"], web.Serve}, {ports["secure"], func(ln net.Listener) error { return safe.ServeTLS(ln, "", "") }}, {ports["lines"], s.serveLines}} {
		ln, err := net.Listen("tcp", net.JoinHostPort(s.host, f.port))
		if err != nil {
			return err
		}
		s.wg.Go(func() { _ = f.serve(&tracked{ln, s}) })
		s.ends = append(s.ends, func() { _ = ln.Close() })
	}
	pc, err := net.ListenPacket("udp", net.JoinHostPort(s.host, ports["datagrams"]))
	if err != nil {
		return err
	}
	s.wg.Go(func() { s.serveDatagrams(pc) })
	s.ends = append(s.ends, func() { _ = pc.Close() }, func() { _ = web.Close() }, func() { _ = safe.Close() })
	return nil
}

// down closes all ports, and resets the connections as the kernel does for a process
// that is killed with unread data.
func (s *server) down() {
	s.mu.Lock()
	ends := s.ends
	s.ends = nil
	s.mu.Unlock()
	for _, end := range ends[:min(len(ends), 3)] { // nothing more is accepted
		end()
	}
	s.reset()
	for _, end := range ends[min(len(ends), 3):] {
		end()
	}
}

// reset resets all connections.
func (s *server) reset() {
	s.mu.Lock()
	var list []*peer
	for c := range s.conns {
		list = append(list, c)
	}
	s.mu.Unlock()
	for _, c := range list {
		c.abort()
	}
}

// stall keeps bytes from moving on all connections, until it is called with false.
func (s *server) stall(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.flow:
		if on {
			s.flow = make(chan struct{})
		}
	default:
		if !on {
			close(s.flow)
		}
	}
}

// heal ends all that ails the server.
func (s *server) heal() error {
	s.stall(false)
	s.refusing.Store(false)
	s.cutting.Store(false)
	s.latency.Store(0)
	return s.up()
}

// tracked is a listener whose connections a server can stall and reset.
type tracked struct {
	net.Listener
	s *server
}

func (t *tracked) Accept() (net.Conn, error) {
	c, err := t.Listener.Accept()
	if err != nil {
		return nil, err
	}
	p := &peer{TCPConn: c.(*net.TCPConn), s: t.s, closed: make(chan struct{})}
	t.s.mu.Lock()
	t.s.conns[p] = true
	t.s.mu.Unlock()
	return p, nil
}

type peer struct {
	*net.TCPConn
	s      *server
	once   sync.Once
	closed chan struct{}
}

// wait holds a read or a write while the server is stalled.
func (p *peer) wait() {
	p.s.mu.Lock()
	flow := p.s.flow
	p.s.mu.Unlock()
	select {
	case <-flow:
	case <-p.closed:
	}
}

func (p *peer) Read(b []byte) (int, error) {
	n, err := p.TCPConn.Read(b)
	p.wait()
	return n, err
}

func (p *peer) Write(b []byte) (int, error) {
	p.wait()
	if d := p.s.latency.Load(); d > 0 {
		time.Sleep(time.Duration(d))
	}
	return p.TCPConn.Write(b)
}

func (p *peer) Close() error {
	p.once.Do(func() {
		close(p.closed)
		p.s.mu.Lock()
		delete(p.s.conns, p)
		p.s.mu.Unlock()
	})
	return p.TCPConn.Close()
}

func (p *peer) abort() {
	_ = p.SetLinger(0)
	_ = p.Close()
}

// ServeHTTP answers what a client asked for in fields of the request.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/healthy" {
		if s.refusing.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		return
	}
	token := r.Header.Get("X-Token")
	w.Header().Set("X-Server", s.host)
	w.Header().Set("X-Token", token)
	if r.Header.Get("Upgrade") != "" {
		s.upgrade(w)
		return
	}
	grpc := strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc")
	sent := io.Reader(r.Body)
	if grpc {
		sent = &unframed{r: sent}
	}
	whole := s.readBody(token, r, sent)
	switch {
	case !whole:
		panic(http.ErrAbortHandler)
	case s.refusing.Load() && grpc:
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Grpc-Status", "14")
		return
	case s.refusing.Load():
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	think, _ := time.ParseDuration(r.Header.Get("X-Think"))
	select {
	case <-time.After(think):
	case <-r.Context().Done():
		return
	}
	n, _ := strconv.ParseInt(r.Header.Get("X-Reply"), 10, 64)
	reply := io.Reader(body(token, n))
	if grpc {
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status")
		defer func() { w.Header().Set("Grpc-Status", "0") }()
		reply = framed(token, n)
	} else if r.Header.Get("X-Open") == "" {
		w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
	}
	if r.Method == http.MethodHead {
		return
	}
	if s.cutting.Load() && rand.IntN(3) == 0 {
		_, _ = io.CopyN(w, reply, n/2)
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	_, _ = io.Copy(w, reply)
}

// readBody reads and checks the body, and reports whether it was whole.
func (s *server) readBody(token string, r *http.Request, sent io.Reader) bool {
	begun := time.Now()
	want, _ := strconv.ParseInt(r.Header.Get("X-Body"), 10, 64)
	n, err := compare(token, sent)
	switch {
	case errors.Is(err, errMixed):
		s.l.wrong("server %s, in the body of request %s: %v", s.host, token, err)
	case err == nil && n != want && !s.l.crashedSince(begun):
		s.l.wrong("server %s took %d bytes for the whole body of request %s, of which there are %d", s.host, n, token, want)
	case err == nil && n == want:
		s.l.served(token, r.Method == http.MethodPost)
		return true
	}
	return false
}

// upgrade answers as a server of WebSocket, and goes on as a line.
func (s *server) upgrade(w http.ResponseWriter) {
	c, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer c.Close()
	_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-Token: "+w.Header().Get("X-Token")+"\r\n\r\n")
	s.line(rw, c)
}

func (s *server) serveLines(ln net.Listener) error {
	for {
		c, err := ln.Accept()
		if err != nil {
			return err
		}
		s.wg.Go(func() {
			defer c.Close()
			s.line(c, c)
		})
	}
}

// line reads a stream, checks it, and sends it back, again and again. A client that ends
// its side must have sent all that it announced.
func (s *server) line(r io.Reader, c net.Conn) {
	for {
		begun := time.Now()
		var g greeting
		if g.read(r) != nil {
			return
		}
		n, err := compare(g.name(), io.LimitReader(r, int64(g.Size)))
		switch {
		case errors.Is(err, errMixed):
			s.l.wrong("server %s, in %s: %v", s.host, g.name(), err)
			return
		case err != nil:
			return
		case n != int64(g.Size):
			if !g.Quits && !s.l.crashedSince(begun) {
				s.l.wrong("server %s saw %s end well after %d bytes of %d", s.host, g.name(), n, g.Size)
			}
			return
		}
		if g.Half {
			if n, err := io.Copy(io.Discard, r); err != nil || n > 0 {
				return
			}
		}
		if _, err := io.Copy(c, g.message()); err != nil || g.Half {
			return
		}
	}
}

func (s *server) serveDatagrams(pc net.PacketConn) {
	b := make([]byte, 64<<10)
	for {
		n, from, err := pc.ReadFrom(b)
		if err != nil {
			return
		}
		if err := checkDatagram(b[:n]); err != nil {
			s.l.wrong("server %s: datagram: %v", s.host, err)
		}
		s.mu.Lock()
		flow := s.flow
		s.mu.Unlock()
		select {
		case <-flow:
			_, _ = pc.WriteTo(b[:n], from)
		default: // it is stalled
		}
	}
}

// close ends the server and waits for what it has started.
func (s *server) close(ctx context.Context) error {
	s.stall(false)
	s.down()
	done := make(chan struct{})
	go func() { s.wg.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("server %s does not end", s.host)
	}
}
