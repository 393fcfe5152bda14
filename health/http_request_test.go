// SPDX-License-Identifier: Apache-2.0

package health_test

import (
	"bufio"
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
				began := time.Now()
				require.Equal(t, strings.Replace(tt.want, "STEP", step, 1), verdict(probe(t, health.HTTP{HTTP2: h2, Content: tt.match}, addr)))
				if !strings.HasPrefix(tt.want, "timeout") {
					require.Less(t, time.Since(began), 900*time.Millisecond)
				}
			})
		}
	}
}
