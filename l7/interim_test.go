// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
)

// What EditHeader removes from replies does not leave with an interim one,
// wherever that comes from.
func TestInterimRepliesAreEdited(t *testing.T) {
	early := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</a>")
		w.Header().Set("X-Internal-Host", "db7")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Set("X-Last", "1")
		io.WriteString(w, "ok")
	}
	for name, leaf := range map[string]func(n *l4test.Network) http.Handler{
		"HTTP/1 server": proxyTo("10.0.0.1:80"),
		"HTTP/2 server": func(n *l4test.Network) http.Handler {
			p := newProxy(n, "10.0.0.2:80")
			p.Upstream.Protocols = new(http.Protocols)
			p.Upstream.Protocols.SetUnencryptedHTTP2(true)
			return p
		},
		"foreign handler": fixed(http.HandlerFunc(early)),
	} {
		t.Run(name, func(t *testing.T) {
			site := func(n *l4test.Network) http.Handler {
				return &l7.EditHeader{Reply: []l7.FieldEdit{l7.DelField{Prefix: "X-Internal-"}, l7.SetField{Name: "X-Edit", Value: "1"}}, Next: leaf(n)}
			}
			fronts(t, site, func(t *testing.T, f *front) {
				serveHTTP(t, f.network, "10.0.0.1:80", early)
				serveH2C(t, f.network, "10.0.0.2:80", early)
				s := f.dial(t).send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").rest()
				interim, final, _ := strings.Cut(s, "\r\n\r\n")
				low := strings.ToLower(s) // as servers of HTTP/2 send names
				if !strings.HasPrefix(interim, "HTTP/1.1 103 ") || !strings.Contains(strings.ToLower(interim), "link: </a>") || !strings.Contains(interim, "X-Edit: 1") {
					t.Errorf("interim reply %q", interim)
				}
				if !strings.Contains(strings.ToLower(final), "x-last: 1") || !strings.Contains(final, "X-Edit: 1") {
					t.Errorf("final reply %q", final)
				}
				if strings.Contains(low, "x-internal") {
					t.Errorf("an internal field leaks: %q", s)
				}
			})
		})
	}
}

func serveH2C(t *testing.T, n *l4test.Network, addr string, h http.HandlerFunc) {
	t.Helper()
	ln, err := n.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	srv := &http.Server{Handler: h, Protocols: p}
	go srv.Serve(ln)
	t.Cleanup(func() { srv.Close() })
}

// A client that speaks HTTP to a port of HTTPS is told so in plain text, and
// what it sent is no request.
func TestPlainRequestToTLS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct{ send, want string }{
			{"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 400 "},
			{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 40000\r\n\r\n" + strings.Repeat("x", 40000), "HTTP/1.1 400 "},
			{"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 400 "},
			{"SSH-2.0-x\r\n", ""},
			{"\x00\x00\x00\x00\x00\x00", ""},
		} {
			network := l4test.NewNetwork()
			ln, err := network.Listen("tcp", siteAddr)
			if err != nil {
				t.Fatal(err)
			}
			served := false
			srv := &l7.Server{
				Handler:   l7.HandlerFunc(func(x *l7.Exchange) { served = true }),
				TLSConfig: &tls.Config{Certificates: []tls.Certificate{selfSigned(t)}}, Logger: discardLog(),
			}
			done := make(chan error)
			go func() { done <- srv.ServeTLS(ln, "", "") }()
			conn, err := network.DialContext(context.Background(), "tcp", siteAddr)
			if err != nil {
				t.Fatal(err)
			}
			io.WriteString(conn, c.send)
			b, err := io.ReadAll(conn)
			if !strings.HasPrefix(string(b), c.want) || c.want != "" && (err != nil || !strings.Contains(string(b), "\r\nConnection: close\r\n")) {
				t.Errorf("%.20q: got %q, %v; want %q", c.send, b, err, c.want)
			}
			if c.want == "" && strings.Contains(string(b), "HTTP") {
				t.Errorf("%.20q: got %q", c.send, b)
			}
			conn.Close()
			srv.Close()
			if <-done; served {
				t.Errorf("%.20q was served", c.send)
			}
		}
	})
}

// Streams of HTTP/2 that are refused do not take others with them, and Host and
// :authority are compared as what they mean (RFC 9113, section 8.3.1).
func TestH2RefusalsEndTheirStreamOnly(t *testing.T) {
	site := func(n *l4test.Network) http.Handler { return &l7.BufferBody{Next: newProxy(n, "10.0.0.1:80")} }
	for _, std := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			do := func(t *testing.T, f *front) {
				o := origin(t, f.network, "10.0.0.1:80")
				conn, err := f.network.DialContext(context.Background(), "tcp", siteAddr)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				io.WriteString(conn, http2.ClientPreface)
				fr := http2.NewFramer(conn, conn)
				fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
				fr.WriteSettings()
				stream := uint32(1)
				ask := func(end bool, fields ...string) string {
					var b strings.Builder
					enc := hpack.NewEncoder(&b)
					for i := 0; i < len(fields); i += 2 {
						enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
					}
					fr.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: []byte(b.String()), EndHeaders: true, EndStream: end})
					defer func() { stream += 2 }()
					for {
						frame, err := fr.ReadFrame()
						if err != nil {
							return err.Error()
						}
						switch frame := frame.(type) {
						case *http2.MetaHeadersFrame:
							if frame.StreamID == stream {
								return frame.PseudoValue("status")
							}
						case *http2.RSTStreamFrame:
							if frame.StreamID == stream {
								return "reset"
							}
						case *http2.GoAwayFrame:
							return "goaway"
						}
					}
				}
				head := func(method, authority string, more ...string) []string {
					return append([]string{":method", method, ":scheme", "http", ":authority", authority, ":path", "/"}, more...)
				}
				for _, c := range []struct {
					want string
					end  bool
					ask  []string
				}{
					{"405", true, head("TRACE", "a.test")},
					{"400", true, head("GET", "a.test", "host", "b.test")},
					{"400", true, head("GET", "a.test", "host", "a.test:81")},
					{"417", true, head("POST", "a.test", "expect", "more")},
					{"408", false, head("POST", "a.test")}, // the body does not come
					{"200", true, head("GET", "auth.test", "host", "AUTH.test")},
					{"200", true, head("GET", "auth.test:80", "host", "auth.test")},
					{"200", true, head("GET", "auth.test", "host", "Auth.Test:80")},
					{"200", true, head("GET", "a.test")},
				} {
					if got := ask(c.end, c.ask...); got != c.want {
						t.Errorf("standard %v: %q: %s; want %s", std, c.ask, got, c.want)
					}
				}
				for _, r := range o.Requests() {
					if h := r.Get("Host"); h != "auth.test" && h != "auth.test:80" && h != "a.test" {
						t.Errorf("the server got Host: %s", h)
					}
				}
			}
			if !std {
				byteFront(t, site, new(l7.Server), do)
				return
			}
			f := newFront("standard")
			p := new(http.Protocols)
			p.SetUnencryptedHTTP2(true)
			srv := &http.Server{Handler: site(f.network), Protocols: p}
			f.run(t, srv.Serve, srv.Close, do)
		})
	}
}
