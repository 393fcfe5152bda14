// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/l7/l7test"
)

// overBoth runs do with clients of HTTP/1 and HTTP/2 before servers of HTTP/2.
func overBoth(t *testing.T, do func(t *testing.T, two bool, f *front)) {
	for _, two := range []bool{false, true} {
		t.Run(fmt.Sprint("HTTP/2 client ", two), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				byteFront(t, proxyH2(nil), new(l7.Server), func(t *testing.T, f *front) {
					if two {
						f.client.Transport.(*http.Transport).Protocols = protocols("h2c")
					}
					do(t, two, f)
				})
			})
		})
	}
}

// A reply that has no body may have a Content-Length, which says what GET would
// have got (RFC 9110, sections 8.6 and 15.4.5), and is complete nevertheless.
func TestHTTP2ReplyWithoutBody(t *testing.T) {
	for _, tc := range []struct {
		name, method string
		script       l7test.Script
		status       int
		length       string
	}{
		{"304", "GET", l7test.Script{l7test.Reply(304, "", "Content-Length", "5", "ETag", `"a"`)}, 304, "5"},
		{"304 without a length", "GET", l7test.Script{l7test.Reply(304, "")}, 304, ""},
		{"304 with an empty DATA", "GET", l7test.Script{l7test.ReplyTrailer(304, "", "X-T", "v")}, 304, ""},
		{"HEAD", "HEAD", l7test.Script{l7test.Reply(200, "", "Content-Length", "5")}, 200, "5"},
		{"HEAD of a 304", "HEAD", l7test.Script{l7test.Reply(304, "", "Content-Length", "5")}, 304, "5"},
		{"204 that should not say a length", "GET", l7test.Script{l7test.Reply(204, "", "Content-Length", "5")}, 204, ""},
		{"204", "DELETE", l7test.Script{l7test.Reply(204, "")}, 204, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			overBoth(t, func(t *testing.T, two bool, f *front) {
				origin(t, f.network, one, tc.script, l7test.Script{l7test.Reply(200, "next")})
				req, _ := http.NewRequest(tc.method, "http://a.test/", nil)
				res, err := f.client.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				b, err := io.ReadAll(res.Body)
				res.Body.Close()
				if two && res.StatusCode == 304 && err == io.ErrUnexpectedEOF {
					err = nil // the client is net/http, which has the fault as well
				}
				if got := res.Header.Get("Content-Length"); res.StatusCode != tc.status || got != tc.length || len(b) != 0 || err != nil {
					t.Errorf("got %d, length %q, %d bytes, %v; want %d, length %q", res.StatusCode, got, len(b), err, tc.status, tc.length)
				}
				if r := f.last(t); r.Termination.String() != "--" || r.Err != nil {
					t.Errorf("the record says %v, %v", r.Termination, r.Err)
				}
				if status, body := f.get(t, "/"); status != 200 || body != "next" {
					t.Errorf("then %d %q", status, body)
				}
			})
		})
	}
}

func TestHTTP2TransportReplyWithoutBody(t *testing.T) {
	withTransport(t, []string{one}, func(t *testing.T, n *l4test.Network, tr *l7.Transport) {
		tr.Upstream.Protocols = protocols("h2c")
		origin(t, n, one, l7test.Script{l7test.Reply(304, "", "Content-Length", "5")})
		res, err := tr.RoundTrip(get("http://a.test/"))
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(res.Body); len(b) != 0 || err != nil || res.StatusCode != 304 {
			t.Errorf("%d, %q, %v", res.StatusCode, b, err)
		}
	})
}

// A message of HTTP/2 may have a length and a trailer (RFC 9113, section 8.1).
// Chunks are what HTTP/1 needs for a trailer, so there it is left out.
func TestHTTP2TrailerBehindALength(t *testing.T) {
	for _, body := range []string{"hello", strings.Repeat("x", 100_000), ""} {
		overBoth(t, func(t *testing.T, two bool, f *front) {
			got := make(chan string, 1)
			startOrigin(t, f.network, one, nil, true, func(w http.ResponseWriter, r *http.Request) {
				b, _ := io.ReadAll(r.Body)
				got <- fmt.Sprint(len(b), " of ", r.ContentLength, ", ", r.Trailer.Get("X-Sum"))
				w.Header().Set("Content-Length", fmt.Sprint(len(body)))
				w.Header().Set("Trailer", "Grpc-Status")
				w.WriteHeader(200)
				io.WriteString(w, body)
				w.Header().Set("Grpc-Status", "7")
				w.Header().Set(http.TrailerPrefix+"Grpc-Message", "late")
			})
			req, _ := http.NewRequest("POST", "http://a.test/", strings.NewReader("request"))
			if two {
				req.Trailer = http.Header{"X-Sum": {"8"}}
			}
			res, err := f.client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(res.Body)
			res.Body.Close()
			if string(b) != body || err != nil || res.ContentLength != int64(len(body)) {
				t.Errorf("%d bytes of %d, %v", len(b), res.ContentLength, err)
			}
			want, wantSum := "", ""
			if two {
				want, wantSum = "7", "8"
			}
			if v := res.Trailer.Get("Grpc-Status"); v != want || two && res.Trailer.Get("Grpc-Message") != "late" {
				t.Errorf("trailer %v; want grpc-status %q", res.Trailer, want)
			}
			if g := <-got; g != "7 of 7, "+wantSum {
				t.Errorf("the server got %s", g)
			}
		})
	}
}

// A trailer may come long after the last byte of a body whose length is known, as
// END_STREAM may. It is waited for where it can go on; a server of HTTP/1 has
// its whole request before, and its connection can be used again.
func TestHTTP2TrailerLongBehindALength(t *testing.T) {
	for _, byByte := range []bool{true, false} {
		for _, proto := range []string{"1", "h2c"} {
			for _, empty := range []bool{false, true} {
				t.Run(fmt.Sprint("byte front ", byByte, ", server of ", proto, ", no trailer ", empty), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						run := byteFront
						if !byByte {
							run = func(t *testing.T, h func(*l4test.Network) http.Handler, _ *l7.Server, story func(*testing.T, *front)) {
								standardFront(t, h, story)
							}
						}
						run(t, proxyH2(func(p *l7.Proxy) { p.Upstream.Protocols = protocols(proto) }), new(l7.Server), func(t *testing.T, f *front) {
							lateTrailerTo(t, f, proto, empty)
						})
					})
				})
			}
		}
	}
}

func lateTrailerTo(t *testing.T, f *front, proto string, empty bool) {
	got := make(chan string, 2)
	startOrigin(t, f.network, one, nil, proto == "h2c", func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		got <- fmt.Sprint(string(b), " of ", r.ContentLength, ", ", r.Trailer.Get("X-Sum"), err)
	})
	c := newH2Client(t, f.network)
	c.ask(1, false, "/", "content-length", "7", "trailer", "x-sum")
	_ = c.WriteData(1, false, []byte("request"))
	c.read(time.Second, nil)
	want := "request of 7, 8<nil>"
	if proto == "1" || empty {
		want = "request of 7, <nil>"
	}
	if proto == "1" != (c.status[1] == "200 ") {
		t.Errorf("status %q before the end", c.status[1])
	}
	switch code, early := c.reset[1]; {
	case early && code == http2.ErrCodeNo && proto == "1": // the reply is complete (RFC 9113, section 8.1)
	case empty:
		_ = c.WriteData(1, true, nil)
	default:
		c.buf.Reset()
		_ = c.enc.WriteField(hpack.HeaderField{Name: "x-sum", Value: "8"})
		_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.buf.Bytes(), EndHeaders: true, EndStream: true})
	}
	c.read(time.Second, func() bool { return c.ended[1] })
	c.ask(3, true, "/")
	c.read(time.Second, func() bool { return c.ended[3] })
	synctest.Wait()
	if len(got) != 2 {
		t.Fatalf("the server got %d requests", len(got))
	}
	if g := <-got; g != want || c.status[1] != "200 " || c.status[3] != "200 " {
		t.Errorf("the server got %s, the client %q and %q; want %s", g, c.status[1], c.status[3], want)
	}
	if rs := f.done(); len(rs) != 2 || !rs[1].Reused || rs[0].Termination.String() != "--" {
		t.Errorf("recorded %+v", rs)
	}
}
