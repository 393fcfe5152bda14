// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/penstock-lb/penstock/balance"
)

const (
	defaultConnectTimeout = 3 * time.Second
	defaultTries          = 3
)

// A Proxy is a Handler that relays each connection to a server of a pool. Its fields must
// not change once it is used. It may serve any number of connections at once and be part
// of any number of Servers.
//
// If no server can be reached, the client's connection is reset, as it would
// be by a server that is not there.
//
// A client that resets its connection while it waits in [balance.Queue] leaves the queue at
// once. One that has ended its stream keeps its place until its turn or the timeout of the
// queue, as it may still expect an answer (RFC 9293, section 3.6): a FIN does not tell a client
// that has closed its socket from one that has sent all it has to say. AbortOnClose takes
// both for gone. Behind TLS neither is seen once the client has sent some KiB that have not
// been read yet.
type Proxy struct {
	Pool *balance.Pool

	// Dial connects to servers; nil means sockets with the options of Socket.
	// The context bounds it by ConnectTimeout, and DialingFor has the client of it.
	Dial DialFunc

	Socket SocketOptions // of connections to servers, unless Dial makes them

	// Handshake, if not nil, is run on a new connection to s before anything is relayed
	// to it: [SendProxy], [OriginateTLS] or both. It returns the connection to use from
	// then on. ConnectTimeout bounds Dial and Handshake together, by the context and by
	// the deadline of server. An error counts as a failed try, and server is closed.
	Handshake func(ctx context.Context, client, server net.Conn, s *balance.Server) (net.Conn, error)

	// Key returns the hash key of a connection for policies that hash.
	// Nil means the client's address, without the port.
	Key func(client net.Conn) uint64

	// Sticky, if not nil, sends a client to the server that it was sent to
	// before. One table may be shared by several proxies of one pool.
	Sticky *Sticky

	ConnectTimeout time.Duration // of one try; 0 means 3s, negative means none
	Tries          int           // how many servers are tried; 0 means 3, negative means none but the first

	// [RelayOptions] says more on these, and which Cause each gives.
	IdleTimeout       time.Duration // neither side sends; 0 means 1h, negative means none
	ClientTimeout     time.Duration // the client does not send; 0 or negative means none but IdleTimeout
	ServerTimeout     time.Duration // the server does not send; 0 or negative means none but IdleTimeout
	HalfClosedTimeout time.Duration // neither side sends, and one has ended its stream; 0 means 30s if that is the server, and IdleTimeout and ServerTimeout if it is the client; negative means none
	Lifetime          time.Duration // in all; 0 or negative means no limit

	// CutOnDown closes live connections of a server that goes down, goes into
	// maintenance, or leaves the pool. Without it they stay open until the client or the
	// server closes them, or Cut of the server is called, as CutDown of a health.Checker
	// does. The same events cancel a connect in progress, and another server is tried.
	CutOnDown bool

	// AbortOnClose has a client that ends its stream while it waits in the queue leave it at
	// once. It is for protocols whose clients read the last reply before they do that.
	// (HAProxy, abortonclose.)
	AbortOnClose bool

	BufferBytes int // size of the buffers that data moves through; 0 means DefaultBufferBytes, 64 MiB is the most

	checked
	once    sync.Once
	relay   RelayOptions
	buffers BufferPool
}

func (p *Proxy) init() {
	p.buffers.Size = p.BufferBytes
	p.relay = RelayOptions{
		IdleTimeout: p.IdleTimeout, ClientTimeout: p.ClientTimeout, ServerTimeout: p.ServerTimeout,
		HalfClosedTimeout: p.HalfClosedTimeout, Lifetime: p.Lifetime, Buffers: &p.buffers,
	}
}

func (p *Proxy) connectTimeout() time.Duration { return connectTimeout(p.ConnectTimeout) }

// connectTimeout and tries apply the defaults.

func connectTimeout(d time.Duration) time.Duration {
	if d == 0 {
		return defaultConnectTimeout
	}
	return d
}

func tries(n int) int {
	if n == 0 {
		return defaultTries
	}
	return max(n, 1)
}

// ServeConn connects c to a server and relays. It may return while the relay is
// still running, and the relay's own goroutines may last a moment longer than the
// relay: to wait for the end of a connection, use OnDone of the Server, or
// [Conn.OnClose].
func (p *Proxy) ServeConn(ctx context.Context, c net.Conn) error {
	if err := p.first(p); err != nil {
		return misconfigured(c, err)
	}
	p.once.Do(p.init)
	s := &session{p: p, client: NewConn(c), record: RecordOf(c)}
	if c := underlying(c); c != nil {
		s.log = c.member.server.Logger
	}
	if err := s.connect(ctx); err != nil {
		Abort(s.client)
		s.client.Close()
		if errors.Is(err, errClientLeft) {
			return nil
		}
		return err
	}
	if h, ok := s.lease.Server().Value().(Handler); ok {
		return s.serveLocally(ctx, h)
	}
	s.start(ctx)
	return nil
}

// A session is one connection through a Proxy.
type session struct {
	relay
	p      *Proxy
	client *Conn
	server *Conn
	took   time.Duration // to connect
	record *Record
	stop   func() bool // of watching the context, or nil
	held   *Conn       // of the server that waits for the end of the relay, or nil

	connecting connecting
}

// connect takes a lease and connects to its server, or tries another.
func (s *session) connect(ctx context.Context) (failed error) {
	var end Termination
	defer func() {
		if failed != nil {
			endConn(s.client, end, failed)
		}
	}()
	p := s.p
	req := balance.Request{Key: p.key(s.client)}
	from := addrOf(s.client)
	if p.Sticky != nil {
		req.Prefer = p.Sticky.Lookup(from)
	}
	for try := 1; ; try++ {
		if t, err := s.acquire(ctx, req); err != nil {
			if failed == nil {
				end = t
			}
			return errors.Join(failed, err)
		}
		server := s.lease.Server()
		err := s.dial(ctx, try)
		if err == nil {
			if p.Sticky != nil {
				p.Sticky.Remember(from, server.Name())
			}
			return nil
		}
		var class balance.Class
		class, end = whyNot(ctx, err)
		s.lease.Done(balance.Outcome{Class: class, Err: err})
		failed = errors.Join(failed, &ServerError{Server: server.Name(), Addr: server.Addr(), Err: err})
		if try >= tries(p.Tries) || ctx.Err() != nil || panicked(err) {
			return failed
		}
		// A refused connection has cost the server nothing. A try elsewhere does not
		// multiply load, which is what the budget prevents.
		if class != balance.ConnectFailed && !isCut(err) {
			retry, ok := p.Pool.TryRetry()
			if !ok {
				return failed
			}
			defer retry.Done()
		}
		req.Avoid(server)
		req.Prefer = ""
	}
}

// whyNot returns what an error of connecting means.
func whyNot(ctx context.Context, err error) (balance.Class, Termination) {
	switch {
	case ctx.Err() != nil:
		return balance.Canceled, Termination{Killed, PhaseConnect}
	case panicked(err):
		return balance.Canceled, Termination{Internal, PhaseConnect}
	case isCut(err):
		return balance.Canceled, Termination{ServerDown, PhaseConnect}
	case isTimeout(err):
		return balance.ConnectTimeout, Termination{ServerTimeout, PhaseConnect}
	case errors.Is(err, ErrTLS):
		return balance.TLSFailed, Termination{ServerAborted, PhaseConnect}
	case balance.LocalFault(err):
		return balance.Canceled, Termination{Resource, PhaseConnect}
	}
	return balance.ConnectFailed, Termination{ServerAborted, PhaseConnect}
}

// dial connects to the server of the lease, one that is served in process
// excepted.
func (s *session) dial(ctx context.Context, try int) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = recovered(p, s.log, "connecting", "server", s.lease.Server().Name())
		}
	}()
	server := s.lease.Server()
	if _, ok := server.Value().(Handler); ok {
		s.noteLocal(server, try)
		return nil
	}
	before := time.Now()
	w := s.connecting.begin(ctx)
	server.Attach(s)
	ok := false // neither by an error nor by a panic
	defer func() {
		if w.end(); !ok {
			server.Detach(s)
		}
	}()
	c, err := net.Conn(nil), w.lostNow()
	if err == nil {
		c, err = s.dialServer(w, server)
	}
	if lost := s.lostUnused(err != nil); lost != nil {
		if err == nil {
			c.Close()
		}
		c, err = nil, lost
	}
	ok = err == nil
	s.took = time.Since(before)
	if s.record != nil {
		s.noteTry(server, try, before, ok)
	}
	if ok {
		s.server = NewConn(c)
	}
	return err
}

// The notes are functions of their own: else what they use would be allocated for each
// connection, also for those without a record.

func (s *session) noteLocal(server *balance.Server, try int) {
	s.record.Note(func(r *Record) { r.Server, r.Tries, r.Connected = server.Name(), try, r.Assigned })
}

func (s *session) noteTry(server *balance.Server, try int, before time.Time, connected bool) {
	s.record.Note(func(r *Record) {
		r.Server, r.Tries = server.Name(), try
		if connected {
			r.Connected = reached(before.Add(s.took).Sub(r.Start))
		}
	})
}

func (s *session) dialServer(w *connecting, server *balance.Server) (net.Conn, error) {
	p := s.p
	if p.Dial == nil && p.Handshake == nil && p.Socket.plain() {
		if s.parker = parkerOf(s.client); s.parker != nil {
			network, addr := SplitAddr(server.Addr())
			c, ok, err := s.relay.dial(w, s.parker, s.client, network, addr, p.connectTimeout())
			if err != nil {
				return nil, err
			}
			if ok {
				if p.Socket.keepAlive().Enable {
					s.probes = true
				}
				return c, nil
			}
		}
	}
	w.Done() // from here on it is for several goroutines
	return p.dial(w.Context, s.client, server)
}

func (p *Proxy) dial(ctx context.Context, client net.Conn, server *balance.Server) (c net.Conn, err error) {
	network, addr := SplitAddr(server.Addr())
	ctx, done := boundConnect(ctx, p.connectTimeout())
	defer done(&err)
	if p.Dial != nil || p.Socket.Transparent {
		of := Client{Conn: client}
		of.Remote, _ = addrPort(client.RemoteAddr())
		of.Local, _ = addrPort(client.LocalAddr())
		ctx = dialFor(ctx, of)
	}
	if p.Dial != nil {
		c, err = p.Dial(ctx, network, addr)
		c, err = balance.Dialed("l4: Proxy.Dial", c, err)
	} else {
		c, err = p.Socket.DialContext(ctx, network, addr)
	}
	if err != nil || p.Handshake == nil {
		return c, err
	}
	return p.handshake(ctx, client, c, server)
}

func (p *Proxy) handshake(ctx context.Context, client, c net.Conn, server *balance.Server) (net.Conn, error) {
	done := false // neither by an error nor by a panic
	defer func() {
		if !done {
			c.Close()
		}
	}()
	deadline, _ := ctx.Deadline()
	c.SetDeadline(deadline)
	stop := context.AfterFunc(ctx, func() {
		guard(nil, "connection", func() { c.SetDeadline(time.Unix(1, 0)) })
	})
	ready, err := p.Handshake(ctx, client, c, server)
	stop() // it says nothing of a context that ends at this moment: its funcs run later
	if err == nil {
		err = context.Cause(ctx)
	}
	if ready, err = balance.Dialed("l4: Proxy.Handshake", ready, err); err != nil {
		return nil, err
	}
	ready.SetDeadline(time.Time{})
	done = true
	return ready, nil
}

func (p *Proxy) key(client net.Conn) uint64 {
	if p.Key != nil {
		return p.Key(client)
	}
	return balance.HashAddr(addrOf(client))
}

// addrOf returns the address of a client without its port; it is invalid for
// one that has none, as on a Unix socket.
func addrOf(c net.Conn) netip.Addr {
	if c, ok := c.(*Conn); ok {
		return c.RemoteAddrPort().Addr()
	}
	if a, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		return a.AddrPort().Addr().Unmap()
	}
	if a, err := netip.ParseAddrPort(c.RemoteAddr().String()); err == nil {
		return a.Addr().Unmap()
	}
	return netip.Addr{}
}

// serveLocally serves the client by the server's own Handler; the lease ends when the
// connection is closed.
func (s *session) serveLocally(ctx context.Context, h Handler) error {
	s.client.OnClose(func() { s.lease.Done(balance.Outcome{}) })
	return h.ServeConn(ctx, s.client)
}

// start relays until the end.
func (s *session) start(ctx context.Context) {
	s.relay.init(s.client, s.server, &s.p.relay, s.finish)
	if c := underlying(s.client); c.hold() {
		s.held = c
	}
	switch {
	case underlying(s.client) == nil: // no other code would close it
		s.stop = context.AfterFunc(ctx, func() { s.relay.cut(Termination{Killed, PhaseData}, context.Cause(ctx)) })
	case s.parker == nil && s.server.raw != nil:
		s.parker = parkerOf(s.client)
	}
	if lost := s.connecting.over(); lost != nil {
		s.relay.cut(Termination{ServerDown, PhaseData}, lost)
	}
	s.relay.run(s.parker)
}

// Cut is called by the pool when the server is to lose its connections; see
// balance.Attached.
func (s *session) Cut(live bool, reason string) {
	if !live && !s.p.CutOnDown {
		return
	}
	if err := error(&cutError{reason}); !s.connecting.cut(err) {
		s.relay.cut(Termination{ServerDown, PhaseData}, err)
	}
}

// finish is called when the relay has ended.
func (s *session) finish(*relay) {
	if s.held != nil {
		defer s.held.release() // whatever of the host's panics before
	}
	if s.stop != nil {
		s.stop()
	}
	s.lease.Server().Detach(s)
	result := s.relay.result()
	outcome := balance.Outcome{Latency: s.took, Err: result.Err}
	switch result.Termination.Cause {
	case Normal:
		outcome.Err = nil // ErrNoCloseNotify is not the server's failure: much software ends TLS so
	case ServerAborted:
		// A server may reset a connection that its client has closed instead of reading
		// the last bytes, as PostgreSQL does at the end of TLS. That is not a fault of
		// the server.
		if !s.relay.late {
			outcome.Class = balance.Reset
		}
	case ServerTimeout:
		outcome.Class = balance.Timeout
	case ClientAborted, ClientTimeout:
		outcome.Class = balance.ClientAborted
	}
	s.record.Note(func(r *Record) {
		r.ToServer, r.FromServer = result.AtoB, result.BtoA
		if first := s.relay.firstByte; first > 0 {
			r.FirstByte = reached((s.relay.start + instant(first)).time().Sub(r.Start))
		}
	})
	endConn(s.client, result.Termination, result.Err)
	defer s.client.Close() // whatever of the host's panics before
	defer s.lease.Done(outcome)
	s.server.Close()
}

// A ServerError says on which server a try has failed.
type ServerError struct {
	Server string // name
	Addr   string
	Err    error
}

func (e *ServerError) Error() string { return fmt.Sprintf("l4: server %s: %v", e.Server, e.Err) }

func (e *ServerError) Unwrap() error { return e.Err }
