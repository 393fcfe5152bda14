// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"context"
	"net"
	"net/http"
	"slices"
	"sync"
)

// RegisterOnShutdown makes [Server.Shutdown] call f, in a goroutine of its own and
// without waiting for it, as http.Server does. Use it to close hijacked
// connections cleanly.
func (s *Server) RegisterOnShutdown(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.onShutdown = append(s.onShutdown, f)
}

// tellShutdown calls the registered funcs.
func (s *Server) tellShutdown() {
	s.mu.Lock()
	list := slices.Clone(s.onShutdown)
	s.mu.Unlock()
	for _, f := range list {
		go func() {
			defer func() {
				if p := recover(); p != nil {
					recovered(s.logger(), p, "RegisterOnShutdown")
				}
			}()
			f()
		}()
	}
}

// SetKeepAlivesEnabled says whether connections may be used for more than one
// request, which they may by default. With false each connection ends after its
// current request or, if it has had none, the next one, and idle ones are closed.
// HTTP/2 connections end by GOAWAY.
func (s *Server) SetKeepAlivesEnabled(v bool) {
	s.init()
	s.noKeepAlives.Store(!v)
	s.std.SetKeepAlivesEnabled(v)
	if v {
		return
	}
	s.mu.Lock()
	conns := slices.Collect(s.conns.all())
	s.mu.Unlock()
	for _, c := range conns {
		c.interruptIdle()
		if h := c.http2(); h != nil {
			h.leave()
		}
	}
}

// endsBehind reports whether a connection ends after its nth request.
func (s *Server) endsBehind(n int) bool {
	return s.MaxRequests > 0 && n >= s.MaxRequests || s.noKeepAlives.Load()
}

// defaultMaxConns is the default of MaxConns.
const defaultMaxConns = 1 << 16

// slot waits for room for another connection. It is false if the server stops.
func (s *Server) slot() bool {
	if s.slots == nil {
		return true
	}
	select {
	case s.slots <- struct{}{}:
		return true
	default:
		s.totals.atLimit.Add(1)
	}
	select {
	case s.slots <- struct{}{}:
		return true
	case <-s.done:
		return false
	}
}

// freeSlot gives back the slot of a connection that has ended.
func (s *Server) freeSlot() {
	if s.slots != nil {
		<-s.slots
	}
}

// connContext returns the context of a connection; ok is false if ConnContext has
// panicked.
func (s *Server) connContext(base context.Context, nc net.Conn) (ctx context.Context, ok bool) {
	if s.ConnContext == nil {
		return base, true
	}
	defer func() {
		if p := recover(); p != nil {
			recovered(s.logger(), p, "ConnContext")
		}
	}()
	ctx = s.ConnContext(base, nc)
	return ctx, ctx != nil
}

// speaks returns the enabled protocols.
func (s *Server) speaks() (http1, http2, prior bool) {
	p := s.Protocols
	if p == nil {
		return true, true, true
	}
	return p.HTTP1(), p.HTTP2(), p.UnencryptedHTTP2()
}

// nextProtos returns the protocols offered by ALPN if the host has not set them.
func (s *Server) nextProtos() (offer []string) {
	http1, http2, _ := s.speaks()
	if http2 {
		offer = append(offer, "h2")
	}
	if http1 {
		offer = append(offer, "http/1.1", "http/1.0") // curl --http1.0 offers http/1.0
	}
	return offer
}

// mayPreface reports whether a connection may begin HTTP/2 with the preface
// alone.
func (s *Server) mayPreface(overTLS bool) bool {
	_, http2, prior := s.speaks()
	return overTLS && http2 || !overTLS && prior
}

func (s *Server) checkMembers(c *checks) {
	p := s.Protocols
	c.If(p != nil && *p == http.Protocols{}, "Server.Protocols", p, "must have a protocol")
}

// closedOnce is a listener that is closed only once, by Serve or by the code that
// stops the server.
type closedOnce struct {
	net.Listener
	once sync.Once
	err  error
}

func (l *closedOnce) Close() error {
	l.once.Do(func() { l.err = l.Listener.Close() })
	return l.err
}
