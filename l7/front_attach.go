// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/penstock-lb/penstock/l4"
)

// An AttachedFront serves clients of a [Server] over a protocol that Server does not
// speak itself: the Front of l7/h3 does so for HTTP/3. It has the methods of an
// [http.Server]; Server.Shutdown calls Shutdown, Server.Close calls Close, and both wait
// for it, and return its error. It may have been stopped before.
type AttachedFront interface {
	Shutdown(ctx context.Context) error
	Close() error
}

// An Attachment is an [AttachedFront] as its Server sees it. Its methods may be called
// by any goroutine.
type Attachment struct {
	srv     *Server
	front   AttachedFront
	cutting atomic.Bool
	altSvc  string // guarded by srv.mu
}

// Attach makes f a front of s until [Attachment.Detach]: for those that write one, who
// call it before they accept the first connection. It returns what [Server.Check] does,
// or [ErrServerClosed].
func (s *Server) Attach(f AttachedFront) (*Attachment, error) {
	s.init()
	if err := s.Check(); err != nil {
		return nil, err
	}
	a := &Attachment{srv: s, front: f}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping.Load() || s.lame.Load() {
		return nil, ErrServerClosed
	}
	s.attached = append(s.attached, a)
	return a, nil
}

// Detach ends the attachment. It may be called more than once.
func (a *Attachment) Detach() {
	s := a.srv
	s.mu.Lock()
	defer s.mu.Unlock()
	s.attached = slices.DeleteFunc(s.attached, func(other *Attachment) bool { return other == a })
	s.announce()
}

// Announce has the replies that the Server sends over TLS say where else it serves, by
// the field Alt-Svc (RFC 7838) with that value, unless they have one already. An empty
// value, and Detach, end that.
func (a *Attachment) Announce(altSvc string) {
	a.srv.mu.Lock()
	defer a.srv.mu.Unlock()
	a.altSvc = altSvc
	a.srv.announce()
}

// Cut says that the front cuts its connections from now on: exchanges that end because
// of that are recorded as [l4.Killed], not as ended by the client.
func (a *Attachment) Cut() { a.cutting.Store(true) }

// announce joins what the attached fronts announce. S.mu is held.
func (s *Server) announce() {
	var all string
	for _, a := range s.attached {
		if a.altSvc != "" && all != "" {
			all += ", "
		}
		all += a.altSvc
	}
	if all == "" {
		s.altSvc.Store(nil)
		return
	}
	s.altSvc.Store(&altSvc{all})
}

// altSvc edits replies so that they announce another front.
type altSvc struct{ value string }

// EditReply adds the field, unless a server or a handler has.
func (a *altSvc) EditReply(_ *Exchange, r *Reply) {
	if _, ok := r.Header.Lookup("Alt-Svc"); !ok {
		r.Header.Add("Alt-Svc", a.value)
	}
}

// announces has the reply of x say that there is another front.
func (s *Server) announces(x *Exchange) {
	if a := s.altSvc.Load(); a != nil && x.TLS != nil {
		x.editors = append(x.editors, a)
	}
}

// FrontLimits are the limits and timeouts of a [Server] that an [AttachedFront] has to
// keep itself, with their defaults filled in; 0 means none. BodyTimeout and MaxBodyBytes
// are kept by [FrontConn.ServeHTTP].
type FrontLimits struct {
	ReadHeaderTimeout, IdleTimeout, SendTimeout, StreamTimeout, HandshakeTimeout, LameDuck time.Duration

	MaxHeaderBytes, MaxFields, MaxRequests, MaxStreams int
}

// Limits returns those of the Server.
func (a *Attachment) Limits() FrontLimits {
	s := a.srv
	return FrontLimits{
		ReadHeaderTimeout: orDefault(s.ReadHeaderTimeout, defaultHeaderTimeout),
		IdleTimeout:       orDefault(s.IdleTimeout, defaultIdleTimeout),
		SendTimeout:       orDefault(s.SendTimeout, defaultSendTimeout),
		StreamTimeout:     orDefault(s.StreamTimeout, defaultStreamTimeout),
		HandshakeTimeout:  orDefault(s.HandshakeTimeout, defaultHandshakeTimeout),
		LameDuck:          max(s.LameDuck, 0),
		MaxHeaderBytes:    orDefault(s.MaxHeaderBytes, defaultMaxHeader),
		MaxFields:         orDefault(s.MaxFields, defaultMaxFields),
		MaxRequests:       max(s.MaxRequests, 0),
		MaxStreams:        orDefault(s.MaxStreams, defaultMaxStreams),
	}
}

// A FrontConn is a connection of an [AttachedFront].
type FrontConn struct {
	clientConn
	a     *Attachment
	ended atomic.Bool
}

// NewConn counts a connection that the front has accepted. Ok is false if the Server has
// MaxConns already: the front refuses the connection.
func (a *Attachment) NewConn() (c *FrontConn, ok bool) {
	s := a.srv
	if s.slots != nil {
		select {
		case s.slots <- struct{}{}:
		default:
			s.totals.atLimit.Add(1)
			return nil, false
		}
	}
	s.totals.accepted.Add(1)
	s.outside.Add(1)
	return &FrontConn{a: a}, true
}

// Handshaken counts the end of the connection's TLS handshake.
func (c *FrontConn) Handshaken(ok bool) {
	if t := &c.a.srv.totals; ok {
		t.handshakes.Add(1)
	} else {
		t.handshakeErrors.Add(1)
	}
}

// End gives back the place of the connection, after its last request has been served. It
// may be called more than once.
func (c *FrontConn) End() {
	if !c.ended.Swap(true) {
		c.a.srv.outside.Add(-1)
		c.a.srv.freeSlot()
		c.mu.Lock()
		owns := c.owns
		c.mu.Unlock()
		owns.end()
	}
}

// ServeHTTP serves a request with the Handler of the Server, its limits of bodies, its
// hooks and figures. It may be called by several goroutines at once. It panics with
// [http.ErrAbortHandler] if the reply has to be cut, and with nothing else.
//
// W has the methods that [http.ResponseController] uses, and bounds each wait for the
// client by SendTimeout. It is a [http.Hijacker] if r may open a tunnel; then r is the
// GET with Upgrade of HTTP/1, or CONNECT, and the head of the reply to it is written to
// the hijacked connection in the form of HTTP/1. The context of r ends when the client
// takes its request back, and has http.LocalAddrContextKey. The trailer of the request is
// in r.Trailer, of this r, once its body has been read.
func (c *FrontConn) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.exchange(w, r).run(c.a.srv.handler())
}

// Refuse answers with an error page, for a request that the front does not accept. If its
// head could not be parsed, r has what is known, and a URL.
func (c *FrontConn) Refuse(w http.ResponseWriter, r *http.Request, status int, reason string) {
	s := c.exchange(w, r)
	s.refused = &headError{status, reason}
	s.run(nil)
}

func (c *FrontConn) exchange(w http.ResponseWriter, r *http.Request) *standard {
	s := newStandardExchange(w, r, c.a.srv)
	s.attached, s.conn, s.first = c.a, &c.clientConn, c.requests.Add(1) == 1
	return s
}

// killed says what has ended an exchange of an attached front that its front has cut. Its
// handler may have returned because the context of the request has ended, before a write
// could fail.
func (s *standard) killed() {
	if s.attached == nil || !s.srv.cutting.Load() && !s.attached.cutting.Load() {
		return
	}
	switch t := &s.x.Record.Termination; {
	case t.Cause == l4.ClientAborted:
		t.Cause = l4.Killed
	case completed(*t) && s.r.Context().Err() != nil:
		*t = endOf(l4.Killed, l4.PhaseData)
	}
}

// shutdownAttached shuts the attached fronts down. Wait waits for the end of that.
func (s *Server) shutdownAttached(ctx context.Context) (wait func() error) {
	done := make(chan error, 1)
	fronts := s.attachedFronts()
	go func() { done <- s.eachFront(fronts, func(f AttachedFront) error { return f.Shutdown(ctx) }) }()
	return func() error { return <-done }
}

func (s *Server) attachedFronts() []AttachedFront {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []AttachedFront
	for _, a := range s.attached {
		list = append(list, a.front)
	}
	return list
}

// eachFront calls stop for all, at once, and waits.
func (s *Server) eachFront(fronts []AttachedFront, stop func(AttachedFront) error) error {
	errs := make([]error, len(fronts))
	var wg sync.WaitGroup
	for i, f := range fronts {
		wg.Go(func() {
			defer func() {
				if p := recover(); p != nil {
					errs[i] = recovered(s.logger(), p, "attached front")
				}
			}()
			errs[i] = stop(f)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
