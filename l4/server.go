// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// ErrServerClosed is returned by Serve after Shutdown or Close.
var ErrServerClosed = errors.New("l4: server closed")

// DefaultMaxConns is the limit of a Server whose MaxConns is zero.
const DefaultMaxConns = 1 << 16

// A Server accepts connections and gives each to its Handler. Its fields must
// not change once Serve is called. All methods may be called at once by many
// goroutines, Close and Shutdown not by a Handler, since they wait for it.
//
// A panic of the Handler, or of other code of the host's that a connection runs, is
// logged with its stack and ends that connection.
type Server struct {
	Handler  Handler
	MaxConns int // open at once, over all listeners; more wait in the kernel's backlog; 0 means DefaultMaxConns, negative means no limit

	// Logger gets panics, with their stack; that Accept fails; and, if OnDone does not
	// get a Termination or an Err of it, a line for each connection whose Handler returned an
	// error, at most ten a second: the next one says how many were left out. Nil means
	// slog.Default().
	Logger *slog.Logger

	// LameDuck is how long Shutdown keeps accepting after it has told the handlers
	// that the server shuts down (Draining), so that no connection is refused while
	// load balancers before us learn of it; 0 or negative means none.
	LameDuck time.Duration

	// OnDone, if not nil, is called once for each connection when it is closed and the
	// relay of a [Proxy], if it had one, is over; by the goroutine that sees to the last
	// of both. It must not block. The record is not valid after.
	// If it panics, that is logged.
	OnDone func(*Record)

	// ConnContext, if not nil, derives the context of a connection from the
	// server's, to put values in it.
	ConnContext func(ctx context.Context, c net.Conn) context.Context

	mu        sync.Mutex
	listeners map[net.Listener]struct{}
	conns     memberList
	state     *serverState // made by the first use
	told      bool         // draining is closed
	down      bool         // it accepts no more
	killed    bool         // it has closed all
	serving   int          // calls of Serve, which may be about to add a connection
	totals    Stats        // of connections accepted, and of those that are closed

	acceptErrors, atLimit, handshakes, handshakeErrors atomic.Uint64

	failures failureLog
}

// serverState is what exists once a Server is in use.
type serverState struct {
	ctx      context.Context // ends with Close
	cancel   context.CancelCauseFunc
	draining chan struct{} // closed when Shutdown begins
	stopped  chan struct{} // closed when down
	slots    chan struct{} // one in it for each open connection; nil means no limit
	idle     chan struct{} // closed when down and no connection is open, nor about to be
	idleOnce sync.Once
	handlers sync.WaitGroup
	park     parking
}

// Serve accepts connections from ln until Shutdown or Close, then returns
// ErrServerClosed. It closes ln. It may be called for many listeners at once.
//
// When accepting fails for a reason that may pass, such as a lack of
// descriptors, it waits and continues, as [AcceptPause] says. Any other error
// is returned; connections already accepted are not affected.
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
	var said string // of Accept, and when: it may fail often
	var at time.Time
	var batch Batch
	defer batch.Close()
	for {
		if !st.acquire(&s.atLimit) {
			return ErrServerClosed
		}
		c, err := s.accept(ln)
		if err == nil {
			pause = 0
			s.start(st, c)
			batch.Add(c)
			continue
		}
		st.release()
		if st.isStopped() {
			return ErrServerClosed
		}
		s.acceptErrors.Add(1)
		var again bool
		if pause, again = AcceptPause(err, pause); !again {
			return fmt.Errorf("l4: accept: %w", err)
		}
		if now := time.Now(); err.Error() != said || now.Sub(at) >= time.Minute {
			said, at = err.Error(), now
			logger(s.Logger).Warn("l4: cannot accept, retrying", "addr", ln.Addr(), "err", err)
		}
		if !st.sleep(pause) {
			return ErrServerClosed
		}
	}
}

// accept is ln.Accept. A panic of it, which may be the host's, and no connection at all
// are errors that may pass.
func (s *Server) accept(ln net.Listener) (c net.Conn, err error) {
	defer func() {
		if p := recovered(recover(), s.Logger, "Accept"); p != nil {
			err = p
		}
	}()
	if c, err = ln.Accept(); c == nil && err == nil {
		panic("no connection and no error")
	}
	return c, err
}

// open returns the state, made on first use; s.mu is held.
func (s *Server) open() *serverState {
	if s.state == nil {
		st := &serverState{draining: make(chan struct{}), stopped: make(chan struct{}), idle: make(chan struct{})}
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
	s.serving++
	return s.open(), nil
}

func (s *Server) leave(ln net.Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, ln)
	s.serving--
	s.checkIdle()
}

// checkIdle closes idle if the server will never serve again; s.mu is held.
func (s *Server) checkIdle() {
	if s.down && s.conns.n == 0 && (s.serving == 0 || s.killed) {
		s.state.idleOnce.Do(func() { close(s.state.idle) })
	}
}

// start makes c a member and serves it.
func (s *Server) start(st *serverState, bare net.Conn) {
	var c *Conn
	if guard(s.Logger, "connection", func() { c = NewConn(bare) }) != nil {
		guard(s.Logger, "Close", func() { bare.Close() })
		st.release()
		return
	}
	if c.member.server != nil { // handed on by another server, which counts it too
		c = &Conn{nc: c}
	}
	c.member.server = s
	c.member.open.Store(1)
	if s.OnDone != nil {
		c.member.record = newRecord()
	}
	s.mu.Lock()
	s.totals.Accepted++
	if s.killed {
		s.totals.Ends[Killed]++
		s.mu.Unlock()
		c.member.server = nil
		breakOff(c)
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
		if p := recover(); p != nil {
			err := recovered(p, s.Logger, "handler", "remote", c.RemoteAddr())
			c.member.note(Termination{Internal, PhaseRequest}, err)
			guard(s.Logger, "Close", func() { breakOff(c) })
		}
	}()
	growStack(0)
	ctx := st.ctx
	if s.ConnContext != nil {
		ctx = s.ConnContext(ctx, c)
	}
	if err := s.Handler.ServeConn(ctx, c); err != nil && !c.member.record.tells() {
		s.failures.add(s.Logger, time.Now(), "l4: connection not served", "remote", c.RemoteAddr(), "err", err)
	}
}

// closed is called by a member when it was closed and is not held any more.
func (s *Server) closed(c *Conn) {
	if r := c.member.record; r != nil {
		s.finish(c, r)
	}
	s.mu.Lock()
	s.conns.remove(c)
	s.tally(c)
	st := s.state
	s.checkIdle()
	s.mu.Unlock()
	st.release()
}

// finish gives the host a copy of the record of c, so that notes of a handler
// that is still running, because other code closed c, do not race with notes
// made in OnDone.
func (s *Server) finish(c *Conn, r *Record) {
	last := newRecord()
	r.Note(func(r *Record) {
		mu := last.mu
		*last = *r
		last.mu = mu
	})
	if last.Remote == nil {
		last.Remote = c.RemoteAddr()
	}
	if last.Local == nil {
		last.Local = c.LocalAddr()
	}
	last.BytesIn, last.BytesOut = c.BytesRead(), c.BytesWritten()
	last.Total = time.Since(last.Start)
	guard(s.Logger, "OnDone", func() { s.OnDone(last) })
}

// Shutdown ends the server in four phases: it tells the handlers (see Draining and
// AfterDraining) and keeps accepting for LameDuck; it stops accepting; it waits until
// all connections are closed, including those that outlive their ServeConn; if ctx ends
// first it closes the remaining ones, as Close does. It returns nil if nothing had to be
// closed, else the error of ctx, and in both cases only when all handlers have returned.
func (s *Server) Shutdown(ctx context.Context) error {
	st := s.tell()
	if s.LameDuck > 0 {
		t := time.NewTimer(s.LameDuck)
		defer t.Stop()
		select {
		case <-t.C:
		case <-st.stopped: // by Close
		case <-ctx.Done():
		}
	}
	s.stop()
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

// Close stops accepting, closes all connections and returns when all handlers have
// returned. The connections that it closes are reset where that is possible, so that no
// client takes a partial stream for a complete one.
func (s *Server) Close() error {
	s.mu.Lock()
	st := s.open()
	s.mu.Unlock()
	st.cancel(ErrServerClosed) // before handlers are told, which would end with good manners
	s.tell()
	s.stop()
	s.cut(st)
	return nil
}

// tell is the first phase.
func (s *Server) tell() *serverState {
	s.mu.Lock()
	st := s.open()
	if s.told {
		s.mu.Unlock()
		return st
	}
	s.told = true
	close(st.draining)
	all := s.conns.all()
	s.mu.Unlock()
	for _, c := range all {
		c.runDrainHooks()
	}
	return st
}

// stop is the second phase.
func (s *Server) stop() {
	s.mu.Lock()
	if s.down {
		s.mu.Unlock()
		return
	}
	s.down = true
	close(s.state.stopped) // first: Serve asks it when accepting fails
	all := slices.Collect(maps.Keys(s.listeners))
	s.checkIdle()
	s.mu.Unlock()
	for _, ln := range all {
		ln.Close() // the host's: it may call us back
	}
}

// cut is the last phase.
func (s *Server) cut(st *serverState) {
	st.cancel(ErrServerClosed)
	s.mu.Lock()
	s.killed = true
	s.checkIdle()
	all := s.conns.all()
	s.mu.Unlock()
	for _, c := range all {
		c.member.note(Termination{Killed, PhaseData}, ErrServerClosed)
		guard(s.Logger, "Close", func() { breakOff(c) })
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

// parker returns the Parker of s, or nil if there is none.
func (s *Server) parker() *Parker {
	s.mu.Lock()
	st := s.state
	s.mu.Unlock()
	return st.park.get()
}

// acquire takes a slot; false means that the server is closed. If it has to wait, full
// counts that.
func (st *serverState) acquire(full *atomic.Uint64) bool {
	select {
	case <-st.stopped:
		return false
	default:
	}
	if st.slots == nil {
		return true
	}
	select {
	case st.slots <- struct{}{}:
		return true
	default:
		full.Add(1)
	}
	select {
	case st.slots <- struct{}{}:
		return true
	case <-st.stopped:
		return false
	}
}

func (st *serverState) release() {
	if st.slots != nil {
		<-st.slots
	}
}

func (st *serverState) isStopped() bool {
	select {
	case <-st.stopped:
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
	case <-st.stopped:
		return false
	}
}
