// SPDX-License-Identifier: Apache-2.0

// Package stand has what stands in for net/http's servers and transports in
// net/http's own tests.
package stand

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
)

// Hooks are what net/http calls when it is built with the overlay of these tests.
type Hooks = struct {
	Serve     func(s *http.Server, l net.Listener, real func(net.Listener) error, setup func() error) error
	Shutdown  func(s *http.Server, ctx context.Context, real func(context.Context) error) error
	Close     func(s *http.Server, real func() error) error
	OnStop    func(s *http.Server, f func()) bool
	KeepAlive func(s *http.Server, on bool)
	Closed    func(s *http.Server)
	RoundTrip func(t *http.Transport, r *http.Request, real func(*http.Request) (*http.Response, error)) (*http.Response, error)
	CloseIdle func(t *http.Transport)
}

// ModeVar is the variable of the environment that names the mode.
const ModeVar = "PENSTOCK_NETHTTP_MODE"

// Install sets the hooks that the mode asks for. Without a mode it sets none.
func Install(h *Hooks) {
	mode := os.Getenv(ModeVar)
	switch mode {
	case "":
	case "client":
		c := &clients{of: make(map[*http.Transport]*client)}
		h.RoundTrip, h.CloseIdle = c.roundTrip, c.closeIdle
	default:
		s := &servers{mode: mode, of: make(map[*http.Server]*server)}
		h.Serve, h.Shutdown, h.Close, h.OnStop, h.KeepAlive, h.Closed = s.serve, s.shutdown, s.close, s.onStop, s.keepAlive, s.closed
	}
}

// servers has the l7.Server that stands in for each http.Server.
type servers struct {
	mode string
	mu   sync.Mutex
	of   map[*http.Server]*server
}

type server struct {
	l7.Server
	up      l7.Upstream
	onStop  []func()
	off     bool // keep-alive
	serving bool
	back    sync.WaitGroup
}

func (s *servers) get(hs *http.Server, make bool) *server {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.of[hs]
	if v == nil && make {
		v = new(server)
		s.of[hs] = v
	}
	return v
}

// ours reports whether an http.Server is the one that a Server of l7 embeds.
func ours(hs *http.Server) bool {
	f, ok := hs.Handler.(http.HandlerFunc)
	return ok && strings.Contains(runtime.FuncForPC(reflect.ValueOf(f).Pointer()).Name(), "/penstock/l7.(*Server)")
}

func (s *servers) serve(hs *http.Server, l net.Listener, real func(net.Listener) error, setup func() error) error {
	if ours(hs) {
		return real(l)
	}
	if err := setup(); err != nil {
		return err
	}
	v := s.get(hs, true)
	s.mu.Lock()
	if !v.serving {
		v.serving = true
		v.configure(s.mode, hs, l, real)
	}
	s.mu.Unlock()
	err := v.Server.Serve(l)
	v.up.CloseIdle()
	return err
}

// closed ends what httptest.Server.Close has closed the listener of: it waits for
// what is under way, as that does by ConnState.
func (s *servers) closed(hs *http.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_ = hs.Shutdown(ctx)
}

// configure takes over what an l7.Server has under the same name.
func (v *server) configure(mode string, hs *http.Server, l net.Listener, real func(net.Listener) error) {
	to, from := reflect.ValueOf(&v.Server).Elem(), reflect.ValueOf(hs).Elem()
	for i := range from.NumField() {
		f := from.Type().Field(i)
		if t := to.FieldByName(f.Name); f.IsExported() && t.IsValid() && t.Type() == f.Type {
			t.Set(from.Field(i))
		}
	}
	// A connection that a test makes of a buffer is at its end when the request has
	// been read. Any other end of input means that the client has gone, as by default.
	v.HalfClose = strings.HasSuffix(reflect.TypeOf(l).String(), "oneConnListener")
	if v.ReadHeaderTimeout == 0 {
		v.ReadHeaderTimeout = hs.ReadTimeout
	}
	if v.MaxHeaderBytes == 0 {
		v.MaxHeaderBytes = http.DefaultMaxHeaderBytes
	}
	if hs.ErrorLog != nil {
		v.Logger = slog.New(slog.NewTextHandler(hs.ErrorLog.Writer(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	}
	for _, f := range v.onStop {
		v.RegisterOnShutdown(f)
	}
	if v.off {
		v.SetKeepAlivesEnabled(false)
	}
	if mode == "foreign" {
		return
	}
	e := balance.Endpoint{Name: "member", Addr: "10.0.0.1:80"}
	if mode == "member" {
		e.Value = hs.Handler
		if e.Value == nil {
			e.Value = http.DefaultServeMux
		}
	} else {
		v.before(hs, l, real)
	}
	pool := &balance.Pool{}
	if err := pool.Set(e); err != nil {
		panic(err)
	}
	v.Server.Handler = &l7.TrustForwarded{ // clients are proxies, of tests
		Prefixes: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")},
		Next: &l7.Proxy{
			Pool: pool, Upstream: &v.up, Forward: l7.ForwardNone, Connect: true,
			Upgrades: []string{"websocket", "someproto", "foo", "u"},
		},
	}
}

// before starts the http.Server that the proxy stands before.
func (v *server) before(hs *http.Server, l net.Listener, real func(net.Listener) error) {
	v.up.Dial = func(context.Context, string, string) (net.Conn, error) {
		c, server := l4test.Pipe()
		v.back.Go(func() { _ = real(&oneConn{conn: server}) }) // returns when the connection has its goroutine
		return c, nil
	}
	if speaksHTTP2(hs, l) {
		p := new(http.Protocols)
		p.SetUnencryptedHTTP2(true)
		v.up.Protocols = p
		both := new(http.Protocols)
		both.SetHTTP1(true)
		both.SetUnencryptedHTTP2(true)
		hs.Protocols = both
	}
	hs.ConnState = nil // of connections of clients, which are not its
}

// oneConn is a listener of one connection.
type oneConn struct{ conn net.Conn }

func (o *oneConn) Accept() (net.Conn, error) {
	if c := o.conn; c != nil {
		o.conn = nil
		return c, nil
	}
	return nil, io.EOF
}

func (o *oneConn) Close() error   { return nil }
func (o *oneConn) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 80} }

func speaksHTTP2(hs *http.Server, l net.Listener) bool {
	if p := hs.Protocols; p != nil {
		return (p.HTTP2() || p.UnencryptedHTTP2()) && !p.HTTP1()
	}
	_, overTLS := reflect.TypeOf(l), false
	if l != nil {
		overTLS = reflect.TypeOf(l).String() == reflect.TypeOf(tls.NewListener(nil, nil)).String()
	}
	return overTLS && hs.TLSConfig != nil && slices.Contains(hs.TLSConfig.NextProtos, "h2")
}

func (s *servers) onStop(hs *http.Server, f func()) bool {
	if ours(hs) {
		return false
	}
	v := s.get(hs, true)
	s.mu.Lock()
	v.onStop = append(v.onStop, f)
	serving := v.serving
	s.mu.Unlock()
	if serving {
		v.RegisterOnShutdown(f)
	}
	return true
}

func (s *servers) keepAlive(hs *http.Server, on bool) {
	if ours(hs) {
		return
	}
	v := s.get(hs, true)
	s.mu.Lock()
	v.off = !on
	serving := v.serving
	s.mu.Unlock()
	if serving {
		v.SetKeepAlivesEnabled(on)
	}
}

func (s *servers) shutdown(hs *http.Server, ctx context.Context, real func(context.Context) error) error {
	v := s.get(hs, false)
	if v == nil {
		return real(ctx)
	}
	err := v.Server.Shutdown(ctx)
	v.up.CloseIdle()
	if e := real(ctx); err == nil {
		err = e
	}
	v.back.Wait()
	return err
}

func (s *servers) close(hs *http.Server, real func() error) error {
	v := s.get(hs, false)
	if v == nil {
		return real()
	}
	err := real()
	if e := v.Server.Close(); err == nil {
		err = e
	}
	v.up.CloseIdle()
	v.back.Wait()
	return err
}
