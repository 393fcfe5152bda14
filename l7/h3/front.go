// SPDX-License-Identifier: Apache-2.0

package h3

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/penstock-lb/penstock"
	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l7"
)

// A Front serves HTTP/3 for an [l7.Server]: with its Handler, TLSConfig, limits, timeouts,
// hooks and figures. Its Shutdown and Close include the Front, and while the Front serves
// the replies that the Server sends over TLS have an Alt-Svc, by which browsers learn of
// it.
//
//   - ReadHeaderTimeout, IdleTimeout, BodyTimeout, SendTimeout, StreamTimeout,
//     HandshakeTimeout and LameDuck, MaxHeaderBytes, MaxFields, MaxBodyBytes, MaxRequests
//     and MaxStreams apply as on the other fronts. A client above MaxConns is refused, not
//     kept waiting. A client that is silent for 30s is gone: it is sent a PING before.
//   - OnDone gets the record of each request, with [l7.FrontHTTP3]; OnAbuse is called when
//     a connection was closed with H3_EXCESSIVE_LOAD.
//   - BaseContext, ConnContext, Protocols, BusyStreams, HalfClose and SetKeepAlivesEnabled
//     are for TCP, and have no effect here.
//
// A request that is malformed by RFC 9114 is reset with H3_MESSAGE_ERROR, and recorded as
// 400. An exchange that is dropped, or cut because a server or a handler failed, is reset
// with H3_INTERNAL_ERROR; one that its client has ended with H3_REQUEST_CANCELLED. A
// request that comes after the GOAWAY of a connection is rejected (H3_REQUEST_REJECTED):
// it has had no effect, and the client may repeat it elsewhere.
//
// A connection holds at most 1 MiB of a request body that no handler has read yet, and 2
// MiB of all of them; for replies, what the client has not acknowledged, which the
// congestion control of quic-go limits to 10,000 packets. A stream that its client resets
// counts for MaxStreams until its handler has returned.
//
// The fields must not change once the Front serves.
type Front struct {
	Server *l7.Server
	Addr   string // for ListenAndServeTLS; empty means Server.Addr, and ":https" if that is empty

	// AltSvc is the value of Alt-Svc; empty means h3 on the port of the connection, for a
	// day: h3=":443"; ma=86400. A host whose clients see another port says that here.
	AltSvc string

	// Early reports whether a request may be served before its connection's handshake has
	// completed (0-RTT). Somebody who has recorded it can repeat it until then, so it must
	// not matter how often it is served; [Safe] is a beginning. Servers get it with
	// Early-Data: 1 (RFC 8470) and must know what that means. Other requests are answered
	// 425, which has their client send them again after the handshake. Nil means none, and
	// that clients are not offered 0-RTT. It must not block.
	Early func(r *http.Request) bool

	// RetryAbove is the number of handshakes in progress above which a new client has to
	// show that it receives at its address (Retry, RFC 9000, section 8.1.2), which takes a
	// round trip; 0 means 256, negative means none: no client has to.
	RetryAbove int

	// Configure, if not nil, may change how QUIC is spoken before the Front listens: keys
	// for tokens and stateless resets that several gateways share, connection IDs, windows,
	// tracing.
	Configure func(*quic.Transport, *quic.Config)

	once    sync.Once
	attach  *l7.Attachment
	failed  error // of Attach
	limits  l7.FrontLimits
	inputs  sync.Pool // of *[]byte
	outputs sync.Pool // of *[]byte
	dated   atomic.Pointer[dated]
	figures

	mu        sync.Mutex
	listeners map[*listener]struct{}
	conns     map[*conn]struct{}
	warned    bool          // of conns
	stopping  bool          // Shutdown has begun, or Close
	cut       bool          // Close, or the end of Shutdown's context
	closed    chan struct{} // closed by Close
	running   sync.WaitGroup
}

const (
	defaultRetryAbove = 256
	silence           = 30 * time.Second // after which a client is gone
	pinging           = 15 * time.Second

	streamWindow = 64 << 10 // bytes at first
	streamMost   = 1 << 20
	connWindow   = 256 << 10
	connMost     = 2 << 20
	uniStreams   = 16 // of one client at once: three that HTTP/3 needs, and some to skip
)

// A listener is a Serve call.
type listener struct {
	tr  *quic.Transport
	ln  *quic.EarlyListener
	pc  net.PacketConn
	end sync.Once
}

// Check returns what is wrong with f, each mistake a [*penstock.ConfigError].
func (f *Front) Check() error {
	var m penstock.Mistakes
	m.Need("Front.Server", f.Server, "must be the Server whose handlers it serves")
	m.In("Front", f.Server)
	return m.Err()
}

// init attaches the Front to its Server.
func (f *Front) init() error {
	f.once.Do(func() {
		f.inputs.New = func() any { b := make([]byte, inputSize); return &b }
		f.outputs.New = func() any { b := make([]byte, 0, 2*heldBack); return &b }
		f.mu.Lock()
		f.listeners, f.conns = make(map[*listener]struct{}), make(map[*conn]struct{})
		f.closed = make(chan struct{})
		f.mu.Unlock()
		if f.failed = f.Check(); f.failed != nil {
			return
		}
		if f.attach, f.failed = f.Server.Attach(f); f.failed == nil {
			f.limits = f.attach.Limits()
		}
	})
	return f.failed
}

// ListenAndServeTLS listens on Addr, by UDP, and serves HTTP/3 there. The files may be
// empty if Server.TLSConfig has certificates.
func (f *Front) ListenAndServeTLS(certFile, keyFile string) error {
	if err := f.Check(); err != nil {
		return err
	}
	pc, err := net.ListenPacket("udp", cmp.Or(f.Addr, f.Server.Addr, ":https"))
	if err != nil {
		return err
	}
	return f.ServeTLS(pc, certFile, keyFile)
}

// ServeTLS serves HTTP/3 on pc until Shutdown or Close, of the Front or of its Server, and
// then returns [l7.ErrServerClosed]. It closes pc, once the last connection has ended. It
// may be called for several sockets. It is best given a [*net.UDPConn]. The files may be
// empty if Server.TLSConfig has certificates.
func (f *Front) ServeTLS(pc net.PacketConn, certFile, keyFile string) error {
	l, err := f.listen(pc, certFile, keyFile)
	if err != nil {
		_ = pc.Close()
		return err
	}
	for {
		qc, err := l.ln.Accept(context.Background())
		if err == nil {
			f.start(qc)
			continue
		}
		f.mu.Lock()
		stopping := f.stopping
		f.mu.Unlock()
		if stopping {
			return l7.ErrServerClosed
		}
		f.forget(l)
		return err
	}
}

// listen begins to receive on pc.
func (f *Front) listen(pc net.PacketConn, certFile, keyFile string) (*listener, error) {
	if err := f.init(); err != nil {
		return nil, err
	}
	cfg, err := tlsConfig(f.Server.TLSConfig, certFile, keyFile)
	if err != nil {
		return nil, err
	}
	l := &listener{pc: pc, tr: &quic.Transport{Conn: pc, VerifySourceAddress: f.mustRetry, ConnContext: f.admit}}
	qcfg := f.quicConfig()
	if f.Configure != nil {
		f.Configure(l.tr, qcfg)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.stopping {
		return nil, l7.ErrServerClosed
	}
	if l.ln, err = l.tr.ListenEarly(cfg, qcfg); err != nil {
		return nil, err
	}
	f.listeners[l] = struct{}{}
	f.announce()
	return l, nil
}

func (f *Front) quicConfig() *quic.Config {
	idle := silence
	return &quic.Config{
		HandshakeIdleTimeout:           f.limits.HandshakeTimeout / 2, // quic-go ends a handshake after twice as long
		MaxIdleTimeout:                 idle,
		KeepAlivePeriod:                pinging,
		InitialStreamReceiveWindow:     streamWindow,
		MaxStreamReceiveWindow:         streamMost,
		InitialConnectionReceiveWindow: connWindow,
		MaxConnectionReceiveWindow:     connMost,
		MaxIncomingStreams:             int64(f.limits.MaxStreams),
		MaxIncomingUniStreams:          uniStreams,
		RequireStreamCreditRelease:     true,
		Allow0RTT:                      f.Early != nil,
	}
}

// tlsConfig returns the configuration for QUIC.
func tlsConfig(given *tls.Config, certFile, keyFile string) (*tls.Config, error) {
	if given == nil {
		given = new(tls.Config)
	}
	cfg := forHTTP3(given)
	if certFile != "" || keyFile != "" {
		cert, err := tls.LoadX509KeyPair(certFile, keyFile)
		if err != nil {
			return nil, err
		}
		cfg.Certificates = append(slices.Clip(cfg.Certificates), cert)
	}
	if len(cfg.Certificates) == 0 && given.GetCertificate == nil && given.GetConfigForClient == nil {
		return nil, errors.New("h3: ServeTLS: Server.TLSConfig has no certificate: set its Certificates or GetCertificate, or name the files")
	}
	return cfg, nil
}

// forHTTP3 returns a copy of cfg for clients of HTTP/3, whose handshakes take turns once they
// have read the ClientHello. The session tickets of both are the same.
func forHTTP3(cfg *tls.Config) *tls.Config {
	_, _ = cfg.DecryptTicket(nil, tls.ConnectionState{}) // makes the keys, which Clone then copies (golang/go#60506)
	c := cfg.Clone()
	c.NextProtos = []string{"h3"}
	choose := c.GetConfigForClient
	c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		l4.TakeTurn()
		if choose == nil {
			return nil, nil
		}
		chosen, err := choose(hello)
		if chosen == nil || err != nil {
			return nil, err
		}
		return forHTTP3(chosen), nil
	}
	return c
}

// announce has the Server announce the sockets. F.mu is held.
func (f *Front) announce() {
	if f.stopping || len(f.listeners) == 0 {
		f.attach.Announce("")
		return
	}
	if f.AltSvc != "" {
		f.attach.Announce(f.AltSvc)
		return
	}
	var ports []string
	for l := range f.listeners {
		if _, port, err := net.SplitHostPort(l.ln.Addr().String()); err == nil {
			ports = append(ports, port)
		}
	}
	slices.Sort(ports)
	var value string
	for i, port := range slices.Compact(ports) {
		if i > 0 {
			value += ", "
		}
		value += fmt.Sprintf("h3=\":%s\"; ma=86400", port)
	}
	f.attach.Announce(value)
}

// start serves a connection.
func (f *Front) start(qc *quic.Conn) {
	seat, ok := qc.Context().Value(seatKey{}).(*place)
	c := &conn{f: f, qc: qc, local: qc.LocalAddr()}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !ok || f.stopping {
		c.close(codeNoError, "")
		return
	}
	c.seat = seat.FrontConn
	seat.served.Store(true)
	f.conns[c] = struct{}{}
	if f.warned {
		c.warned = true
	}
	f.running.Go(func() {
		c.run()
		f.mu.Lock()
		delete(f.conns, c)
		f.mu.Unlock()
		seat.End()
	})
}

// Shutdown first stops the announcement and keeps serving for Server.LameDuck, while the
// clients are told to leave (a GOAWAY that refuses nothing). Then it accepts no connection,
// tells the clients by another GOAWAY which requests it still serves, and waits for these.
// A connection is closed when its last request has been served, up to a second later, so
// that the reply arrives. When ctx ends, Shutdown cuts what is left and returns ctx's
// error. The Shutdown of the Server calls it.
func (f *Front) Shutdown(ctx context.Context) error {
	if f.init() != nil {
		return nil
	}
	defer f.attach.Detach()
	f.attach.Announce("")
	if d := f.limits.LameDuck; d > 0 {
		f.each(func() { f.warned = true }, (*conn).warn)
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
		case <-f.closed:
		case <-ctx.Done():
		}
	}
	f.stop()
	f.each(nil, (*conn).drain)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		f.running.Wait()
	}()
	var err error
	select {
	case <-ended:
	case <-ctx.Done():
		err = ctx.Err()
		f.cutAll()
		<-ended
	}
	f.release()
	return err
}

// Close cuts all connections at once and waits for their handlers. The Close of the Server
// calls it.
func (f *Front) Close() error {
	if f.init() != nil {
		return nil
	}
	defer f.attach.Detach()
	f.stop()
	f.cutAll()
	f.running.Wait()
	f.release()
	return nil
}

// stop accepts no more connections.
func (f *Front) stop() {
	f.mu.Lock()
	f.stopping = true
	f.announce()
	listeners := slices.Collect(maps.Keys(f.listeners))
	f.mu.Unlock()
	for _, l := range listeners {
		_ = l.ln.Close()
	}
}

// cutAll closes all connections.
func (f *Front) cutAll() {
	f.attach.Cut()
	f.mu.Lock()
	if !f.cut {
		f.cut = true
		close(f.closed)
	}
	f.mu.Unlock()
	f.each(nil, func(c *conn) { c.close(codeNoError, "") })
}

// each calls do for each connection, after first, which may be nil, under the lock.
func (f *Front) each(first func(), do func(*conn)) {
	f.mu.Lock()
	if first != nil {
		first()
	}
	conns := slices.Collect(maps.Keys(f.conns))
	f.mu.Unlock()
	for _, c := range conns {
		do(c)
	}
}

// release closes the sockets.
func (f *Front) release() {
	f.mu.Lock()
	listeners := slices.Collect(maps.Keys(f.listeners))
	f.mu.Unlock()
	for _, l := range listeners {
		f.forget(l)
	}
}

func (f *Front) forget(l *listener) {
	l.end.Do(func() {
		_ = l.tr.Close()
		_ = l.pc.Close()
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.listeners, l)
	f.announce()
}

func (f *Front) logger() *slog.Logger { return cmp.Or(f.Server.Logger, slog.Default()) }

func (f *Front) sizes() sizes { return sizes{f.limits.MaxHeaderBytes, f.limits.MaxFields} }

// abused calls the Server's OnAbuse.
func (f *Front) abused(client netip.AddrPort, err error) {
	if f.Server.OnAbuse == nil {
		return
	}
	defer f.recovered("OnAbuse")
	f.Server.OnAbuse(client, err)
}

// recovered logs a panic of the host's.
func (f *Front) recovered(where string) {
	if p := recover(); p != nil {
		f.logger().Error("h3: "+where+" panicked", "panic", p)
	}
}

// Safe reports whether r only reads (RFC 9110, section 9.2.1): GET, HEAD and OPTIONS
// without a body. It is a value for [Front.Early].
func Safe(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return r.ContentLength == 0 && r.Header.Get("Upgrade") == ""
	}
	return false
}

func (f *Front) mayBeEarly(r *http.Request) (ok bool) {
	defer f.recovered("Early")
	return f.Early != nil && f.Early(r)
}

// dated is the field Date for a second.
type dated struct {
	second int64
	text   string
}

func (f *Front) date() string {
	now := time.Now()
	d := f.dated.Load()
	if d == nil || d.second != now.Unix() {
		d = &dated{now.Unix(), now.UTC().Format(http.TimeFormat)}
		f.dated.Store(d)
	}
	return d.text
}

func (f *Front) buffer() *[]byte      { return f.outputs.Get().(*[]byte) }
func (f *Front) giveBuffer(b *[]byte) { f.outputs.Put(b) }
