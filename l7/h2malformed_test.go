// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/penstock-lb/penstock/l7"
)

// P7: a stream with a malformed :path comes to nothing, and the connection
// goes on. (Such streams are not counted by source: net/http, whose HTTP/2
// serves, tells nobody of whom they came.)
func TestP7_MalformedPath(t *testing.T) {
	for _, path := range []string{"x", "/x\nY: z", ""} {
		synctest.Test(t, func(t *testing.T) {
			byteFront(t, proxyTo("10.0.0.1:80"), new(l7.Server), func(t *testing.T, f *front) {
				o := origin(t, f.network, "10.0.0.1:80")
				c, err := f.network.DialContext(context.Background(), "tcp", siteAddr)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				io.WriteString(c, http2.ClientPreface)
				fr := http2.NewFramer(c, c)
				fr.AllowIllegalWrites = true
				fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
				fr.WriteSettings()
				var buf bytes.Buffer
				enc := hpack.NewEncoder(&buf)
				ask := func(stream uint32, path string) {
					buf.Reset()
					for _, h := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", "a.test"}, {":path", path}} {
						enc.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]})
					}
					fr.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: buf.Bytes(), EndHeaders: true, EndStream: true})
				}
				end := func(stream uint32) string {
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
						}
					}
				}
				ask(1, path)
				if got := end(1); got != "400" && got != "reset" {
					t.Errorf("path %q: %s; want 400 or a reset", path, got)
				}
				ask(3, "/good")
				if got := end(3); got != "200" {
					t.Errorf("after path %q: %s; want 200", path, got)
				}
				if rs := o.Requests(); len(rs) != 1 || rs[0].Target != "/good" {
					t.Errorf("the server got %+v", rs)
				}
			})
		})
	}
}

// Net/http's client takes PROTOCOL_ERROR for a fault of the connection: it asks again
// over a new one, at once and without end. A malformed request is answered first.
func TestMalformedRequestIsNotRepeated(t *testing.T) {
	for _, tc := range []struct {
		name    string
		set     func(r *http.Request)
		keeps   bool // the connection
		trailer bool
	}{
		{"a value that ends in a space", func(r *http.Request) { r.Header.Set("X-A", "b ") }, true, false},
		{"a value that begins with a tab", func(r *http.Request) { r.Header.Set("X-A", "\tb") }, true, false},
		{"a trailer that ends in a space", func(r *http.Request) { r.Trailer = http.Header{"X-A": {"b "}} }, false, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			onHTTP2(t, new(l7.Server), proxyTo(one), func(t *testing.T, f *front) {
				origin(t, f.network, one)
				var dials atomic.Int64
				dial := f.network.DialContext
				tr := &http.Transport{Protocols: protocols("h2c"), DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
					if dials.Add(1) > 10 {
						return nil, errors.New("too many")
					}
					return dial(ctx, "tcp", siteAddr)
				}}
				defer tr.CloseIdleConnections()
				for range 3 {
					req, _ := http.NewRequest("PUT", "http://a.test/", strings.NewReader("request"))
					tc.set(req)
					if !tc.trailer {
						req.Body, req.GetBody, req.ContentLength = nil, nil, 0
					} else {
						req.ContentLength = -1
					}
					res, err := tr.RoundTrip(req)
					if err != nil {
						t.Fatalf("%v after %d connections", err, dials.Load())
					}
					b, err := io.ReadAll(res.Body)
					res.Body.Close()
					if res.StatusCode != 400 || string(b) != "400 Bad Request\n" || tc.keeps && err != nil {
						t.Errorf("got %d %q, %v; want 400", res.StatusCode, b, err)
					}
				}
				if n := dials.Load(); n > 3 || tc.keeps && n != 1 {
					t.Errorf("%d connections for three requests", n)
				}
			})
		})
	}
}

// A 400 goes before the reset of a malformed request. If a reply has begun when that
// shows, there is the reset alone.
func TestMalformedRequestIsAnsweredThenReset(t *testing.T) {
	good := []string{":method", "POST", ":scheme", "http", ":authority", "a.test", ":path", "/"}
	for _, tc := range []struct {
		name   string
		fields []string
		later  []string // in the trailer
		want   string
	}{
		{"upper case", append(good[:8:8], "X-A", "b"), nil, "400 reset PROTOCOL_ERROR"},
		{"Connection", append(good[:8:8], "connection", "close"), nil, "400 reset PROTOCOL_ERROR"},
		{"TE", append(good[:8:8], "te", "gzip"), nil, "400 reset PROTOCOL_ERROR"},
		{"no path", good[:6], nil, "400 reset PROTOCOL_ERROR"},
		{"no method", good[2:], nil, "400 reset PROTOCOL_ERROR"},
		{"extended CONNECT", []string{":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":path", "/"}, nil, "400 reset PROTOCOL_ERROR"},
		{"value", append(good[:8:8], "x-a", "b\n"), nil, "400 end"},
		{"trailer", good, []string{"X-A", "b"}, "400 reset PROTOCOL_ERROR"},
		{"pseudo field in a trailer", good, []string{":path", "/x"}, "400 reset PROTOCOL_ERROR"},
		{"trailer behind a reply", append(good[:8:8], "x-early", "yes"), []string{"x-a", "b "}, "200 reset PROTOCOL_ERROR"},
		{"good trailer", good, []string{"x-a", "b"}, "200 end"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("X-Early") != "" {
					w.(http.Flusher).Flush()
				}
				if _, err := io.ReadAll(r.Body); err != nil {
					w.WriteHeader(400)
				}
			})
			onHTTP2(t, new(l7.Server), fixed(h), func(t *testing.T, f *front) {
				c := newH2Client(t, f.network)
				c.buf.Reset()
				for i := 0; i < len(tc.fields); i += 2 {
					_ = c.enc.WriteField(hpack.HeaderField{Name: tc.fields[i], Value: tc.fields[i+1]})
				}
				_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.buf.Bytes(), EndHeaders: true, EndStream: tc.later == nil})
				if tc.later != nil {
					_ = c.WriteData(1, false, []byte("request"))
					synctest.Wait()
					c.buf.Reset()
					_ = c.enc.WriteField(hpack.HeaderField{Name: tc.later[0], Value: tc.later[1]})
					_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.buf.Bytes(), EndHeaders: true, EndStream: true})
				}
				c.read(time.Second, nil)
				got := c.status[1]
				if code, ok := c.reset[1]; ok {
					got += "reset " + code.String()
				}
				if c.ended[1] {
					got += "end"
				}
				if got != tc.want {
					t.Errorf("got %s; want %s", got, tc.want)
				}
				c.ask(3, true, "/")
				c.read(time.Second, func() bool { return c.ended[3] })
				if c.status[3] != "200 " {
					t.Errorf("then %q", c.status[3])
				}
			})
		})
	}
}
