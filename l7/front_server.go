// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/penstock-lb/penstock/l4"
)

// A Server serves HTTP on any number of listeners. Its byte front speaks
// HTTP/1.0, HTTP/1.1 and HTTP/2, the latter over TLS and by prior knowledge, and
// runs native handlers ([Handler]) on the bytes of the connection. An embedded
// [http.Server], the standard front, takes over the connections of HTTP/1 whose
// handler turns out not to be native; over HTTP/2 such a handler gets its (w, r)
// from the byte front.
//
// Methods and field names are those of [http.Server] where the meaning is the
// same, so that changing over is a matter of one word. Unlike there, no
// timeout is unlimited unless it is negative, IdleTimeout also bounds the wait
// for the first request, Close waits for the handlers, and Shutdown for upgraded
// connections too. One that a handler of net/http has hijacked is as the listener
// gave it, and the handler's alone when that has returned; with MaxConns it is a
// wrapper, and counts for all of this until it is closed. BodyTimeout and SendTimeout
// stand in for ReadTimeout and WriteTimeout: they bound each wait for the client, not
// a message as a whole.
// ConnContext gets a connection before the TLS of ServeTLS, and Protocols has
// UnencryptedHTTP2 by default. The package comment says what stands in for the
// other fields of http.Server.
// Timeouts are coarse: they may end up to a quarter later than said, never
// earlier.
//
// A connection of HTTP/2 holds at most MaxStreams times 64 KiB and 2 MiB of request
// bodies that have been received and that no handler has read; of what is to be
// sent, 64 KiB of bodies, a head for each stream, and 1 MiB of answers to what the
// client sends; of a head that is coming, twice MaxHeaderBytes or 64 KiB; and two
// tables of 4 KiB for their compression.
//
// The fields must not change once the server serves.
type Server struct {
	Addr      string       // for ListenAndServe; empty means ":http" or ":https"
	Handler   http.Handler // nil means http.DefaultServeMux
	TLSConfig *tls.Config  // for ServeTLS

	ReadHeaderTimeout time.Duration // from the first byte of a request to the end of its head, trickling does not extend it; 0 means 10s, negative means none
	IdleTimeout       time.Duration // of a connection between requests, and before the first; 0 means 60s, negative means none
	BodyTimeout       time.Duration // of a request body without a byte; 0 means 30s, or StreamTimeout for gRPC, negative means none
	SendTimeout       time.Duration // of a reply that the client does not take a byte of; 0 means 30s, negative means none
	StreamTimeout     time.Duration // of an upgraded connection, an event stream or a gRPC call with no byte, if the Proxy does not allow less; 0 means 1h, negative means none
	HandshakeTimeout  time.Duration // of the TLS handshake; 0 means 10s, negative means none

	MaxHeaderBytes int   // of a request head; 0 means 32 KiB, negative means no limit. More is answered 431, or 414 if the request line alone is more (on the standard front always 431)
	MaxFields      int   // of a head or trailer; 0 means 128, negative means no limit. More is answered 431
	MaxBodyBytes   int64 // of a request body; 0 or negative means no limit. More is answered 413
	MaxRequests    int   // on one connection, which is closed after; 0 or negative means no limit
	MaxConns       int   // open at once, over all listeners; more wait in the kernel's backlog; 0 means 65536, negative means no limit
	MaxStreams     int   // HTTP/2 streams at once on a connection; 0 means 100
	BusyStreams    int   // HTTP/2 streams at once on all connections, from where on each is granted fewer than MaxStreams: half of them at twice as many, and at least a tenth; 0 means 10,000, negative means none: MaxStreams whatever there is

	// AnyHost takes requests for names other than the one that their connection
	// asked for (SNI), whatever certificates are asked of clients for them. By
	// default, a TLSConfig with GetConfigForClient is asked for the configuration of
	// both, and the answer is 421 if that of the request's Host has a ClientAuth and
	// the other has not, or not for the same ClientCAs: a client would get around
	// the certificate. See [Misdirected].
	AnyHost bool

	// HalfClose says that a client that closes its side of the connection
	// still wants its reply. By default that ends its exchange, as the client
	// is most likely gone.
	HalfClose bool

	// LameDuck is how long Shutdown goes on serving, new connections too, while it
	// tells clients to leave: the next reply of each connection says Connection: close,
	// and HTTP/2 gets a GOAWAY. A request that is on its way when a connection is closed
	// is lost, as no server can tell; one that comes within LameDuck is not. 0 or negative
	// means none: what is idle is closed at once, as http.Server does it.
	LameDuck time.Duration

	BaseContext func(net.Listener) context.Context // as in http.Server; nil means context.Background

	// ConnContext derives the context of a connection from that of its listener; it
	// is given what the listener gave. Nil means that it is that. If it panics, or
	// returns nil, the connection is closed. It must not block.
	ConnContext func(ctx context.Context, c net.Conn) context.Context

	// Protocols are those spoken with clients; nil means HTTP/1 and HTTP/2, the latter
	// by prior knowledge as well (UnencryptedHTTP2). A connection that speaks none of
	// them is closed.
	Protocols *http.Protocols

	OnDone func(*Record) // called at the end of each exchange; must not block or keep the record
	Logger *slog.Logger  // nil means slog.Default()

	// OnAbuse, if not nil, is called when a connection of HTTP/2 was closed by
	// ENHANCE_YOUR_CALM: its client did too much of what only makes work, such as to
	// reset streams, or CONTINUATION, SETTINGS, PING, empty DATA and windows opened by
	// the byte, to send fields without end, or not to read what it asked for. Err says
	// what of. It must not block. See the example for how to keep the client out.
	OnAbuse func(client netip.AddrPort, err error)

	once   sync.Once
	std    *http.Server
	handed map[*handedConn]struct{} // connections of the standard front, guarded by mu
	both   int                      // of conns, those that are in handed too, or have been; guarded by mu
	buffers
	works   sync.Pool // of *work
	streams sync.Pool // of *h2Exchange
	parking parking
	sweeper sweeper
	late    latecomers

	mu           sync.Mutex
	listeners    map[*closedOnce]struct{}
	conns        map[*byteConn]struct{}
	stopping     atomic.Bool
	onShutdown   []func()
	slots        chan struct{} // one in it for each open connection; nil means no limit
	noKeepAlives atomic.Bool
	lame         atomic.Bool   // Shutdown has begun
	cutting      atomic.Bool   // Shutdown is out of patience, or Close was called
	done         chan struct{} // closed when stopping
	wg           sync.WaitGroup
	warned       sync.Map // handler types whose loss of the byte front has been logged
	totals       totals
	serving      atomic.Int64 // streams of HTTP/2
}

// ErrServerClosed is what Serve and its relatives return after Shutdown or
// Close. It is [http.ErrServerClosed].
var ErrServerClosed = http.ErrServerClosed

func (s *Server) init() {
	s.once.Do(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.listeners = make(map[*closedOnce]struct{})
		s.conns = make(map[*byteConn]struct{})
		s.handed = make(map[*handedConn]struct{})
		s.done = make(chan struct{})
		s.setSizes()
		s.sweeper.start = time.Now()
		if n := orDefault(s.MaxConns, defaultMaxConns); n > 0 {
			s.slots = make(chan struct{}, n)
		}
		s.std = s.newStandard()
	})
}

func (s *Server) logger() *slog.Logger {
	if s.Logger != nil {
		return s.Logger
	}
	return slog.Default()
}

func (s *Server) handler() http.Handler {
	if s.Handler == nil {
		return http.DefaultServeMux
	}
	return s.Handler
}

// ListenAndServe listens on Addr and serves HTTP there. As HTTP clients
// speak first, accepting a connection is deferred until there is something to
// read, but not for long: see [l4.ListenConfig.DeferAccept], which is a second.
// Serve takes any other listener.
func (s *Server) ListenAndServe() error {
	ln, err := s.listen(":http")
	if err != nil {
		return err
	}
	return s.Serve(ln)
}

// ListenAndServeTLS listens on Addr and serves HTTPS there. The files may be
// empty if TLSConfig has certificates.
func (s *Server) ListenAndServeTLS(certFile, keyFile string) error {
	ln, err := s.listen(":https")
	if err != nil {
		return err
	}
	return s.ServeTLS(ln, certFile, keyFile)
}

func (s *Server) listen(def string) (net.Listener, error) {
	if s.stopping.Load() {
		return nil, ErrServerClosed
	}
	addr := s.Addr
	if addr == "" {
		addr = def
	}
	lc := l4.ListenConfig{DeferAccept: time.Second}
	return lc.Listen(bg, "tcp", addr)
}

// Serve accepts connections on ln until Shutdown or Close, then returns
// [ErrServerClosed]. It closes ln. It may be called for several listeners. What
// [Server.Check] finds it returns before it accepts anything.
func (s *Server) Serve(ln net.Listener) error {
	return s.serve(ln, nil)
}

// ServeTLS is Serve over TLS: HTTP/2 where the client agrees, else HTTP/1.
// The files may be empty if TLSConfig has certificates.
func (s *Server) ServeTLS(ln net.Listener, certFile, keyFile string) error {
	var cfg *tls.Config
	if s.TLSConfig != nil {
		cfg = s.TLSConfig.Clone()
	} else {
		cfg = new(tls.Config)
	}
	if len(cfg.NextProtos) == 0 {
		cfg.NextProtos = s.nextProtos()
	}
	if certFile != "" || keyFile != "" {
		cert, err := tls.LoadX509KeyPair(certFile, keyFile)
		if err != nil {
			_ = ln.Close()
			return err
		}
		cfg.Certificates = append(cfg.Certificates, cert)
	}
	if len(cfg.Certificates) == 0 && cfg.GetCertificate == nil && cfg.GetConfigForClient == nil {
		_ = ln.Close()
		return errors.New("l7: ServeTLS: TLSConfig has no certificate")
	}
	return s.serve(ln, cfg)
}

func (s *Server) serve(given net.Listener, cfg *tls.Config) error {
	s.init()
	ln := &closedOnce{Listener: given}
	defer ln.Close()
	if err := s.Check(); err != nil {
		return err
	}
	if !s.track(ln) {
		return ErrServerClosed
	}
	defer s.untrack(ln)
	base := bg
	if s.BaseContext != nil {
		base = s.BaseContext(given)
	}
	var pause time.Duration
	for s.slot() {
		nc, err := ln.Accept()
		if err != nil {
			s.freeSlot()
			if s.stopping.Load() {
				return ErrServerClosed
			}
			var again bool
			if pause, again = l4.AcceptPause(err, pause); !again {
				return err
			}
			s.totals.acceptErrors.Add(1)
			s.logger().Error("l7: accept failed, retrying", "error", err, "after", pause)
			select {
			case <-time.After(pause):
			case <-s.done:
			}
			continue
		}
		pause = 0
		s.totals.accepted.Add(1)
		s.start(base, nc, cfg)
	}
	return ErrServerClosed
}

// start gives a new connection its goroutine.
func (s *Server) start(base context.Context, nc net.Conn, cfg *tls.Config) {
	base, ok := s.connContext(base, nc)
	s.mu.Lock()
	if !ok || s.stopping.Load() {
		s.mu.Unlock()
		_ = quietly(s.logger(), func() { _ = nc.Close() })
		s.freeSlot()
		return
	}
	defer s.mu.Unlock()
	c := &byteConn{srv: s, base: base, raw: nc, nc: nc}
	c.ctx, c.cancel = context.WithCancel(ownContext{base, c})
	s.conns[c] = struct{}{}
	s.wg.Add(1) // until the connection ends, with or without a goroutine
	go c.start(cfg)
}

func (s *Server) track(ln *closedOnce) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping.Load() {
		return false
	}
	s.listeners[ln] = struct{}{}
	return true
}

func (s *Server) untrack(ln *closedOnce) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, ln)
}

// forget takes a connection off the list: it is closed, or the standard
// front's.
func (s *Server) forget(c *byteConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	if c.moved {
		s.both--
	} else {
		s.freeSlot()
	}
}

// stop makes all Serve calls return and closes what is idle.
func (s *Server) stop() []*byteConn {
	s.init()
	s.mu.Lock()
	if !s.stopping.Swap(true) {
		close(s.done)
	}
	listeners := slices.Collect(maps.Keys(s.listeners))
	conns := slices.Collect(maps.Keys(s.conns))
	s.mu.Unlock()
	for _, ln := range listeners { // the host's: without the lock
		_ = ln.Close()
	}
	return conns
}

// Shutdown goes on for LameDuck, if that is set, stops accepting, closes idle connections, tells the clients of the
// others that their connection ends with the reply under way (Connection:
// close, GOAWAY), and waits for these. When ctx ends it cuts what is left and
// returns ctx's error. Upgraded connections count: they are waited for, too.
//
// Connections that an [l4.Server] has accepted, and an [l4.Listener] has passed on,
// leave in the same way when that server shuts down. Which of the two is shut down
// first does not matter.
func (s *Server) Shutdown(ctx context.Context) error {
	s.tellShutdown()
	s.lameDuck(ctx)
	for _, c := range s.stop() {
		c.interruptIdle()
		c.tell()
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = s.std.Shutdown(ctx)
		s.wg.Wait()
	}()
	var err error
	select {
	case <-ended:
	case <-ctx.Done():
		select {
		case <-ended: // both: all has ended in time
		default:
			err = ctx.Err()
			s.cut()
			<-ended
		}
	}
	s.parking.close()
	return err
}

// Close cuts all connections at once and waits for their goroutines.
func (s *Server) Close() error {
	s.stop()
	s.cut()
	s.wg.Wait()
	s.parking.close()
	return nil
}

// cut closes every connection.
func (s *Server) cut() {
	s.cutting.Store(true)
	for _, c := range s.stop() {
		c.cut()
	}
	_ = s.std.Close()
	s.mu.Lock()
	handed := slices.Collect(maps.Keys(s.handed)) // hijacked ones among them
	s.mu.Unlock()
	for _, c := range handed {
		_ = quietly(s.logger(), func() { _ = c.Close() })
		c.cancel() // a relay that has the connection by its descriptor does not see it closed
	}
}

// Check returns what is wrong with s and its tree of handlers, each mistake a
// [*penstock.ConfigError] whose Field is the path to it:
// Server.Handler.Router.Routes[2].Handler.Proxy.Pool. Serve and its relatives
// call it. A handler or matcher of a host's own takes part if it has a Check.
func (s *Server) Check() error { return checkAll(s) }

func (s *Server) check(c *checks) {
	c.optional("Server.Handler", s.handler())
	s.checkMembers(c)
	c.If(s.MaxStreams < 0, "Server.MaxStreams", s.MaxStreams, notNegative)
}
