// SPDX-License-Identifier: Apache-2.0

// Package healthtest has fake services for tests of health checks: each speaks
// as much of its protocol as a probe hears, and fails on demand.
//
//	s := &healthtest.Server{Service: healthtest.Redis{Password: "secret"}}
//	go s.Serve(ln)
//	defer s.Close()
//	s.Set(healthtest.Starting) // LOADING
//
// A Server works over any net.Listener, also over l4test's network in memory
// inside a testing/synctest bubble.
package healthtest

import (
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A Mode is how a service behaves on a connection from its begin to its end: those that are
// open when the mode changes are served on. An l7.Upstream keeps such connections, so a
// server that has become Silent still answers over them, until its CloseIdle. To fail an open
// one take an l7test.Origin, or Close.
type Mode int32

const (
	Healthy  Mode = iota // answers as it should
	Starting             // answers that it is not ready
	Denying              // answers that the client may not come in
	Silent               // accepts and never answers, as a stopped process does
	Closing              // closes each connection at once
	Garbage              // answers what is of no protocol, and closes
	Endless              // answers without end
	Slow                 // answers one byte each 900ms, without end
)

// A Service speaks a protocol on one connection, which it need not close. It
// is told Healthy, Starting or Denying; the other modes need no protocol.
type Service interface {
	ServeConn(c net.Conn, m Mode)
}

// A Server serves a Service on listeners. All methods may be called by many
// goroutines at once.
type Server struct {
	Service Service

	mode     atomic.Int32
	accepted atomic.Int64
	work     sync.WaitGroup

	mu        sync.Mutex // guards what follows
	closed    bool
	listeners []net.Listener
	conns     map[net.Conn]struct{}
	quit      chan struct{} // made by the first Serve
}

// Set changes the mode. Connections that are open keep theirs.
func (s *Server) Set(m Mode) { s.mode.Store(int32(m)) }

// Accepted returns how many connections there have been.
func (s *Server) Accepted() int { return int(s.accepted.Load()) }

// Open returns how many connections are open.
func (s *Server) Open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// Serve accepts until ln or s is closed, and returns the error of Accept.
func (s *Server) Serve(ln net.Listener) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		ln.Close()
		return net.ErrClosed
	}
	if s.conns == nil {
		s.conns = make(map[net.Conn]struct{})
		s.quit = make(chan struct{})
	}
	s.listeners = append(s.listeners, ln)
	s.mu.Unlock()
	for {
		c, err := ln.Accept()
		if err != nil {
			return err
		}
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			c.Close()
			continue
		}
		s.conns[c] = struct{}{}
		s.accepted.Add(1)
		s.work.Add(1)
		s.mu.Unlock()
		go s.serve(c)
	}
}

// Close closes listeners and connections, and waits for those to end.
func (s *Server) Close() error {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		if s.quit != nil {
			close(s.quit)
		}
	}
	for _, ln := range s.listeners {
		ln.Close()
	}
	for c := range s.conns {
		c.Close()
	}
	s.mu.Unlock()
	s.work.Wait()
	return nil
}

func (s *Server) serve(c net.Conn) {
	defer func() {
		c.Close()
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
		s.work.Done()
	}()
	switch m := Mode(s.mode.Load()); m {
	case Silent:
		io.Copy(io.Discard, c)
	case Closing:
	case Garbage:
		io.WriteString(c, "\x7fzzzz\x00\xff\xfe\r\n\r\nzzzz\r\n")
		finish(c)
	case Endless:
		for chunk := []byte(strings.Repeat("0", 32<<10)); ; {
			if _, err := c.Write(chunk); err != nil {
				return
			}
		}
	case Slow:
		tick := time.NewTicker(900 * time.Millisecond) // never at the same moment as a timeout of whole seconds
		defer tick.Stop()
		for {
			select {
			case <-s.quit:
				return
			case <-tick.C:
				if _, err := c.Write([]byte("0")); err != nil {
					return
				}
			}
		}
	default:
		s.Service.ServeConn(c, m)
	}
}

// finish says that nothing more comes, and waits for the client to close:
// closing with bytes unread would reset the connection and lose the answer.
func finish(c net.Conn) {
	if h, ok := c.(interface{ CloseWrite() error }); ok && h.CloseWrite() == nil {
		io.Copy(io.Discard, c)
	}
}
