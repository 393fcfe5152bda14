// SPDX-License-Identifier: Apache-2.0

package chaostest

import (
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/penstock-lb/penstock/l4/l4test"
)

// Reasons for which a server is not well; each is a bit.
const (
	isDown = 1 << iota
	isStalled
	isSlow
	refusing
	lost
	removed
	steered
)

// A server is one of a world. It answers what the request asks for.
type server struct {
	w    *World
	name string
	addr string

	mu      sync.Mutex
	http    *http.Server // nil while it is down
	conns   map[*l4test.Conn]bool
	ill     int
	since   time.Time // of the last trouble
	latency time.Duration
	cutNext int64 // bytes after which the next connection breaks; 0 means it does not
}

func (s *server) open() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.http != nil {
		return
	}
	ln, err := s.w.net.Listen("tcp", s.addr)
	if err != nil {
		s.w.wrong("%v", err)
		return
	}
	s.conns = make(map[*l4test.Conn]bool)
	s.http = &http.Server{Handler: s, ConnState: func(c net.Conn, state http.ConnState) {
		if state == http.StateClosed || state == http.StateHijacked {
			s.mu.Lock()
			delete(s.conns, c.(*l4test.Conn))
			s.mu.Unlock()
		}
	}}
	go s.http.Serve(ln)
}

func (s *server) close() {
	s.mu.Lock()
	srv := s.http
	s.http = nil
	s.mu.Unlock()
	if srv != nil {
		srv.Close()
	}
	s.each(func(c *l4test.Conn) { c.Reset() })
}

// connected is told of a connection from the gateway, by the gateway's end.
func (s *server) connected(c *l4test.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	far := c.Peer()
	if s.conns != nil {
		s.conns[far] = true
	}
	far.SetLatency(s.latency)
	if s.cutNext > 0 {
		far.CutAfter(s.cutNext)
		s.cutNext = 0
	}
}

// each calls do for each connection from the gateway, by the server's end.
func (s *server) each(do func(*l4test.Conn)) {
	s.mu.Lock()
	var list []*l4test.Conn
	for c := range s.conns {
		list = append(list, c)
	}
	s.mu.Unlock()
	for _, c := range list {
		do(c)
	}
}

// trouble notes that the server is not well from now on, or well again, for a reason.
func (s *server) trouble(ill bool, reason int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.since = time.Now()
	if s.ill |= reason; !ill {
		s.ill &^= reason
	}
}

// wellSince reports whether nothing has been wrong with the server since then.
func (s *server) wellSince(then time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ill == 0 && s.since.Before(then)
}

// suffer is a step of the story.
func (s *server) suffer(st step) {
	switch st.kind {
	case down:
		s.trouble(true, isDown)
		s.close()
	case up:
		s.trouble(false, isDown)
		s.open()
	case reset:
		s.trouble(false, 0)
		s.each((*l4test.Conn).Reset)
	case stall:
		s.trouble(true, isStalled)
		s.each((*l4test.Conn).Stall)
	case slow:
		s.trouble(true, isSlow)
		s.slow(st.wait)
	case refuse:
		s.trouble(true, refusing)
	case lose:
		s.trouble(true, lost)
		s.w.net.Drop("tcp", s.addr)
	case cut:
		s.mu.Lock()
		s.cutNext, s.since = st.bytes+1, time.Now()
		s.ill |= isStalled // until it is healed: the connection that breaks may come later
		s.mu.Unlock()
	case heal:
		s.trouble(false, isStalled|isSlow|refusing|lost)
		s.mu.Lock()
		s.cutNext = 0
		s.mu.Unlock()
		s.slow(0)
		s.each((*l4test.Conn).Resume)
		s.w.net.Restore("tcp", s.addr)
	}
}

func (s *server) slow(by time.Duration) {
	s.mu.Lock()
	s.latency = by
	s.mu.Unlock()
	s.each(func(c *l4test.Conn) { c.SetLatency(by) })
}

func (s *server) is(reason int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ill&reason != 0
}

// ServeHTTP answers a request of ask.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.w.serving.Add(1)
	defer s.w.serving.Done()
	token := r.Header.Get("X-Token")
	want, _ := strconv.ParseInt(r.Header.Get("X-Body"), 10, 64)
	n, same, err := compare(token, r.Body)
	switch {
	case !same:
		s.w.wrong("%s got bytes of another request in the body of request %s", s.name, token)
	case err == nil && n != want:
		s.w.wrong("%s took %d bytes for the whole body of request %s, of which there are %d", s.name, n, token, want)
	case err == nil && r.Method == http.MethodPost:
		s.w.mu.Lock()
		s.w.whole[token]++
		s.w.mu.Unlock()
	}
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	think, _ := time.ParseDuration(r.Header.Get("X-Think"))
	time.Sleep(think)
	reply, _ := strconv.ParseInt(r.Header.Get("X-Reply"), 10, 64)
	w.Header().Set("X-Token", token)
	w.Header().Set("X-Length", strconv.FormatInt(reply, 10))
	w.Header().Set("Content-Type", "application/octet-stream")
	if r.Header.Get("X-Open") == "" {
		w.Header().Set("Content-Length", strconv.FormatInt(reply, 10))
	}
	if s.is(refusing) {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	if r.Method != http.MethodHead {
		_, _ = io.Copy(w, body(token, reply))
	}
}
