// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"syscall"
	"time"
)

// ErrServerClosed is returned by Serve after Shutdown or Close.
var ErrServerClosed = errors.New("l4: server closed")

// DefaultMaxConns is the limit of a Server whose MaxConns is zero.
const DefaultMaxConns = 1 << 16

// A Server accepts connections and gives each to its Handler. Its fields must
// not change once Serve is called. All methods may be called at once by many
// goroutines, Close and Shutdown not by a Handler, since they wait for it.
type Server struct {
	Handler  Handler
	MaxConns int          // open at once, over all listeners; more wait in the kernel's backlog; 0 means DefaultMaxConns, negative means no limit
	Logger   *slog.Logger // nil means slog.Default()

	// OnDone, if not nil, is called once for each connection when it is over,
	// by whoever closes it. It must not block. The record is not valid after.
	OnDone func(*Record)

	// ConnContext, if not nil, derives the context of a connection from the
	// server's, to put values in it.
	ConnContext func(ctx context.Context, c net.Conn) context.Context

	mu        sync.Mutex
	listeners map[net.Listener]struct{}
	conns     memberList
	state     *serverState // made by the first use
	down      bool         // Shutdown or Close was called
}

// serverState is what exists once a Server is in use.
type serverState struct {
	ctx      context.Context // ends with Close
	cancel   context.CancelCauseFunc
	draining chan struct{} // closed when Shutdown begins
	slots    chan struct{} // one in it for each open connection; nil means no limit
	idle     chan struct{} // closed when down and no connection is open
	handlers sync.WaitGroup
	park     parking
}

// Serve accepts connections from ln until Shutdown or Close, then returns
// ErrServerClosed. It closes ln. It may be called for many listeners at once.
//
// When accepting fails for a reason that may pass, such as a lack of
// descriptors, it waits, 5 ms at first and up to 1 s, and goes on. Any other
// error is returned; connections already accepted are not affected.
//
// Before it accepts anything it returns what [Server.Check] says.
func (s *Server) Serve(ln net.Listener) error {
	defer ln.Close()
	if err := s.Check(); err != nil {
		return err
	}
	st, err := s.enter(ln)
	if err != nil {
		return err
	}
	defer s.leave(ln)
	var pause time.Duration
	for {
		if !st.acquire() {
			return ErrServerClosed
		}
		c, err := ln.Accept()
		if err == nil {
			pause = 0
			s.start(st, c)
			continue
		}
		st.release()
		if st.isDraining() {
			return ErrServerClosed
		}
		if !mayPass(err) {
			return fmt.Errorf("l4: accept: %w", err)
		}
		if pause = min(max(2*pause, 5*time.Millisecond), time.Second); pause == 5*time.Millisecond {
			s.logger().Warn("l4: cannot accept, retrying", "addr", ln.Addr(), "err", err)
		}
		if !st.sleep(pause) {
			return ErrServerClosed
		}
	}
}

// mayPass reports whether accepting may work again later.
func mayPass(err error) bool {
	for _, e := range []syscall.Errno{
		syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, // something ran out
		syscall.ECONNABORTED, syscall.ECONNRESET, // the client has left already
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	t, ok := errors.AsType[net.Error](err)
	return ok && t.Timeout() && !errors.Is(err, net.ErrClosed)
}

// open returns the state, made on first use; s.mu is held.
func (s *Server) open() *serverState {
	if s.state == nil {
		st := &serverState{draining: make(chan struct{}), idle: make(chan struct{})}
		limit := s.MaxConns
		if limit == 0 {
			limit = DefaultMaxConns
		}
		if limit > 0 {
			st.slots = make(chan struct{}, limit)
		}
		ctx := context.WithValue(context.Background(), drainingKey{}, st.draining)
		st.ctx, st.cancel = context.WithCancelCause(ctx)
		s.state = st
	}
	return s.state
}

func (s *Server) enter(ln net.Listener) (*serverState, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		return nil, ErrServerClosed
	}
	if s.listeners == nil {
		s.listeners = make(map[net.Listener]struct{})
	}
	s.listeners[ln] = struct{}{}
	return s.open(), nil
}

func (s *Server) leave(ln net.Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, ln)
}

// start makes c a member and has it served.
func (s *Server) start(st *serverState, bare net.Conn) {
	c := NewConn(bare)
	if c.member.server != nil { // handed on by another server, which counts it too
		c = &Conn{nc: c}
	}
	c.member.server = s
	if s.OnDone != nil {
		c.member.record = newRecord()
	}
	s.mu.Lock()
	if s.down {
		s.mu.Unlock()
		c.member.server = nil
		c.Close()
		st.release()
		return
	}
	s.conns.add(c)
	st.handlers.Add(1)
	s.mu.Unlock()
	go s.serveConn(st, c)
}

func (s *Server) serveConn(st *serverState, c *Conn) {
	defer st.handlers.Done()
	defer func() {
		if v := recover(); v != nil {
			c.member.record.End(Termination{Internal, PhaseRequest}, fmt.Errorf("l4: panic: %v", v))
			c.Close()
			s.logger().Error("l4: handler panicked", "remote", c.RemoteAddr(), "panic", v, "stack", string(debug.Stack()))
		}
	}()
	ctx := st.ctx
	if s.ConnContext != nil {
		ctx = s.ConnContext(ctx, c)
	}
	if err := s.Handler.ServeConn(ctx, c); err != nil {
		s.logger().Info("l4: connection not served", "remote", c.RemoteAddr(), "err", err)
	}
}

// closed is told by a member that it was closed.
func (s *Server) closed(c *Conn) {
	if r := c.member.record; r != nil {
		s.finish(c, r)
	}
	s.mu.Lock()
	s.conns.remove(c)
	st := s.state
	if s.down && s.conns.n == 0 {
		close(st.idle)
	}
	s.mu.Unlock()
	st.release()
}

func (s *Server) finish(c *Conn, r *Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.RemoteAddr == nil {
		r.RemoteAddr = c.RemoteAddr()
	}
	if r.LocalAddr == nil {
		r.LocalAddr = c.LocalAddr()
	}
	r.BytesIn, r.BytesOut = c.BytesRead(), c.BytesWritten()
	r.Total = time.Since(r.Start)
	s.OnDone(r)
}

// Shutdown ends the server in three phases: it stops accepting; it tells the
// handlers (see Draining) and waits until all connections are closed, those
// that outlive their ServeConn included; when ctx ends first it closes what is
// left. It returns nil if nothing had to be closed, else the error of ctx,
// and in both cases only when all handlers have returned.
func (s *Server) Shutdown(ctx context.Context) error {
	st := s.stop()
	var err error
	select {
	case <-st.idle:
	default:
		select {
		case <-st.idle:
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
	}
	s.cut(st)
	return err
}

// Close stops accepting, closes all connections and returns when all handlers
// have returned.
func (s *Server) Close() error {
	s.cut(s.stop())
	return nil
}

// stop is the first phase and the begin of the second.
func (s *Server) stop() *serverState {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.open()
	if s.down {
		return st
	}
	s.down = true
	close(st.draining) // first: Serve asks it when accepting fails
	for ln := range s.listeners {
		ln.Close()
	}
	if s.conns.n == 0 {
		close(st.idle)
	}
	return st
}

// cut is the third phase.
func (s *Server) cut(st *serverState) {
	st.cancel(ErrServerClosed)
	s.mu.Lock()
	all := s.conns.all()
	s.mu.Unlock()
	for _, c := range all {
		c.member.record.End(Termination{Killed, PhaseData}, ErrServerClosed)
		c.Close()
	}
	st.handlers.Wait()
	<-st.idle
	st.park.close()
}

// Open returns how many connections are open.
func (s *Server) Open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conns.n
}

// parker returns the Parker of s, nil if there is none.
func (s *Server) parker() *Parker {
	s.mu.Lock()
	st := s.state
	s.mu.Unlock()
	return st.park.get()
}

func (s *Server) logger() *slog.Logger {
	if s.Logger != nil {
		return s.Logger
	}
	return slog.Default()
}

type drainingKey struct{}

// Draining returns a channel that is closed when the server that ctx comes
// from begins to shut down: the moment for a handler to end what it can end
// with good manners. It is nil, and never ready, for other contexts.
func Draining(ctx context.Context) <-chan struct{} {
	ch, _ := ctx.Value(drainingKey{}).(chan struct{})
	return ch
}

// acquire takes a slot; false means that the server is closed.
func (st *serverState) acquire() bool {
	select {
	case <-st.draining:
		return false
	default:
	}
	if st.slots == nil {
		return true
	}
	select {
	case st.slots <- struct{}{}:
		return true
	case <-st.draining:
		return false
	}
}

func (st *serverState) release() {
	if st.slots != nil {
		<-st.slots
	}
}

func (st *serverState) isDraining() bool {
	select {
	case <-st.draining:
		return true
	default:
		return false
	}
}

// sleep waits for d; false means that the server was closed meanwhile.
func (st *serverState) sleep(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-st.draining:
		return false
	}
}

// A member is a Conn's place in the list of the server that accepted it.
type member struct {
	server     *Server
	record     *Record // nil if nobody asks for it
	next, prev *Conn
}

// memberList is a list of connections that costs no memory of its own.
type memberList struct {
	first *Conn
	n     int
}

func (l *memberList) add(c *Conn) {
	if c.member.next = l.first; l.first != nil {
		l.first.member.prev = c
	}
	l.first = c
	l.n++
}

func (l *memberList) remove(c *Conn) {
	m := &c.member
	if m.prev != nil {
		m.prev.member.next = m.next
	} else {
		l.first = m.next
	}
	if m.next != nil {
		m.next.member.prev = m.prev
	}
	m.next, m.prev = nil, nil
	l.n--
}

func (l *memberList) all() []*Conn {
	all := make([]*Conn, 0, l.n)
	for c := l.first; c != nil; c = c.member.next {
		all = append(all, c)
	}
	return all
}
