// SPDX-License-Identifier: Apache-2.0

package l7_test

//lint:file-ignore SA1019 the client of net/http sends no extended CONNECT

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
)

// echoSocket is a server of HTTP/1 that changes to WebSocket and echoes bytes.
// Accept makes its Sec-WebSocket-Accept of the key; nil means as it should be.
func echoSocket(t *testing.T, n *l4test.Network, addr string, accept func(key string) string) {
	ln, err := n.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	if accept == nil {
		accept = func(key string) string {
			sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
			return base64.StdEncoding.EncodeToString(sum[:])
		}
	}
	serve := func(c net.Conn) {
		defer c.Close()
		br := bufio.NewReader(c)
		r, err := http.ReadRequest(br)
		if err != nil {
			return
		}
		if r.Method != "GET" || r.Header.Get("Upgrade") != "websocket" || r.Header.Get("Sec-WebSocket-Version") != "13" || r.URL.Path != "/chat" {
			t.Errorf("the server got %s %s %v", r.Method, r.URL, r.Header)
		}
		if r.URL.RawQuery == "no" {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno")
			return
		}
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Protocol: chat\r\nSec-WebSocket-Accept: "+accept(r.Header.Get("Sec-WebSocket-Key"))+"\r\n\r\n")
		io.Copy(c, br)
		c.(interface{ CloseWrite() error }).CloseWrite()
	}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go serve(c)
		}
	}()
}

// socket opens a WebSocket over HTTP/2. What is written to out reaches the
// server.
func (f *front) socket(t *testing.T, target, protocol string) (res *http.Response, out *io.PipeWriter, err error) {
	tr := &http2.Transport{AllowHTTP: true, DialTLSContext: func(ctx context.Context, _, _ string, _ *tls.Config) (net.Conn, error) {
		return f.network.DialContext(ctx, "tcp", siteAddr)
	}}
	t.Cleanup(tr.CloseIdleConnections)
	in, out := io.Pipe()
	t.Cleanup(func() { out.Close() })
	req, _ := http.NewRequestWithContext(t.Context(), "CONNECT", "http://a.test"+target, in)
	req.Header[":protocol"] = []string{protocol}
	req.Header.Set("Sec-WebSocket-Protocol", "chat")
	res, err = tr.RoundTrip(req)
	if err == nil {
		t.Cleanup(func() { res.Body.Close() })
	}
	return res, out, err
}

func webSockets(t *testing.T, accept func(string) string, do func(t *testing.T, f *front)) {
	synctest.Test(t, func(t *testing.T) {
		byteFront(t, proxyTo(one), new(l7.Server), func(t *testing.T, f *front) {
			echoSocket(t, f.network, one, accept)
			do(t, f)
		})
	})
}

func TestWebSocketOverHTTP2(t *testing.T) {
	webSockets(t, nil, func(t *testing.T, f *front) {
		res, out, err := f.socket(t, "/chat?x", "websocket")
		if err != nil || res.StatusCode != 200 || res.Header.Get("Sec-WebSocket-Protocol") != "chat" || res.Header.Get("Sec-WebSocket-Accept") != "" {
			t.Fatalf("%v, %v", res, err)
		}
		for _, size := range []int{1, 125, 70_000, 1 << 20} {
			message := bytes.Repeat([]byte{byte(size)}, size)
			go out.Write(message)
			got := make([]byte, size)
			if _, err := io.ReadFull(res.Body, got); err != nil || !bytes.Equal(got, message) {
				t.Fatalf("%d bytes: %v", size, err)
			}
			time.Sleep(time.Minute) // less than StreamTimeout, more than any other
		}
		out.Close() // which the server answers by its own end
		if rest, err := io.ReadAll(res.Body); len(rest) != 0 || err != nil {
			t.Errorf("at the end: %q, %v", rest, err)
		}
		if r := f.last(t); r.Status != 101 || r.Termination.String() != "--" || r.BytesIn != r.BytesOut || r.BytesOut < 1<<20 {
			t.Errorf("the record: %d, %v, %d and %d bytes", r.Status, r.Termination, r.BytesIn, r.BytesOut)
		}
	})
}

// 200 would open the tunnel, so nothing but a WebSocket is answered by it.
func TestWebSocketOverHTTP2ThatDoesNotOpen(t *testing.T) {
	for _, tc := range []struct {
		name, target, protocol string
		accept                 func(string) string
		want                   int
	}{
		{"wrong answer to the key", "/chat", "websocket", func(string) string { return "x" }, 502},
		{"a server that answers 200", "/chat?no", "websocket", nil, 501},
		{"another protocol", "/chat", "connect-udp", nil, 501},
	} {
		t.Run(tc.name, func(t *testing.T) {
			webSockets(t, tc.accept, func(t *testing.T, f *front) {
				res, _, err := f.socket(t, tc.target, tc.protocol)
				if err != nil || res.StatusCode != tc.want {
					t.Errorf("%v, %v; want %d", res, err, tc.want)
				}
			})
		})
	}
}

// A client that resets the stream ends the server's connection, and a tunnel
// that is silent ends after StreamTimeout.
func TestWebSocketOverHTTP2Ends(t *testing.T) {
	webSockets(t, nil, func(t *testing.T, f *front) {
		res, _, err := f.socket(t, "/chat", "websocket")
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if r := f.last(t); r.Termination.String() != "CD" {
			t.Errorf("after a reset: %v, %v", r.Termination, r.Err)
		}
		start := time.Now()
		if res, _, err = f.socket(t, "/chat", "websocket"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(res.Body); time.Since(start) < time.Hour || time.Since(start) > 2*time.Hour {
			t.Errorf("a silent tunnel ended after %v: %v", time.Since(start), err)
		}
	})
}

// What breaks the rules of RFC 8441, section 4, is malformed, and answered as that is.
func TestMalformedExtendedConnect(t *testing.T) {
	for name, fields := range map[string][]string{
		"no path":      {":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":authority", "a.test"},
		"no scheme":    {":method", "CONNECT", ":protocol", "websocket", ":path", "/", ":authority", "a.test"},
		"no authority": {":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":path", "/"},
		"GET":          {":method", "GET", ":protocol", "websocket", ":scheme", "http", ":path", "/", ":authority", "a.test"},
		"twice":        {":method", "CONNECT", ":protocol", "websocket", ":protocol", "websocket", ":scheme", "http", ":path", "/", ":authority", "a.test"},
		"a length":     {":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":path", "/", ":authority", "a.test", "content-length", "5"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				byteFront(t, proxyTo(one), new(l7.Server), func(t *testing.T, f *front) {
					if got := h2Ask(t, f.network, "hello", nil, fields...); got != "400" {
						t.Errorf("got %s", got)
					}
				})
			})
		})
	}
}

// A tunnel is opened by a request without content, which Envoy says by a
// Content-Length of 0. DATA is not content there (RFC 9113, section 8.5).
func TestTunnelOverHTTP2BehindALengthOfZero(t *testing.T) {
	for name, fields := range map[string][]string{
		"CONNECT":   {":method", "CONNECT", ":authority", "b.test:443"},
		"WebSocket": {":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":path", "/chat", ":authority", "a.test", "sec-websocket-version", "13"},
	} {
		t.Run(name, func(t *testing.T) {
			onHTTP2(t, new(l7.Server), tunnelTo("1"), func(t *testing.T, f *front) {
				if name == "CONNECT" {
					echoConnect(t, f.network, one)
				} else {
					echoSocket(t, f.network, one, nil)
				}
				c := newH2Client(t, f.network)
				c.head(1, false, append(fields, "content-length", "0")...)
				_ = c.WriteData(1, false, []byte("hello, "))
				c.read(time.Second, func() bool { return c.body[1] != nil })
				_ = c.WriteData(1, true, []byte("tunnel"))
				c.read(time.Second, func() bool { return c.ended[1] })
				if body := c.body[1]; c.status[1] != "200 " || body == nil || body.String() != "hello, tunnel" || len(c.reset) != 0 {
					t.Errorf("status %q, body %v, resets %v", c.status[1], body, c.reset)
				}
			})
		})
	}
}
