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
// [http.Server], the standard front, takes over a connection of HTTP/1 if a handler
// that is not native gets a request whose body is still to come, or one that asks for an
// upgrade or waits for a 100 (Continue). Otherwise, and over HTTP/2, such a handler gets
// its (w, r) from the byte front.
//
// Methods and fields have the names of those of [http.Server] where the meaning is
// the same, so changing from one to the other is one word. The differences: no
// timeout is unlimited unless it is negative; IdleTimeout also bounds the wait for
// the first request; Close waits for the handlers; Shutdown also waits for upgraded
// connections, and cuts what is left when its context ends. A connection hijacked by a
// handler of net/http is the listener's own, and belongs to the handler alone once that has
// returned; with MaxConns it is a wrapper, and counts as open until it is closed. BodyTimeout and SendTimeout replace
// ReadTimeout and WriteTimeout: they bound each wait for the client, not a whole
// message. ConnContext gets a connection before the TLS of ServeTLS, and Protocols
// includes UnencryptedHTTP2 by default. The package comment maps the other fields of
// http.Server. Timeouts are coarse: each may take up to a half longer than
// set, most often a quarter, and never less.
//
// An HTTP/2 connection buffers at most: MaxStreams times 64 KiB plus 2 MiB of
// request bodies that no handler has read yet; 64 KiB of reply bodies, a head for
// each stream, and 1 MiB of responses to control frames; twice MaxHeaderBytes or 64
// KiB of an incomplete head; and two compression tables of 4 KiB.
//
// TLS handshakes wait until what is ready on open connections is done, on Linux, so that
// no crowd of new clients holds those up; those of a [tls.NewListener] do not.
//
// The fields must not change once the server serves.
type Server struct {
	Addr      string       // for ListenAndServe; empty means ":http" or ":https"
	Handler   http.Handler // nil means http.DefaultServeMux
	TLSConfig *tls.Config  // for ServeTLS

	ReadHeaderTimeout time.Duration // from the first byte of a request to the end of its head, however slowly the bytes come; 0 means 10s, negative means none
	IdleTimeout       time.Duration // of a connection between requests, and before the first; 0 means 60s, negative means none
	BodyTimeout       time.Duration // of each wait for a byte of a request body; 0 means 30s, or StreamTimeout for gRPC if that is longer, negative means none
	SendTimeout       time.Duration // of each wait for the client to accept a byte of a reply; 0 means 30s, negative means none
	StreamTimeout     time.Duration // of an upgraded connection, an event stream or a gRPC call without a byte, unless the Proxy's is shorter; 0 means 1h, negative means none
	HandshakeTimeout  time.Duration // of the TLS handshake; 0 means 10s, negative means none

	MaxHeaderBytes int   // of a request head; 0 means 32 KiB, negative means no limit. More is answered 431, or 414 if the request line alone is more (on the standard front always 431)
	MaxFields      int   // of a head or trailer; 0 means 128, negative means no limit. More is answered 431
	MaxBodyBytes   int64 // of a request body; 0 or negative means no limit. More is answered 413
	MaxRequests    int   // on one connection, which is closed after; 0 or negative means no limit
	MaxConns       int   // open at once, over all listeners; more wait in the kernel's backlog; 0 means 65536, negative means no limit
	MaxStreams     int   // HTTP/2 streams at once on a connection; 0 means 100
	BusyStreams    int   // HTTP/2 streams at once on all connections, above which each connection is granted fewer than MaxStreams: half at twice as many, and at least a tenth; 0 means 10,000, negative means none: MaxStreams whatever there is

	// AnyHost accepts requests for names other than the one that their connection
	// asked for (SNI), even if those names require other client certificates. By
	// default, if TLSConfig has GetConfigForClient, it is called for both names, and
	// the reply is 421 if the configuration for the request's Host has a ClientAuth
	// and the other has none, or has other ClientCAs: otherwise a client could avoid
	// the certificate. See [Misdirected].
	AnyHost bool

	// HalfClose says that a client that closes its side of the connection still
	// gets its reply. By default that ends its exchange, since the client has most
	// likely disconnected.
	HalfClose bool

	// LameDuck is how long Shutdown keeps serving, new connections included, while it
	// tells clients to leave: the next reply of each connection has Connection: close, and
	// HTTP/2 gets a GOAWAY. A request in flight when its connection is closed is lost; one
	// that arrives within LameDuck is served. 0 or negative means none: idle connections
	// are closed at once, as http.Server does.
	LameDuck time.Duration

	BaseContext func(net.Listener) context.Context // as in http.Server; nil means context.Background

	// ConnContext derives the context of a connection from that of its listener; it
	// is called with the listener's connection. Nil means the context of the
	// listener. If it panics, or returns nil, the connection is closed. It must not
	// block.
	ConnContext func(ctx context.Context, c net.Conn) context.Context

	// Protocols are the protocols for clients; nil means HTTP/1 and HTTP/2, also by
	// prior knowledge (UnencryptedHTTP2). A connection that uses none of them is
	// closed; so is one that may begin with HTTP/2 and whose first line names no version
	// of any protocol, since that is an invalid preface (RFC 9113, section 3.4).
	Protocols *http.Protocols

	// JA4 makes the fingerprint of each client's TLS, for [Exchange.JA4], Record.JA4 and
	// the matcher [JA4]. It is for ServeTLS; TLS that an [l4.TerminateTLS] has ended
	// before has one if that was told so.
	JA4 bool

	OnDone func(*Record) // called at the end of each exchange; must not block or keep the record
	Logger *slog.Logger  // nil means slog.Default()

	// OnAbuse, if not nil, is called when an HTTP/2 connection was closed with
	// ENHANCE_YOUR_CALM: its client caused too much needless work, by stream resets,
	// streams above MaxStreams, CONTINUATION, SETTINGS, PING, GOAWAY, PRIORITY, unknown
	// frames, empty DATA, tiny window updates, or endless fields, or did not read the
	// answers to its frames. Err says which. A client that is only slow is not told of. It
	// must not block. The example shows how to ban the client.
	OnAbuse func(client netip.AddrPort, err error)

	// OnHandshakeError, if not nil, is called when the TLS handshake of ServeTLS with a
	// client has failed, of which there is no Record. [l4.ClientCertErrorOf] finds in err
	// which certificate of the client has, and why. It must not block.
	OnHandshakeError func(client netip.AddrPort, err error)

	once   sync.Once
	std    *http.Server
	handed map[*handedConn]struct{} // connections of the standard front; guarded by mu
	both   int                      // how many of conns are, or were, in handed too; guarded by mu
	buffers
	works   sync.Pool // of *work
	streams sync.Pool // of *h2Exchange
	parking parking
	sweeper sweeper
	late    latecomers

	mu           sync.Mutex
	listeners    map[*closedOnce]struct{} // of the Serve methods that have not returned
	unheard      chan struct{}            // closed when there is no listener any more; nil if nobody waits for that
	sealed       bool                     // Shutdown takes no more connections; guarded by mu
	conns        byteConns
	stopping     atomic.Bool
	onShutdown   []func()
	slots        chan struct{} // holds one element for each open connection; nil means no limit
	noKeepAlives atomic.Bool
	lame         atomic.Bool   // Shutdown has begun
	cutting      atomic.Bool   // the context of Shutdown has ended, or Close was called
	done         chan struct{} // closed when stopping
	wg           sync.WaitGroup
	warned       sync.Map               // of foreignType: what warnForeign has logged
	attached     []*Attachment          // guarded by mu
	altSvc       atomic.Pointer[altSvc] // what they announce; nil if nothing
	outside      atomic.Int64           // open connections of attached fronts
	totals       totals
	serving      atomic.Int64 // HTTP/2 streams being served
}

// ErrServerClosed is returned by the Serve methods after Shutdown or Close. It
// is [http.ErrServerClosed].
var ErrServerClosed = http.ErrServerClosed

func (s *Server) init() {
	s.once.Do(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.listeners = make(map[*closedOnce]struct{})
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

// ListenAndServe listens on Addr and serves HTTP there. Since HTTP clients send
// first, the kernel defers accepting a connection until there is something to
// read, for a second at most ([l4.ListenConfig.DeferAccept]). Serve takes any
// other listener.
func (s *Server) ListenAndServe() error {
	ln, err := s.listen(":http")
	if err != nil {
		return err
	}
	return s.Serve(ln)
}

// ListenAndServeTLS listens on Addr and serves HTTPS there. The files may be
// empty if TLSConfig has Certificates, GetCertificate or GetConfigForClient.
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
// [ErrServerClosed]. It closes ln. It may be called for several listeners. If
// [Server.Check] fails, Serve returns its error before it accepts a connection.
func (s *Server) Serve(ln net.Listener) error {
	return s.serve(ln, nil)
}

// ServeTLS is Serve over TLS: HTTP/2 where the client agrees, else HTTP/1.
// The files may be empty if TLSConfig has Certificates, GetCertificate or GetConfigForClient.
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
		return errors.New("l7: ServeTLS: TLSConfig has no certificate: set its Certificates or GetCertificate, or name the files")
	}
	if s.JA4 {
		cfg.GetConfigForClient = keepJA4(cfg.GetConfigForClient)
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
	var said string // of Accept, and when: it may fail often
	var at time.Time
	var batch l4.Batch
	defer batch.Close()
	for s.slot() {
		nc, err := s.accept(ln)
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
			if now := time.Now(); err.Error() != said || now.Sub(at) >= time.Minute {
				said, at = err.Error(), now
				s.logger().Error("l7: accept failed, retrying", "error", err, "after", pause)
			}
			select {
			case <-time.After(pause):
			case <-s.done:
			}
			continue
		}
		pause = 0
		s.totals.accepted.Add(1)
		s.start(base, nc, cfg)
		batch.Add(nc)
	}
	return ErrServerClosed
}

// accept is ln.Accept. A panic of it, which may be the host's, and no connection at all
// are errors that may pass.
func (s *Server) accept(ln net.Listener) (nc net.Conn, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &acceptError{recovered(s.logger(), p, "Accept")}
		}
	}()
	if nc, err = ln.Accept(); nc == nil && err == nil {
		panic("no connection and no error")
	}
	return nc, err
}

// An acceptError makes a server go on, since the next connection may succeed.
type acceptError struct{ error }

func (*acceptError) Timeout() bool   { return false }
func (*acceptError) Temporary() bool { return true }

// start gives a new connection its goroutine.
func (s *Server) start(base context.Context, nc net.Conn, cfg *tls.Config) {
	base, ok := s.connContext(base, nc)
	s.mu.Lock()
	if !ok || s.sealed || s.cutting.Load() {
		s.mu.Unlock()
		_ = quietly(s.logger(), func() { _ = nc.Close() })
		s.freeSlot()
		return
	}
	defer s.mu.Unlock()
	c := &byteConn{srv: s, base: base, raw: nc, nc: nc}
	c.ctx, c.cancel = context.WithCancel((*ownContext)(c))
	s.conns.add(c)
	s.wg.Add(1)            // until the connection ends, with or without a goroutine
	if s.stopping.Load() { // Shutdown has not seen it
		c.drainIdle()
	}
	go c.start(cfg)
}

// seal waits until no Serve may still have a connection that it has just accepted, a
// moment at most: a listener need not end its Accept when it is closed.
func (s *Server) seal(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.listeners) > 0 {
		if s.unheard == nil {
			s.unheard = make(chan struct{})
		}
		none := s.unheard
		s.mu.Unlock()
		t := time.NewTimer(firstRequestTime)
		select {
		case <-none:
		case <-t.C:
		case <-ctx.Done():
		}
		t.Stop()
		s.mu.Lock()
	}
	s.sealed = true
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
	if len(s.listeners) == 0 && s.unheard != nil {
		close(s.unheard)
		s.unheard = nil
	}
}

// forget removes a connection from the list: it is closed, or has moved to the
// standard front.
func (s *Server) forget(c *byteConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns.remove(c)
	if c.moved {
		s.both--
	} else {
		s.freeSlot()
	}
}

// stop makes all Serve calls return and closes idle connections.
func (s *Server) stop() []*byteConn {
	s.init()
	s.mu.Lock()
	if !s.stopping.Swap(true) {
		close(s.done)
	}
	listeners := slices.Collect(maps.Keys(s.listeners))
	conns := slices.Collect(s.conns.all())
	s.mu.Unlock()
	for _, ln := range listeners { // they are the host's code: not under the lock
		_ = ln.Close()
	}
	return conns
}

// Shutdown first keeps serving for LameDuck, if that is set. Then it stops accepting, closes idle
// connections, gives those that have not sent a request yet a second to do so, tells the clients
// of the others that their connection ends after the current reply (Connection: close, GOAWAY), and
// waits for these, including upgraded connections. When ctx ends, it cuts the remaining connections
// and returns ctx's error: once their handlers have returned, or a quarter of a second later if
// one goes on although the context of its request has ended.
//
// Connections that an [l4.Server] has accepted, and an [l4.Listener] has passed on,
// are drained in the same way when that server shuts down. The two may be shut down
// in either order.
func (s *Server) Shutdown(ctx context.Context) error {
	s.tellShutdown()
	wait := s.shutdownAttached(ctx)
	s.lameDuck(ctx)
	for _, c := range s.stop() {
		c.drainIdle()
		c.tell()
	}
	ended := make(chan struct{})
	var late error // of attached fronts
	go func() {
		defer close(ended)
		s.std.SetKeepAlivesEnabled(false) // it may get connections yet, with their last request
		s.seal(ctx)
		s.wg.Wait()
		_ = s.std.Shutdown(ctx)
		late = wait()
		s.parking.close()
	}()
	select {
	case <-ended:
		return late
	case <-ctx.Done():
	}
	select {
	case <-ended: // both have ended: it was in time
		return late
	default:
	}
	s.cut()
	patience := time.NewTimer(shutdownPatience)
	defer patience.Stop()
	select {
	case <-ended:
	case <-patience.C:
	}
	return ctx.Err()
}

// shutdownPatience is how long Shutdown waits for the handlers of connections that it has
// cut, so that their records are told before a program ends.
const shutdownPatience = time.Second / 4

// Close cuts all connections at once and waits for their goroutines. Those that are in use
// are reset where that is possible, so that no client takes a part for the whole.
func (s *Server) Close() error {
	s.stop()
	s.cut()
	err := s.eachFront(s.attachedFronts(), AttachedFront.Close)
	s.wg.Wait()
	s.parking.close()
	return err
}

// cut closes every connection.
func (s *Server) cut() {
	s.cutting.Store(true)
	for _, c := range s.stop() {
		c.cut()
	}
	for _, c := range s.allHanded() {
		if !c.idle.Load() {
			_ = quietly(s.logger(), func() { l4.Abort(c) })
		}
	}
	_ = s.std.Close()
	for _, c := range s.allHanded() { // hijacked ones
		_ = quietly(s.logger(), func() { _ = c.Close() })
		c.cancel() // a relay that uses the file descriptor does not notice the close
	}
}

// allHanded returns the connections of the standard front.
func (s *Server) allHanded() []*handedConn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.handed))
}

// Check returns what is wrong with s and its tree of handlers, each mistake a
// [*penstock.ConfigError] whose Field is the path to it:
// Server.Handler.Router.Routes[2].Handler.Proxy.Pool. The Serve methods call
// it. A handler or matcher of the host's is checked too if it has a Check. The handlers
// in an [http.ServeMux] are not found: it does not list them. Call the Check of each that
// you register there; otherwise one that is wrong answers its requests with 500.
func (s *Server) Check() error { return checkAll(s) }

func (s *Server) check(c *checks) {
	c.optional("Server.Handler", s.handler())
	s.checkMembers(c)
	c.If(s.MaxStreams < 0, "Server.MaxStreams", s.MaxStreams, notNegative)
}
