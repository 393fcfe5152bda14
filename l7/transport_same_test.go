// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/l7/l7test"
)

// A json.Decoder reads to the end of its value and no further. If the last chunk has come
// with it, closing the body keeps the connection.
func TestTransportKeepsConnectionBehindDecodedValue(t *testing.T) {
	withTransport(t, []string{one}, func(t *testing.T, n *l4test.Network, tr *l7.Transport) {
		o := origin(t, n, one, l7test.Script{l7test.Send("HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX-Sum: 1\r\n\r\n")})
		for range 2 {
			res, err := tr.RoundTrip(get("http://a.test/"))
			if err != nil {
				t.Fatal(err)
			}
			var v struct{}
			if err := json.NewDecoder(res.Body).Decode(&v); err != nil {
				t.Fatal(err)
			}
			if got := res.Trailer.Get("X-Sum"); got != "1" {
				t.Errorf("trailer %q", got)
			}
			res.Body.Close()
		}
		if all, _ := o.Conns(); all != 1 {
			t.Errorf("%d connections for two requests", all)
		}
	})
}

// What stands behind the data and only looks like the last chunk is read as what it is.
func TestTransportReadsOnBehindALeadingZero(t *testing.T) {
	for _, tc := range []struct {
		rest, body string
		fails      bool
	}{
		{"02\r\nbc\r\n0\r\n\r\n", "abc", false},
		{"0;x\r\n\r\n", "a", false},
		{"0\r\nnot a field\r\n\r\n", "a", true},
		{"0x\r\n\r\n", "a", true},
		{"0\r\nX-A: 1\r\n", "a", true}, // and then the connection ends
	} {
		withTransport(t, []string{one}, func(t *testing.T, n *l4test.Network, tr *l7.Transport) {
			origin(t, n, one, l7test.Script{l7test.Send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n" + tc.rest), l7test.Close()})
			res, err := tr.RoundTrip(get("http://a.test/"))
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(res.Body)
			res.Body.Close()
			if string(b) != tc.body || (err != nil) != tc.fails {
				t.Errorf("%q: %q, %v", tc.rest, b, err)
			}
		})
	}
}

// Response.Close tells that the server ends the connection.
func TestTransportTellsOfResponseClose(t *testing.T) {
	for head, closes := range map[string]bool{
		"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n":                           false,
		"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n":      true,
		"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n":                           true,
		"HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n": false,
		"HTTP/1.1 200 OK\r\n":                                                true,
	} {
		withTransport(t, []string{one}, func(t *testing.T, n *l4test.Network, tr *l7.Transport) {
			origin(t, n, one, l7test.Script{l7test.Send(head + "\r\n"), l7test.Close()})
			res, err := tr.RoundTrip(get("http://a.test/"))
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if res.Close != closes {
				t.Errorf("%q: Close is %v", head, res.Close)
			}
		})
	}
}

// A body that is longer than ContentLength says is a fault of the program, and is no
// request that went well.
func TestTransportRefusesBodyLongerThanItsLength(t *testing.T) {
	for _, version := range []string{"1", "h2c"} {
		for name, body := range map[string]io.Reader{
			"in memory": strings.NewReader("hello"), "streamed": io.MultiReader(strings.NewReader("hel"), strings.NewReader("lo")),
			"in pieces": io.MultiReader(strings.NewReader("hell"), strings.NewReader("o")), "large": bytes.NewReader(make([]byte, 200_000)),
		} {
			withTransport(t, []string{one}, func(t *testing.T, n *l4test.Network, tr *l7.Transport) {
				tr.Upstream.Protocols = protocols(version)
				startOrigin(t, n, one, nil, version != "1", func(w http.ResponseWriter, r *http.Request) {
					_, _ = io.Copy(io.Discard, r.Body)
					<-r.Context().Done() // the request fails by itself
				})
				req, _ := http.NewRequest("POST", "http://a.test/", body)
				req.ContentLength = 4
				if name == "large" {
					req.ContentLength = 199_999
				}
				res, err := tr.RoundTrip(req)
				if err == nil || !strings.Contains(err.Error(), "longer") {
					t.Errorf("%s, HTTP/%s: %v, %v", name, version, res, err)
				}
			})
		}
	}
}

// A trailer that cannot be sent fails the request, as a field of the head does.
func TestTransportRefusesMalformedTrailer(t *testing.T) {
	for name, value := range map[string]string{"Sum": "a\r\nX: b", "S um": "a"} {
		withTransport(t, []string{one}, func(t *testing.T, n *l4test.Network, tr *l7.Transport) {
			startOrigin(t, n, one, nil, false, func(http.ResponseWriter, *http.Request) { t.Error("it was sent") })
			req, _ := http.NewRequest("POST", "http://a.test/", io.MultiReader(strings.NewReader("a")))
			req.Trailer = http.Header{name: {value}}
			if res, err := tr.RoundTrip(req); err == nil {
				t.Errorf("%q: %q went out: %v", name, value, res.Status)
			}
		})
	}
}

// The hooks of httptrace are called in the order that http.Transport has.
func TestTransportCallsTheHooksOfHTTPTrace(t *testing.T) {
	for _, version := range []string{"1", "h2c"} {
		withTransport(t, []string{one}, func(t *testing.T, n *l4test.Network, tr *l7.Transport) {
			tr.Upstream.Protocols = protocols(version)
			startOrigin(t, n, one, nil, version != "1", func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				w.WriteHeader(103)
				_, _ = io.WriteString(w, "hello")
			})
			var mu sync.Mutex // the body is sent meanwhile
			var told []string
			tell := func(format string, args ...any) {
				mu.Lock()
				told = append(told, fmt.Sprintf(format, args...))
				mu.Unlock()
			}
			trace := &httptrace.ClientTrace{
				GetConn:              func(addr string) { tell("want %s", addr) },
				GotConn:              func(i httptrace.GotConnInfo) { tell("got %v %v %v", i.Conn != nil, i.Reused, i.IdleTime) },
				PutIdleConn:          func(err error) { tell("kept %v", err) },
				GotFirstResponseByte: func() { tell("first byte") },
				Got1xxResponse:       func(code int, _ textproto.MIMEHeader) error { tell("%d", code); return nil },
				WroteHeaderField: func(name string, v []string) {
					if name == "X-A" || name == "Expect" {
						tell("%s %q", name, v)
					}
				},
				WroteHeaders:    func() { tell("head") },
				Wait100Continue: func() { tell("waits") },
				WroteRequest:    func(i httptrace.WroteRequestInfo) { tell("all %v", i.Err) },
			}
			ask := func(body io.Reader, want ...string) {
				t.Helper()
				told = nil
				req, _ := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), trace), "POST", "http://a.test/", body)
				req.Header.Set("X-A", "1")
				res, err := tr.RoundTrip(req)
				if err != nil {
					t.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, res.Body)
				_ = res.Body.Close()
				synctest.Wait()
				if version != "1" { // connections are shared
					want = slices.DeleteFunc(want, func(s string) bool { return s == "kept <nil>" })
				}
				for i, s := range want {
					if version != "1" && s == "got true true 1s" {
						want[i] = "got true true 0s"
					}
				}
				// The goroutine that sends a body may tell of its end after the reply has begun.
				if head, all := slices.Index(told, "head"), slices.Index(told, "all <nil>"); head >= 0 && all > head {
					told = slices.Insert(slices.Delete(told, all, all+1), head+1, "all <nil>")
				}
				if !slices.Equal(told, want) {
					t.Errorf("HTTP/%s: %q\nwant %q", version, told, want)
				}
			}
			ask(strings.NewReader("body"), "want 10.0.0.1:80", "got true false 0s", `X-A ["1"]`, "head", "all <nil>", "first byte", "103", "kept <nil>")
			time.Sleep(time.Second)
			ask(io.MultiReader(strings.NewReader("body")), "want 10.0.0.1:80", "got true true 1s", `X-A ["1"]`, "head", "all <nil>", "first byte", "103", "kept <nil>")
			ask(nil, "want 10.0.0.1:80", "got true true 0s", `X-A ["1"]`, "head", "all <nil>", "first byte", "103", "kept <nil>")
		})
	}
}

// A Dial may give a connection of TLS. What its handshake agrees on is spoken.
func TestDialAgreesOnHTTP2(t *testing.T) {
	cert, roots := certFor(t, "a.test")
	for _, protos := range [][]string{{"h2", "http/1.1"}, {"http/1.1"}, nil} {
		withTransport(t, []string{one}, func(t *testing.T, n *l4test.Network, tr *l7.Transport) {
			startOrigin(t, n, one, &tls.Config{Certificates: []tls.Certificate{cert}}, true, func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.WriteString(w, r.Proto+" "+r.RemoteAddr)
			})
			dials := 0
			tr.Upstream.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
				dials++
				c, err := n.DialContext(ctx, network, addr)
				if err != nil {
					return nil, err
				}
				return tls.Client(c, &tls.Config{RootCAs: roots, ServerName: "a.test", NextProtos: protos}), nil
			}
			want := "HTTP/1.1"
			if len(protos) == 2 {
				want = "HTTP/2.0"
			}
			for range 2 {
				res, err := tr.RoundTrip(get("https://a.test/"))
				if err != nil {
					t.Fatal(err)
				}
				b, _ := io.ReadAll(res.Body)
				res.Body.Close()
				if !strings.HasPrefix(string(b), want) || res.Proto != want || res.TLS == nil {
					t.Errorf("%q: %s, %s", protos, b, res.Proto)
				}
			}
			if dials != 1 {
				t.Errorf("%q: %d dials for two requests", protos, dials)
			}
		})
	}
}

// A reply without a body has the length 0, as http.Transport has it: ReverseProxy
// writes a 101 with Connection: close if it has none.
func TestTransportLengthOfReplyWithoutBody(t *testing.T) {
	for _, head := range []string{
		"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", "HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n",
	} {
		withTransport(t, []string{one}, func(t *testing.T, n *l4test.Network, tr *l7.Transport) {
			origin(t, n, one, l7test.Script{l7test.Send(head), l7test.Stall()})
			req := get("http://a.test/")
			if strings.Contains(head, " 101 ") {
				req.Header.Set("Connection", "Upgrade")
				req.Header.Set("Upgrade", "websocket")
			}
			res, err := tr.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if res.ContentLength != 0 {
				t.Errorf("%d: length %d", res.StatusCode, res.ContentLength)
			}
		})
	}
}
