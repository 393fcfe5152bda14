// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"context"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4/l4test"
)

// A site is a gateway and its surroundings, in memory.
type site struct {
	*testing.T
	net    *l4test.Network
	client *http.Client
	byByte bool // the byte front serves
	http2  bool // over HTTP/2
}

// onBoth tells a story twice: with handler on the byte front and on the
// standard front, in fake time. The gateway is http://10.0.0.1.
func onBoth(t *testing.T, handler func(s *site) http.Handler, story func(s *site)) {
	for _, front := range []Front{FrontByte, FrontHTTP2, FrontStandard} {
		t.Run(front.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &site{T: t, net: l4test.NewNetwork(), byByte: front != FrontStandard, http2: front == FrontHTTP2}
				s.client = s.from("10.9.9.9")
				h := handler(s)
				ln, err := s.net.Listen("tcp", "10.0.0.1:80")
				require.NoError(t, err)
				done := make(chan error, 1)
				var stop func(context.Context) error
				if s.byByte {
					srv := &Server{Handler: h}
					stop = srv.Shutdown
					go func() { done <- srv.Serve(ln) }()
				} else {
					srv := &http.Server{Handler: h}
					stop = srv.Shutdown
					go func() { done <- srv.Serve(ln) }()
				}
				t.Cleanup(func() {
					ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
					defer cancel()
					require.NoError(t, stop(ctx))
					require.ErrorIs(t, <-done, http.ErrServerClosed)
				})
				story(s)
			})
		})
	}
}

// from returns a client of that address, which follows no redirects.
func (s *site) from(addr string) *http.Client {
	tr := &http.Transport{
		DialContext:        s.net.DialFrom(netip.AddrPortFrom(netip.MustParseAddr(addr), 0)),
		DisableCompression: true,
	}
	if s.http2 {
		tr.Protocols = new(http.Protocols)
		tr.Protocols.SetUnencryptedHTTP2(true)
	}
	s.Cleanup(tr.CloseIdleConnections)
	return &http.Client{
		Transport:     tr,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// origin starts a server that answers with h.
func (s *site) origin(addr string, h http.HandlerFunc) {
	ln, err := s.net.Listen("tcp", addr)
	require.NoError(s, err)
	srv := &http.Server{Handler: h}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(ln) }()
	s.Cleanup(func() { _ = srv.Close(); <-done })
}

// proxy returns a Proxy to those addresses, each a server of that name.
func (s *site) proxy(addrs ...string) *Proxy {
	p := &balance.Pool{Policy: balance.RoundRobin{}}
	var list []balance.Endpoint
	for _, a := range addrs {
		list = append(list, balance.Endpoint{Addr: a})
	}
	require.NoError(s, p.Set(list...))
	return s.proxyTo(p)
}

func (s *site) proxyTo(p *balance.Pool) *Proxy {
	up := &Upstream{Dial: s.net.DialContext}
	s.Cleanup(up.CloseIdle)
	return &Proxy{Pool: p, Upstream: up}
}

// An answer is a reply that has been read.
type answer struct {
	*http.Response
	body string
}

// get asks for a target of the gateway; fields are names and values. Host and
// Method among them are what they say.
func (s *site) get(target string, fields ...string) answer {
	s.Helper()
	a, err := s.ask(s.client, target, "", fields...)
	require.NoError(s, err)
	return a
}

func (s *site) ask(c *http.Client, target, body string, fields ...string) (answer, error) {
	var b io.Reader
	if body != "" {
		b = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(s.Context(), "GET", "http://10.0.0.1"+target, b)
	require.NoError(s, err)
	if body != "" {
		req.Method = "POST"
	}
	for i := 0; i < len(fields); i += 2 {
		switch fields[i] {
		case "Host":
			req.Host = fields[i+1]
		case "Method":
			req.Method = fields[i+1]
		default:
			req.Header.Add(fields[i], fields[i+1])
		}
	}
	resp, err := c.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return answer{resp, string(text)}, err
}

// echo answers with what it was asked: method, target, host, and the fields
// whose names begin with X-.
func echo(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	var b strings.Builder
	b.WriteString(r.Method + " " + r.RequestURI + " " + r.Host + "\n")
	for _, name := range []string{"Authorization", "Cookie", "X-A", "X-B", "X-Env", "X-User", "X-Request-Id"} {
		for _, v := range r.Header.Values(name) {
			b.WriteString(name + ": " + v + "\n")
		}
	}
	b.Write(body)
	w.Header().Set("Content-Type", "text/plain")
	_, _ = io.WriteString(w, b.String())
}
