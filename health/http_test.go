// SPDX-License-Identifier: Apache-2.0

package health_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/health"
)

// probe probes addr, with more time to answer than a busy machine takes.
func probe(t testing.TB, p health.Probe, addr string) error {
	t.Helper()
	return probeWithin(t, 30*time.Second, p, addr)
}

func probeWithin(t testing.TB, d time.Duration, p health.Probe, addr string) error {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	return p.Probe(ctx, balance.Endpoint{Addr: addr})
}

// verdict is a probe's result in words: "ok", or "code: text".
func verdict(err error) string {
	if err == nil {
		return "ok"
	}
	return fmt.Sprintf("%v / %v", health.CodeOf(err), err)
}

// answering returns the address of a server that sends each connection answer
// and closes it once the peer has.
func answering(t testing.TB, answer string) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				c.Read(make([]byte, 4096))
				io.WriteString(c, answer)
				c.(*net.TCPConn).CloseWrite()
				io.Copy(io.Discard, c)
			}()
		}
	}()
	return ln.Addr().String()
}

func refusedAddr(t testing.TB) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	return ln.Addr().String()
}

func TestTCP(t *testing.T) {
	require.NoError(t, probe(t, health.TCP{}, answering(t, "")))
	require.Equal(t, "connect refused / connect: connection refused", verdict(probe(t, health.TCP{}, refusedAddr(t))))
	require.Equal(t, "unreachable / connect: no such file or directory", verdict(probe(t, health.TCP{}, "unix:"+t.TempDir()+"/none")))
	require.Equal(t, "internal error / a port cannot replace that of unix:/x",
		verdict(probe(t, health.TCP{Connect: health.Connect{Port: 1}}, "unix:/x")))

	addr := answering(t, "")
	_, port, _ := net.SplitHostPort(addr)
	var n int
	fmt.Sscan(port, &n)
	require.NoError(t, probe(t, health.TCP{Connect: health.Connect{Port: n}}, "127.0.0.1:1"))
	require.NoError(t, probe(t, health.TCP{Connect: health.Connect{Addr: addr}}, "127.0.0.1:1"))

	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	hang := health.Connect{Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	require.Equal(t, "timeout / connect: no answer within 200ms", verdict(health.TCP{Connect: hang}.Probe(ctx, balance.Endpoint{Addr: "a:1"})))
}

func TestHTTPExpectations(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var status int
		fmt.Sscanf(r.URL.Path, "/%d", &status)
		w.Header().Set("X-State", "ready")
		w.Header().Add("X-State", "leader")
		w.WriteHeader(max(status, 200))
		fmt.Fprintf(w, "%s %s %s agent=%s", r.Method, r.Host, r.URL.RequestURI(), r.UserAgent())
	}))
	defer s.Close()
	addr := s.Listener.Addr().String()
	for _, tt := range []struct {
		name  string
		probe health.HTTP
		want  string
	}{
		{"the zero value", health.HTTP{}, "ok"},
		{"a redirect is fine", health.HTTP{Path: "/302"}, "ok"},
		{"an error is not", health.HTTP{Path: "/503"}, "bad status / HTTP: status 503"},
		{"a chosen status", health.HTTP{Path: "/503", Status: []health.StatusRange{{From: 200}, {From: 500, To: 599}}}, "ok"},
		{"not that one", health.HTTP{Path: "/404", Status: []health.StatusRange{{From: 200}}}, "bad status / HTTP: status 404"},
		{"soft stop", health.HTTP{Path: "/404", Stop: []health.StatusRange{{From: 404}}}, "stopping / HTTP: status 404"},
		{"the request", health.HTTP{Method: "POST", Path: "/?a=b", Host: "example.com", Header: http.Header{"user-agent": {"me"}}, Body: "x",
			Content: health.Match{Contains: "POST example.com /?a=b agent=me"}}, "ok"},
		{"its defaults", health.HTTP{Content: health.Match{Contains: "GET " + addr + " / agent=penstock"}}, "ok"},
		{"a body without", health.HTTP{Content: health.Match{Contains: "nope"}}, `unexpected content / HTTP: body has no "nope"`},
		{"a body with", health.HTTP{Content: health.Match{Regexp: regexp.MustCompile("GE+T"), Not: true}}, "unexpected content / HTTP: body has /GE+T/"},
		{"a field", health.HTTP{Headers: []health.HeaderMatch{{Name: "X-State", Value: health.Match{Contains: "leader"}}}}, "ok"},
		{"a field that must not be", health.HTTP{Headers: []health.HeaderMatch{{Name: "X-State", Value: health.Match{Contains: "leader", Not: true}}}},
			`unexpected content / HTTP: field X-State has "leader"`},
		{"a missing field", health.HTTP{Headers: []health.HeaderMatch{{Name: "X-Other"}}}, "unexpected content / HTTP: field X-Other is missing"},
		{"an absent field", health.HTTP{Headers: []health.HeaderMatch{{Name: "X-Other", Value: health.Match{Not: true}}}}, "ok"},
		{"the host decides", health.HTTP{Judge: func(r *http.Response, body []byte) error {
			return fmt.Errorf("%d %d", r.StatusCode, len(body)/1000)
		}}, "bad status / 200 0"},
		{"a path that is none", health.HTTP{Path: "x"}, "internal error / HTTP: the request cannot be made: " + addr + "x"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			require.Equal(t, tt.want, verdict(probe(t, tt.probe, addr)))
			tt.probe.HTTP2 = true
			h2 := httptest.NewUnstartedServer(s.Config.Handler)
			h2.Config.Protocols = new(http.Protocols)
			h2.Config.Protocols.SetUnencryptedHTTP2(true)
			h2.Start()
			defer h2.Close()
			addr2 := h2.Listener.Addr().String()
			tt.probe.Content.Contains = strings.Replace(tt.probe.Content.Contains, addr, addr2, 1)
			want := strings.Replace(strings.Replace(tt.want, "HTTP:", "HTTP/2:", 1), addr, addr2, 1)
			if strings.HasPrefix(want, "internal") {
				want = strings.Replace(want, "HTTP/2:", "HTTP:", 1)
			}
			require.Equal(t, want, verdict(probe(t, tt.probe, addr2)))
		})
	}
}

func TestHTTPBrokenAnswers(t *testing.T) {
	for _, tt := range []struct{ name, answer, want string }{
		{"nothing", "", "closed / HTTP: connection closed"},
		{"half a head", "HTTP/1.1 200 OK\r\nA: b\r\n", "closed / HTTP: connection closed"},
		{"another protocol", "220 mail ESMTP\r\n", `protocol error / HTTP: malformed HTTP status code "mail"`},
		{"interim answers", "HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 OK\r\n\r\nbody", "ok"},
		{"a head without end", "HTTP/1.1 200 OK\r\nA: " + strings.Repeat("a", 1<<20), "protocol error / HTTP: answer longer than 16384 bytes"},
		{"interim answers without end", strings.Repeat("HTTP/1.1 103 Early\r\n\r\n", 1<<16), "protocol error / HTTP: answer longer than 16384 bytes"},
		{"a body without end", "HTTP/1.1 200 OK\r\n\r\nbody" + strings.Repeat("a", 1<<20), "ok"},
		{"a body cut short", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nbody", "closed / body: connection closed"},
		{"HTTP/0.9", "<html>body", `protocol error / HTTP: malformed HTTP response "<html>body"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := health.HTTP{Content: health.Match{Contains: "body"}}
			require.Equal(t, tt.want, verdict(probe(t, p, answering(t, tt.answer))))
		})
	}
}

func TestHTTPS(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Proto, " ", r.TLS.ServerName)
	}))
	s.EnableHTTP2 = true
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	addr := s.Listener.Addr().String()
	trust := func(name string) health.Connect {
		return health.Connect{TLS: &tls.Config{RootCAs: roots, ServerName: name}}
	}
	require.Equal(t, "ok", verdict(probe(t, health.HTTP{Connect: trust("")}, addr)), "the address is in the certificate")
	require.Equal(t, "ok", verdict(probe(t, health.HTTP{Connect: trust("example.com"), Content: health.Match{Contains: "HTTP/1.1 example.com"}}, addr)))
	require.Equal(t, "ok", verdict(probe(t, health.HTTP{HTTP2: true, Connect: trust("example.com"), Content: health.Match{Contains: "HTTP/2.0 example.com"}}, addr)))
	require.Regexp(t, "^TLS failed / TLS: .*certificate is valid for", verdict(probe(t, health.HTTP{Connect: trust("other.test")}, addr)))
	require.Regexp(t, "^TLS failed / TLS: .*unknown authority", verdict(probe(t, health.TLS{}, addr)))
	require.Equal(t, "ok", verdict(probe(t, health.TLS{Connect: trust("")}, addr)))

	alpn := trust("")
	alpn.TLS.NextProtos = []string{"imap"}
	require.Regexp(t, "^TLS failed / TLS: ", verdict(probe(t, health.TLS{Connect: alpn}, addr)))
	require.Regexp(t, "protocol error / TLS: the answer is not TLS", verdict(probe(t, health.TLS{}, answering(t, "HTTP/1.1 400 Bad\r\n\r\n"))))
	require.Equal(t, "closed / TLS: connection closed", verdict(probe(t, health.TLS{}, answering(t, ""))))
}

func TestProxyHeader(t *testing.T) {
	for header, want := range map[health.ProxyVersion]string{
		health.NoProxy: "PING",
		health.ProxyV1: "PROXY UNKNOWN\r\nPING",
		health.ProxyV2: "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00PING",
	} {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		got := make(chan string, 1)
		go func() {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			b := make([]byte, len(want))
			io.ReadFull(c, b)
			got <- string(b)
		}()
		p := health.HTTP{Method: "PING", Connect: health.Connect{Proxy: header}}
		require.Equal(t, health.CodeClosed, health.CodeOf(probe(t, p, ln.Addr().String())))
		require.Equal(t, want, <-got)
		ln.Close()
	}
}

func TestAllAny(t *testing.T) {
	ok := health.Func(func(context.Context, balance.Endpoint) error { return nil })
	bad := health.Func(func(context.Context, balance.Endpoint) error { return errors.New("bad") })
	stop := health.Func(func(context.Context, balance.Endpoint) error {
		return &health.Error{Code: health.CodeStopping, Text: "stop"}
	})
	hang := health.Func(func(ctx context.Context, _ balance.Endpoint) error { <-ctx.Done(); return ctx.Err() })
	for _, tt := range []struct {
		probe health.Probe
		want  string
	}{
		{health.All{}, "ok"},
		{health.All{ok, ok}, "ok"},
		{health.All{ok, bad, hang}, "bad status / bad"},
		{health.All{stop, ok}, "stopping / stop"},
		{health.All{stop, bad}, "bad status / bad"},
		{health.Any{}, "internal error / no probe to pass"},
		{health.Any{bad, ok}, "ok"},
		{health.Any{hang, ok}, "ok"},
		{health.Any{bad, bad}, "bad status / bad"},
		{health.Any{bad, stop}, "stopping / stop"},
	} {
		require.Equal(t, tt.want, verdict(probe(t, tt.probe, "a:1")), "%T", tt.probe)
	}
}

// TestAllAnyNameTheCommand has several commands by one shell.
func TestAllAnyNameTheCommand(t *testing.T) {
	pass, fail := health.Exec{Path: "sh", Args: []string{"-c", "true"}}, health.Exec{Path: "sh", Args: []string{"-c", "echo disk full; false"}}
	if pass.Probe(t.Context(), balance.Endpoint{Addr: "a:1"}) != nil {
		t.Skip("no shell here")
	}
	require.ErrorContains(t, health.All{pass, fail}.Probe(t.Context(), balance.Endpoint{Addr: "a:1"}), "probe 2 (Exec): sh: disk full")
	require.ErrorContains(t, health.Any{&fail, fail}.Probe(t.Context(), balance.Endpoint{Addr: "a:1"}), "probe 1 (Exec): sh: disk full")
}

// TestAllAnyNameTheProbe has probes of other ports among them.
func TestAllAnyNameTheProbe(t *testing.T) {
	up := answering(t, "")
	_, port, err := net.SplitHostPort(refusedAddr(t))
	require.NoError(t, err)
	var closed int
	_, err = fmt.Sscan(port, &closed)
	require.NoError(t, err)
	refused := health.Redis{Connect: health.Connect{Port: closed}}
	want := fmt.Sprintf("connect refused / probe 2 (Redis, port %d): connect: connection refused", closed)
	require.Equal(t, want, verdict(probe(t, health.All{health.TCP{}, refused}, up)))
	require.Equal(t, want, verdict(probe(t, health.All{health.TCP{}, &refused, health.TCP{}}, up)))
	require.Equal(t, strings.Replace(want, "probe 2", "probe 1.2", 1), verdict(probe(t, health.All{health.All{health.TCP{}, refused}}, up)))
	require.Equal(t, strings.Replace(want, "probe 2", "probe 2.1.1", 1), verdict(probe(t, health.All{health.TCP{}, health.All{health.Any{refused}}}, up)))
	want = strings.Replace(want, "probe 2", "probe 1", 1)
	require.Equal(t, want, verdict(probe(t, health.Any{refused, health.HTTP{Connect: refused.Connect}}, up)))
	require.Equal(t, "unreachable / probe 1 (HTTP, socket /nonexistent): connect: no such file or directory",
		verdict(probe(t, health.All{health.HTTP{}}, "unix:/nonexistent")))
}

// TestPostgreSQLNamesWhatAnswered has servers of other protocols, whose first letter may
// be one of PostgreSQL's.
func TestPostgreSQLNamesWhatAnswered(t *testing.T) {
	for answer, want := range map[string]string{
		"SSH-2.0-OpenSSH_9\r\n": `"SSH-2"`, "RFB 003.008\n": `"RFB 0"`, "NOTICE 1": `"NOTIC"`, "HTTP/1.1 400 Bad": `"HTTP/"`,
	} {
		addr := answering(t, answer)
		require.Equal(t, "protocol error / startup: unexpected answer "+want, verdict(probe(t, health.PostgreSQL{}, addr)))
		require.Regexp(t, "^protocol error / SSLRequest: unexpected answer "+want[:2],
			verdict(probe(t, health.PostgreSQL{Connect: health.Connect{TLS: &tls.Config{}}}, addr)))
	}
}
