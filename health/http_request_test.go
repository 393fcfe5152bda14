// SPDX-License-Identifier: Apache-2.0

package health_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
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

// asked returns the bytes that p sends.
func asked(t *testing.T, p health.HTTP) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	got := make(chan string, 1)
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		r := bufio.NewReader(c)
		var head strings.Builder
		for !strings.HasSuffix(head.String(), "\r\n\r\n") {
			line, err := r.ReadString('\n')
			if err != nil {
				break
			}
			head.WriteString(line)
		}
		_, _ = io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\n")
		rest, _ := io.ReadAll(r)
		got <- strings.ReplaceAll(head.String()+string(rest), ln.Addr().String(), "ADDR")
	}()
	require.NoError(t, probe(t, p, ln.Addr().String()))
	return <-got
}

func TestHTTPSendsFieldsAsTheyAre(t *testing.T) {
	for _, tt := range []struct {
		name  string
		probe health.HTTP
		want  string
	}{
		{"none", health.HTTP{}, "GET / HTTP/1.1|Host: ADDR|User-Agent: penstock|Connection: close||"},
		{"names and order", health.HTTP{Header: http.Header{"x-lower": {"1"}, "SOAPAction": {"b", "a"}}, Fields: []health.Field{{"zz", "1"}, {"Aa", "2"}, {"zz", "3"}}},
			"GET / HTTP/1.1|Host: ADDR|User-Agent: penstock|Connection: close|SOAPAction: b|SOAPAction: a|x-lower: 1|zz: 1|Aa: 2|zz: 3||"},
		{"Host of Header", health.HTTP{Header: http.Header{"host": {"a.example"}}}, "GET / HTTP/1.1|Host: a.example|User-Agent: penstock|Connection: close||"},
		{"Host of Fields", health.HTTP{Fields: []health.Field{{"Host", "a.example"}}}, "GET / HTTP/1.1|Host: a.example|User-Agent: penstock|Connection: close||"},
		{"Host itself comes first", health.HTTP{Host: "b.example", Header: http.Header{"Host": {"a.example"}}},
			"GET / HTTP/1.1|Host: b.example|User-Agent: penstock|Connection: close||"},
		{"given ones replace ours", health.HTTP{Method: "POST", Body: "x", Fields: []health.Field{{"user-agent", "me"}, {"connection", "keep-alive"}, {"CONTENT-LENGTH", "1"}}},
			"POST / HTTP/1.1|Host: ADDR|user-agent: me|connection: keep-alive|CONTENT-LENGTH: 1||x"},
		{"a body", health.HTTP{Method: "PUT", Path: "/a?b=c", Body: "four"}, "PUT /a?b=c HTTP/1.1|Host: ADDR|User-Agent: penstock|Connection: close|Content-Length: 4||four"},
		{"a body that is empty", health.HTTP{Method: "POST"}, "POST / HTTP/1.1|Host: ADDR|User-Agent: penstock|Connection: close|Content-Length: 0||"},
		{"the server as a whole", health.HTTP{Method: "OPTIONS", Path: "*"}, "OPTIONS * HTTP/1.1|Host: ADDR|User-Agent: penstock|Connection: close||"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			require.NoError(t, tt.probe.Check())
			require.Equal(t, strings.ReplaceAll(tt.want, "|", "\r\n"), asked(t, tt.probe))
		})
	}
	for _, bad := range []health.HTTP{
		{Path: "*"}, {Path: "healthy"}, {Fields: []health.Field{{"a b", "c"}}}, {Fields: []health.Field{{"a", "b\r\nc: d"}}}, {Header: http.Header{"a": {"b\r\nc: d"}}},
	} {
		require.Error(t, bad.Check())
		require.Equal(t, health.CodeInternal, health.CodeOf(probe(t, bad, answering(t, ""))))
	}
}

// http2Server returns the address of a server of HTTP/2 with prior knowledge.
func http2Server(t *testing.T, h http.HandlerFunc) string {
	s := httptest.NewUnstartedServer(h)
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Config.DisableGeneralOptionsHandler = true // it would answer OPTIONS * itself
	s.Start()
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func TestHTTP2SendsHostAndAsterisk(t *testing.T) {
	addr := http2Server(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s %s %v %v", r.Method, r.RequestURI, r.Host, r.Header["X-A"], r.Header["Host"])
	})
	require.Equal(t, "ok", verdict(probe(t, health.HTTP{HTTP2: true, Method: "OPTIONS", Path: "*", Header: http.Header{"host": {"a.example"}},
		Fields: []health.Field{{"x-a", "1"}}, Content: health.Match{Contains: "OPTIONS * a.example [1] []"}}, addr)))
}

// TestHTTPContentEndsTheProbe has a body that does not end.
func TestHTTPContentEndsTheProbe(t *testing.T) {
	endless := func(w http.ResponseWriter, r *http.Request) {
		for _, part := range []string{"event: rea", "dy\n"} {
			_, _ = io.WriteString(w, part)
			_ = http.NewResponseController(w).Flush()
		}
		<-r.Context().Done()
	}
	s := httptest.NewServer(http.HandlerFunc(endless))
	defer s.Close()
	addrs := map[bool]string{false: s.Listener.Addr().String(), true: http2Server(t, endless)}
	for _, tt := range []struct {
		name  string
		match health.Match
		want  string
	}{
		{"a text", health.Match{Contains: "ready"}, "ok"},
		{"an expression", health.Match{Regexp: regexp.MustCompile(`event: (ready|alive)`)}, "ok"},
		{"a text that must not be", health.Match{Contains: "ready", Not: true}, `unexpected content / STEP: body has "ready"`},
		{"what does not come", health.Match{Contains: "gone"}, "timeout / body: no answer within 1s"},
	} {
		for h2, addr := range addrs {
			step := "HTTP"
			if h2 {
				step = "HTTP/2"
			}
			t.Run(tt.name+" "+step, func(t *testing.T) {
				patience := 30 * time.Second // to wait for the end of the body would be a timeout
				if strings.HasPrefix(tt.want, "timeout") {
					patience = time.Second
				}
				err := probeWithin(t, patience, health.HTTP{HTTP2: h2, Content: tt.match}, addr)
				require.Equal(t, strings.Replace(tt.want, "STEP", step, 1), verdict(err))
			})
		}
	}
}

// TestHTTPThatPassesCheckCanBeSent has paths and hosts of which no request could be made, so
// that the probe would never ask and its server stay up: Check says so.
func TestHTTPThatPassesCheckCanBeSent(t *testing.T) {
	for _, s := range []string{"/", "/a", "/a%20b", "/%zz", "/%", "/a?b=%zz", "/?", "//", "/\x7f", "/ü", "*", "a", "a.example", "a.example:80", "a:b", "[::1]", "[::1]:80", "[::1",
		"::1", "a%zz", "a@b", "a?b", "a#b", "a b", "[fe80::1%eth0]", "ü.example", "a_b", "a\x00b", "[::1%25a]", "a\\b"} {
		for _, p := range []health.HTTP{{Path: s}, {Host: s}, {Header: http.Header{"Host": {s}}}, {Fields: []health.Field{{Name: "host", Value: s}}}} {
			if p.Check() != nil {
				continue
			}
			want := p.Host
			if want == "" {
				want = strings.Join(p.Header["Host"], "")
			}
			for _, f := range p.Fields {
				want = f.Value
			}
			if want == "" {
				want = "ADDR"
			}
			require.Contains(t, asked(t, p), "Host: "+want+"\r\n", "%q", s)
		}
	}
}

// TestHTTPOfALinkLocalServer has an address with a zone, which is of this machine alone
// (RFC 6874, section 4).
func TestHTTPOfALinkLocalServer(t *testing.T) {
	got := make(chan string, 1)
	dial := func(context.Context, string, string) (net.Conn, error) {
		near, far := net.Pipe()
		go func() {
			defer far.Close()
			r, err := http.ReadRequest(bufio.NewReader(far))
			if err == nil {
				got <- r.Host
				_, _ = io.WriteString(far, "HTTP/1.1 204 No Content\r\n\r\n")
			}
		}()
		return near, nil
	}
	require.NoError(t, health.HTTP{Connect: health.Connect{Dial: dial}}.Probe(t.Context(), balance.Endpoint{Addr: "[fe80::1%eth0]:8080"}))
	require.Equal(t, "[fe80::1]:8080", <-got)
}
