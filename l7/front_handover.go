// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/penstock-lb/penstock/l4"
)

// The byte front hands an HTTP/1 connection over to the standard front when the
// handler tree ends in a leaf that is not native. By then middleware has run. So
// the standard front, which parses the same bytes again, passes its first (w, r)
// back to the byte front's goroutine, which continues where it is (a
// continuation). Only later requests run through the tree from its root.

// newStandard returns the embedded server.
func (s *Server) newStandard() *http.Server {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	return &http.Server{
		Handler: http.HandlerFunc(s.serveStandard),

		DisableGeneralOptionsHandler: true,

		Protocols:         p,
		TLSConfig:         s.TLSConfig,
		ReadHeaderTimeout: cmp.Or(orDefault(s.ReadHeaderTimeout, defaultHeaderTimeout), -1),
		IdleTimeout:       cmp.Or(orDefault(s.IdleTimeout, defaultIdleTimeout), -1),
		MaxHeaderBytes:    orDefault(s.MaxHeaderBytes, defaultMaxHeader),
		ErrorLog:          slog.NewLogLogger(s.logger().Handler(), slog.LevelDebug),
		ConnState:         s.noteState,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			if h := handedOf(c); h != nil {
				ctx = context.WithValue(h.base, http.ServerContextKey, s.std)
				ctx = context.WithValue(ctx, handedKey{}, h)
			}
			return ctx
		},
	}
}

type handedKey struct{}

// handedOf returns the outermost handed-over connection that c is or holds, or nil.
func handedOf(c net.Conn) *handedConn {
	for {
		switch w := c.(type) {
		case *handedConn:
			return w
		case *handedTLS:
			return w.handedConn
		case interface{ NetConn() net.Conn }:
			c = w.NetConn()
		default:
			return nil
		}
	}
}

// keptWith returns what is kept with the connection that c is or, through our own wrappers,
// holds: of looks through those that say what they wrap.
func keptWith[T comparable](c net.Conn, of func(net.Conn) T) (v T) {
	for c != nil {
		if found := of(c); found != v {
			return found
		}
		h := handedOf(c)
		if h == nil {
			break
		}
		c = h.Conn
	}
	return v
}

// serveStandard is the embedded server's handler. The first request of a
// connection that was handed over in the middle of an exchange goes back to
// that exchange.
func (s *Server) serveStandard(w http.ResponseWriter, r *http.Request) {
	h, ok := r.Context().Value(handedKey{}).(*handedConn)
	first := ok && h.requests.Add(1) == 1
	returned := false
	defer func() {
		if ok && !returned {
			h.cutReply(w, r)
		}
	}()
	s.sayLast(w, h)
	if ok {
		if k := h.continuation; k != nil && !h.continued {
			h.continued = true
			k.take(w, r)
			returned = true
			return
		}
	}
	x := newStandardExchange(w, r, s)
	if ok {
		x.conn, x.first = &h.clientConn, first
	}
	x.run(s.handler())
	returned = true
}

// cutReply sees to it that net/http, which closes h after a panic, sends a reset where the
// end of the connection ends the body: an incomplete reply must not look complete.
func (h *handedConn) cutReply(w http.ResponseWriter, r *http.Request) {
	if !r.ProtoAtLeast(1, 1) && w.Header().Get("Content-Length") == "" && !h.hijacked.Load() {
		_ = quietly(h.srv.logger(), func() { l4.Abort(h) })
	}
}

// A continuation is an exchange that waits for its (w, r).
type continuation struct {
	ready chan struct{} // closed when w and r are set
	done  chan any      // receives the panic of the leaf, or nil
	w     http.ResponseWriter
	r     *http.Request
}

// take passes (w, r) to the waiting exchange and waits for its end.
func (k *continuation) take(w http.ResponseWriter, r *http.Request) {
	k.w, k.r = w, r
	close(k.ready)
	if p := <-k.done; p != nil {
		panic(p) // net/http handles it
	}
}

// handOver gives a connection to the standard front. Give is the connection for
// net/http; h is the same or, under TLS, the one inside it.
func (s *Server) handOver(h *handedConn, give net.Conn) error {
	if !s.trackHanded(h, true) {
		return ErrServerClosed
	}
	h.leaveWith()
	one := &oneShot{conn: give}
	_ = s.std.Serve(one) // returns at the second Accept, when the connection has its goroutine
	if one.conn != nil { // Shutdown came first
		h.cancel()
		s.mu.Lock()
		delete(s.handed, h)
		s.both--
		s.mu.Unlock()
		h.srv = nil
		s.wg.Done()
		return ErrServerClosed
	}
	return nil
}

// trackHanded counts a connection until it is closed. With refuse it fails if all
// connections are being cut.
func (s *Server) trackHanded(h *handedConn, refuse bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if refuse && s.cutting.Load() {
		return false
	}
	if h.handover == nil {
		h.handover = new(handover)
	}
	h.srv, h.closed = s, make(chan struct{})
	h.base, h.cancel = context.WithCancel(h.base)
	s.handed[h] = struct{}{}
	s.both++
	s.wg.Add(1)
	return true
}

// oneShot is a listener of one connection.
type oneShot struct{ conn net.Conn }

func (o *oneShot) Accept() (net.Conn, error) {
	if c := o.conn; c != nil {
		o.conn = nil
		return c, nil
	}
	return nil, io.EOF
}
func (o *oneShot) Close() error   { return nil }
func (o *oneShot) Addr() net.Addr { return handedAddr{} }

type handedAddr struct{}

func (handedAddr) Network() string { return "handed" }
func (handedAddr) String() string  { return "handed" }

// handedConn is a connection that can be handed over to the standard front. From
// then on it counts until it is closed or, if a handler of net/http has hijacked
// it and MaxConns is not set, until that handler returns.
type handedConn struct {
	net.Conn
	base  context.Context // of the server, for requests
	bound writeBound
	*handover
}

// handover is what a handedConn needs once it is handed over; nil before, while it is a
// connection below TLS, of which there are many.
type handover struct {
	remote       net.Addr // nil as long as nobody has asked
	cancel       func()   // cancels base
	replay       []byte   // bytes already read from Conn
	continuation *continuation
	continued    bool
	leaving      leaving
	idle         atomic.Bool // net/http waits for a request
	hijacked     atomic.Bool // by a handler of net/http, or a tunnel
	late         atomic.Bool // it ends with this exchange, whose client may still be sending the body
	clientConn

	srv    *Server // nil if Shutdown came first
	closed chan struct{}
	once   sync.Once
}

func (h *handedConn) RemoteAddr() net.Addr {
	if h.handover == nil || h.remote == nil {
		return h.Conn.RemoteAddr()
	}
	return h.remote
}

func (h *handedConn) Read(p []byte) (int, error) {
	if h.handover != nil && len(h.replay) > 0 {
		n := copy(p, h.replay)
		if h.replay = h.replay[n:]; len(h.replay) == 0 {
			h.replay = nil
		}
		return n, nil
	}
	return h.Conn.Read(p)
}

// Write fails when the client has not accepted a byte for the limit of bound.
func (h *handedConn) Write(p []byte) (int, error) { return h.bound.write(h.Conn, p) }

// SetWriteDeadline replaces bound by a deadline.
func (h *handedConn) SetWriteDeadline(t time.Time) error { return h.bound.deadline(h.Conn, t) }

// SetDeadline sets both deadlines.
func (h *handedConn) SetDeadline(t time.Time) error {
	return errors.Join(h.SetReadDeadline(t), h.SetWriteDeadline(t))
}

// liftBounds is called when the connection becomes a tunnel.
func liftBounds(c net.Conn) {
	if l, ok := c.(*l4.Conn); ok {
		c = l.NetConn()
	}
	if h := handedOf(c); h != nil {
		h.bound.lift(h.Conn)
		liftBounds(h.Conn)
	}
}

// NetConn returns what h wraps.
func (h *handedConn) NetConn() net.Conn { return h.Conn }

func (h *handedConn) Close() error {
	if c, ok := h.Conn.(*l4.Conn); ok && h.handover != nil && h.late.Load() && !h.srv.cutting.Load() {
		waitForClose(c, &h.srv.pool)
	}
	err := h.Conn.Close()
	h.forget()
	return err
}

// bare returns the listener's connection, or the TLS connection over it, for a
// handler that has hijacked it, as net/http does. Bytes already read must fit into
// the hijacker's buffer; if they do not, the handler gets c, which has the rest.
func (h *handedConn) bare(c net.Conn) net.Conn {
	under, ok := h.Conn.(*l4.Conn)
	if !ok || len(h.replay)+len(under.Buffered()) > 0 {
		return c
	}
	return under.NetConn()
}

// tracked reports whether a server counts the connection, since trackHanded.
func (h *handedConn) tracked() bool { return h.handover != nil && h.srv != nil }

// forget removes the connection from the server's count: it is closed, or the
// handler that has hijacked it has returned.
func (h *handedConn) forget() {
	if h.tracked() {
		h.once.Do(func() {
			close(h.closed)
			h.cancel()
			h.srv.mu.Lock()
			delete(h.srv.handed, h)
			h.srv.mu.Unlock()
			h.srv.freeSlot()
			h.srv.wg.Done()
			h.mu.Lock()
			s := h.owns
			h.mu.Unlock()
			s.end()
		})
	}
}

// clientConn is what requests of a connection share on the standard front.
type clientConn struct {
	requests atomic.Int32
	kept     net.Conn // what l4 knows of the connection is found by it; nil on an attached front

	mu   sync.Mutex
	owns *session // server connections kept for the client; nil until needed

	hosts misdirected
}

// session returns the session of the client, and makes it if need is set.
func (c *clientConn) session(need bool) *session {
	c.mu.Lock()
	defer c.mu.Unlock()
	if need && c.owns == nil {
		c.owns = new(session)
	}
	return c.owns
}

// CloseWrite half-closes, for hijackers.
func (h *handedConn) CloseWrite() error {
	if cw, ok := h.Conn.(interface{ CloseWrite() error }); ok {
		return cw.CloseWrite()
	}
	return h.Close()
}

// handedTLS is a handedConn whose Conn has done a TLS handshake: having
// ConnectionState makes net/http fill in Request.TLS.
type handedTLS struct {
	*handedConn
	state tls.ConnectionState
}

func (h *handedTLS) ConnectionState() tls.ConnectionState { return h.state }

// boundHanded bounds writes; under TLS they are bounded already.
func (c *byteConn) boundHanded(h *handedConn) {
	if c.nc == c.raw {
		h.bound.whole = c.opaque
		h.bound.set(orDefault(c.srv.SendTimeout, defaultSendTimeout))
	}
}
