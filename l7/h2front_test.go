// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/l7/l7test"
)

// h2Ask sends one request on an HTTP/2 connection of its own, fields being
// name, value, ..., and returns the status, or what ended the stream.
func h2Ask(t *testing.T, n *l4test.Network, body string, trailer []string, fields ...string) string {
	t.Helper()
	c, err := n.DialContext(context.Background(), "tcp", siteAddr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, http2.ClientPreface)
	fr := http2.NewFramer(c, c)
	fr.AllowIllegalWrites = true
	fr.WriteSettings()
	var buf bytes.Buffer
	enc := hpack.NewEncoder(&buf)
	block := func(fields []string) []byte {
		buf.Reset()
		for i := 0; i < len(fields); i += 2 {
			enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
		}
		return bytes.Clone(buf.Bytes())
	}
	last := body == "" && trailer == nil
	fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block(fields), EndHeaders: true, EndStream: last})
	if !last {
		fr.WriteData(1, trailer == nil, []byte(body))
	}
	if trailer != nil {
		fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block(trailer), EndHeaders: true, EndStream: true})
	}
	fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	for {
		f, err := fr.ReadFrame()
		if err != nil {
			return err.Error()
		}
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			return f.PseudoValue("status")
		case *http2.RSTStreamFrame:
			return "reset " + f.ErrCode.String()
		case *http2.GoAwayFrame:
			return "goaway " + f.ErrCode.String()
		}
	}
}

// HTTP/2 by prior knowledge goes through the proxy as HTTP/1.1, or not at all.
func TestH2Front(t *testing.T) {
	base := []string{":method", "GET", ":scheme", "http", ":authority", "a.test", ":path", "/x?y"}
	post := []string{":method", "POST", ":scheme", "http", ":authority", "a.test", ":path", "/x"}
	with := func(b []string, more ...string) []string { return append(append([]string(nil), b...), more...) }
	cases := []struct {
		name    string
		body    string
		trailer []string
		fields  []string
		check   func(t *testing.T, r l7test.Request) // nil: the server must get nothing that is complete
	}{
		{"get", "", nil, base, func(t *testing.T, r l7test.Request) {
			if r.Target != "/x?y" || r.Get("Host") != "a.test" || r.Framing != "" {
				t.Errorf("%+v", r)
			}
		}},
		{"cookie crumbs", "", nil, with(base, "cookie", "a=1", "cookie", "b=2", "x-a", "v", "cookie", "c=3"), func(t *testing.T, r l7test.Request) {
			if v := r.Values("Cookie"); len(v) != 1 || v[0] != "a=1; b=2; c=3" {
				t.Errorf("Cookie = %q", v)
			}
		}},
		{"body", "hello", nil, post, func(t *testing.T, r l7test.Request) {
			if r.Framing != "chunked" || string(r.Body) != "hello" {
				t.Errorf("%+v", r)
			}
		}},
		{"body with length", "hello", nil, with(post, "content-length", "5"), func(t *testing.T, r l7test.Request) {
			if r.Framing != "length" || string(r.Body) != "hello" {
				t.Errorf("%+v", r)
			}
		}},
		{"trailer", "hello", []string{"x-t", "v"}, with(post, "trailer", "x-t"), func(t *testing.T, r l7test.Request) {
			if len(r.Trailer) != 1 || r.Trailer[0].Value != "v" {
				t.Errorf("trailer = %v", r.Trailer)
			}
		}},
		{"te trailers", "", nil, with(base, "te", "trailers"), func(t *testing.T, r l7test.Request) {
			if r.Get("TE") != "trailers" || !strings.EqualFold(r.Get("Connection"), "TE") {
				t.Errorf("%+v", r)
			}
		}},
		{"spoofed", "", nil, with(base, "x-forwarded-for", "6.6.6.6", "x_forwarded_for", "6.6.6.6"), func(t *testing.T, r l7test.Request) {
			if v := r.Values("X-Forwarded-For"); len(v) != 1 || v[0] != "192.0.2.1" || r.Get("x_forwarded_for") != "" {
				t.Errorf("%+v", r)
			}
		}},
		{"length too long", "hello", nil, with(post, "content-length", "6"), nil},
		{"length too short", "hello", nil, with(post, "content-length", "4"), nil},
		{"length without data", "", nil, with(post, "content-length", "5"), nil},
		{"length twice", "hello", nil, with(post, "content-length", "5", "content-length", "6"), nil},
		{"length with sign", "hello", nil, with(post, "content-length", "+5"), nil},
		{"transfer-encoding", "hello", nil, with(post, "transfer-encoding", "chunked"), nil},
		{"connection", "", nil, with(base, "connection", "close"), nil},
		{"upgrade", "", nil, with(base, "upgrade", "h2c"), nil},
		{"te gzip", "", nil, with(base, "te", "gzip"), nil},
		{"pseudo late", "", nil, []string{":method", "GET", ":scheme", "http", ":path", "/x", "x-a", "b", ":authority", "a"}, nil},
		{"pseudo unknown", "", nil, with([]string{":foo", "x"}, base...), nil},
		{"method twice", "", nil, with([]string{":method", "GET"}, base...), nil},
		{"no path", "", nil, []string{":method", "GET", ":scheme", "http", ":authority", "a"}, nil},
		{"path without slash", "", nil, []string{":method", "GET", ":scheme", "http", ":authority", "a", ":path", "x"}, nil},
		{"path with scheme", "", nil, []string{":method", "GET", ":scheme", "http", ":authority", "a", ":path", "http://b/x"}, nil},
		{"fragment", "", nil, []string{":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/x#y"}, nil},
		{"LF in path", "", nil, []string{":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/x\nY: z"}, nil},
		{"CR in value", "", nil, with(base, "x-a", "b\rc"), nil},
		{"NUL in value", "", nil, with(base, "x-a", "b\x00c"), nil},
		{"space in method", "", nil, []string{":method", "GET /y", ":scheme", "http", ":authority", "a", ":path", "/x"}, nil},
		{"no token in method", "", nil, []string{":method", "GET\t", ":scheme", "http", ":authority", "a", ":path", "/x"}, nil},
		{"quote in method", "", nil, []string{":method", "\"GET\"", ":scheme", "http", ":authority", "a", ":path", "/x"}, nil},
		{"other host", "", nil, with(base, "host", "b.test"), nil},
		{"bad authority", "", nil, []string{":method", "GET", ":scheme", "http", ":authority", "a b", ":path", "/x"}, nil},
		{"connect", "", nil, []string{":method", "CONNECT", ":authority", "a:443"}, nil},
		{"many fields", "", nil, with(base, strings.Split(strings.Repeat("x-a,b,", 3000)+"x-a,b", ",")...), nil},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				byteFront(t, proxyTo("10.0.0.1:80"), new(l7.Server), func(t *testing.T, f *front) {
					o := origin(t, f.network, "10.0.0.1:80")
					got := h2Ask(t, f.network, tc.body, tc.trailer, tc.fields...)
					synctest.Wait()
					rs := o.Requests()
					if tc.check == nil {
						if got == "200" {
							t.Errorf("200; want it refused")
						}
						for _, r := range rs {
							if r.Complete {
								t.Errorf("%s, and the server got %+v", got, r)
							}
						}
						for _, err := range o.Faults() {
							if strings.HasPrefix(err.Error(), "l7test:") { // not the end of a body that is cut
								t.Errorf("%s, and the server got something malformed: %v", got, err)
							}
						}
						return
					}
					if got != "200" || len(rs) != 1 {
						t.Fatalf("%s, requests %+v, faults %v", got, rs, o.Faults())
					}
					tc.check(t, rs[0])
				})
			})
		})
	}
}

// A stream that the client resets ends the work for it; Shutdown sends GOAWAY
// and waits for the others.
func TestH2ResetAndShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		byteFront(t, proxyTo("10.0.0.1:80"), new(l7.Server), func(t *testing.T, f *front) {
			o := origin(t, f.network, "10.0.0.1:80", l7test.Script{l7test.Stall()}, l7test.Script{l7test.Wait(2 * time.Second), l7test.Reply(200, "late")})
			p := new(http.Protocols)
			p.SetUnencryptedHTTP2(true)
			f.client.Transport.(*http.Transport).Protocols = p
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error)
			go func() {
				req, _ := http.NewRequestWithContext(ctx, "GET", "http://a.test/", nil)
				_, err := f.client.Do(req)
				done <- err
			}()
			synctest.Wait()
			if _, open := o.Conns(); open != 1 {
				t.Fatalf("%d connections to the server", open)
			}
			cancel()
			<-done
			synctest.Wait()
			if _, open := o.Conns(); open != 0 {
				t.Errorf("%d connections to the server are open after the reset", open)
			}
			body := make(chan string)
			go func() { _, b := f.get(t, "/"); body <- b }()
			synctest.Wait()
			start := time.Now()
			if err := f.server.Shutdown(context.Background()); err != nil || time.Since(start) < 2*time.Second {
				t.Errorf("Shutdown = %v after %v", err, time.Since(start))
			}
			if b := <-body; b != "late" {
				t.Errorf("read %q", b)
			}
		})
	})
}

// Browsers send each cookie in a field of its own (RFC 9113, section 8.2.3), and may have
// more cookies than a head may have fields. Together they are one field.
func TestHTTP2ManyCookies(t *testing.T) {
	for _, tc := range []struct {
		cookies, most int // MaxHeaderBytes
		want          string
	}{{180, 0, "200"}, {2000, 0, "431"}, {180, -1, "431"}} {
		onHTTP2(t, &l7.Server{MaxHeaderBytes: tc.most}, proxyTo("10.0.0.1:80"), func(t *testing.T, f *front) {
			o := origin(t, f.network, "10.0.0.1:80")
			fields := []string{":method", "GET", ":scheme", "http", ":authority", "a.test", ":path", "/"}
			var crumbs []string
			for i := range tc.cookies {
				crumbs = append(crumbs, fmt.Sprintf("c%d=1", i))
				fields = append(fields, "cookie", crumbs[i])
			}
			if got := h2Ask(t, f.network, "", nil, fields...); got != tc.want {
				t.Errorf("%d cookies: %s; want %s", tc.cookies, got, tc.want)
			}
			for _, r := range o.Requests() {
				for _, h := range r.Header {
					if want := strings.Join(crumbs, "; "); strings.EqualFold(h.Name, "Cookie") && h.Value != want {
						t.Errorf("the server got %q; want %q", h.Value, want)
					}
				}
			}
		})
	}
}

// A connection that may begin with HTTP/2, and whose first line names no version of any
// protocol, began with an invalid preface: it is closed (RFC 9113, section 3.4). All
// that looks like HTTP/1 is answered by HTTP/1.
func TestFirstBytesOfNoProtocol(t *testing.T) {
	const good = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"
	http1 := new(http.Protocols)
	http1.SetHTTP1(true)
	for name, c := range map[string]struct {
		send      string
		protocols *http.Protocols
		statuses  []string
	}{
		"no version":                  {"INVALID CONNECTION PREFACE\r\n\r\n", nil, nil},
		"no version, to HTTP/1 alone": {"INVALID CONNECTION PREFACE\r\n\r\n", http1, []string{"400"}},
		"no version, second":          {good + "INVALID CONNECTION PREFACE\r\n\r\n", nil, []string{"200", "400"}},
		"another protocol":            {"GET / RTSP/1.0\r\nHost: a.test\r\n\r\n", nil, []string{"400"}},
		"two words":                   {"GET /\r\n\r\n", nil, []string{"400"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				site := func(*l4test.Network) http.Handler {
					return l7.HandlerFunc(func(x *l7.Exchange) { x.Respond(200, nil, "") })
				}
				byteFront(t, site, &l7.Server{Protocols: c.protocols}, func(t *testing.T, f *front) {
					nc, err := f.network.DialContext(t.Context(), "tcp", siteAddr)
					if err != nil {
						t.Fatal(err)
					}
					defer nc.Close()
					io.WriteString(nc, c.send)
					b, err := io.ReadAll(nc)
					if err != nil {
						t.Error(err)
					}
					var got []string
					for _, part := range strings.Split(string(b), "HTTP/1.1 ")[1:] {
						got = append(got, part[:3])
					}
					if !slices.Equal(got, c.statuses) || c.statuses == nil && len(b) > 0 {
						t.Errorf("got %q; want %v", b, c.statuses)
					}
					if r := f.last(t); r.Err == nil || r.Termination.Cause != l4.Denied || r.Termination.Phase != l4.PhaseRequest {
						t.Errorf("the record says %v, %v", r.Termination, r.Err)
					}
				})
			})
		})
	}
}
