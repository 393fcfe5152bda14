// SPDX-License-Identifier: Apache-2.0

package http

import (
	"context"
	"net"
	"os"
)

// StandIns are what serves and sends in the place of this package, where a test
// has said so. This file is added to net/http by the overlay of the tests alone.
var StandIns struct {
	Hooks struct {
		Serve     func(s *Server, l net.Listener, real func(net.Listener) error, setup func() error) error
		Shutdown  func(s *Server, ctx context.Context, real func(context.Context) error) error
		Close     func(s *Server, real func() error) error
		OnStop    func(s *Server, f func()) bool
		KeepAlive func(s *Server, on bool)
		Closed    func(s *Server)
		RoundTrip func(t *Transport, r *Request, real func(*Request) (*Response, error)) (*Response, error)
		CloseIdle func(t *Transport)
	}
}

func (s *Server) Serve(l net.Listener) error {
	if f := StandIns.Hooks.Serve; f != nil && !s.shuttingDown() {
		return f(s, l, s.realServe, func() error {
			if fn := testHookServerServe; fn != nil {
				fn(s, l)
			}
			return s.setupHTTP2_Serve()
		})
	}
	return s.realServe(l)
}

func (s *Server) Shutdown(ctx context.Context) error {
	if f := StandIns.Hooks.Shutdown; f != nil {
		return f(s, ctx, s.realShutdown)
	}
	return s.realShutdown(ctx)
}

func (s *Server) Close() error {
	if f := StandIns.Hooks.Close; f != nil {
		return f(s, s.realClose)
	}
	return s.realClose()
}

func (s *Server) RegisterOnShutdown(f func()) {
	if h := StandIns.Hooks.OnStop; h != nil && h(s, f) {
		return
	}
	s.realRegisterOnShutdown(f)
}

func (s *Server) SetKeepAlivesEnabled(v bool) {
	if f := StandIns.Hooks.KeepAlive; f != nil {
		f(s, v)
	}
	s.realSetKeepAlivesEnabled(v)
}

func (t *Transport) RoundTrip(req *Request) (*Response, error) {
	if t == nil {
		panic("transport is nil")
	}
	if f := StandIns.Hooks.RoundTrip; f != nil {
		return f(t, req, t.realRoundTrip)
	}
	return t.realRoundTrip(req)
}

func (t *Transport) CloseIdleConnections() {
	if f := StandIns.Hooks.CloseIdle; f != nil {
		f(t)
	}
	t.realCloseIdleConnections()
}

// ResetProxyEnv is what the tests of package http_test call of those of package http.
func ResetProxyEnv() {
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy", "REQUEST_METHOD"} {
		_ = os.Unsetenv(name)
	}
	ResetCachedEnvironment()
}
