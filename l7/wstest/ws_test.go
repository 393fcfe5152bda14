// SPDX-License-Identifier: Apache-2.0

package wstest

//lint:file-ignore SA1019 the client of net/http sends no extended CONNECT

import (
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	coder "github.com/coder/websocket"
	gorilla "github.com/gorilla/websocket"
	"golang.org/x/net/http2"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l7"
)

// echoGorilla echoes messages, and answers a close with its code.
func echoGorilla(w http.ResponseWriter, r *http.Request) {
	up := gorilla.Upgrader{EnableCompression: true, Subprotocols: []string{"chat"}, CheckOrigin: func(*http.Request) bool { return true }}
	c, err := up.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	defer c.Close()
	for {
		kind, p, err := c.ReadMessage()
		if err != nil {
			return
		}
		if c.WriteMessage(kind, p) != nil {
			return
		}
	}
}

// echoCoder is echoGorilla by the other library.
func echoCoder(w http.ResponseWriter, r *http.Request) {
	c, err := coder.Accept(w, r, &coder.AcceptOptions{Subprotocols: []string{"chat"}, InsecureSkipVerify: true, CompressionMode: coder.CompressionContextTakeover})
	if err != nil {
		return
	}
	defer c.CloseNow()
	c.SetReadLimit(64 << 20)
	for {
		kind, p, err := c.Read(r.Context())
		if err != nil {
			return
		}
		if c.Write(r.Context(), kind, p) != nil {
			return
		}
	}
}

// serve runs srv, over plain TCP.
func serve(t *testing.T, srv interface {
	Serve(net.Listener) error
	Close() error
}) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go srv.Serve(ln)
	t.Cleanup(func() { srv.Close() })
	return ln.Addr().String()
}

var quiet = slog.New(slog.DiscardHandler)

func protocols(h2c bool) *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(!h2c)
	p.SetUnencryptedHTTP2(h2c)
	return p
}

// gateway returns a Proxy before addr, over HTTP/2 or HTTP/1.
func gateway(t *testing.T, addr string, h2c bool) *l7.Proxy {
	pool := &balance.Pool{}
	if err := pool.Set(balance.Endpoint{Addr: addr}); err != nil {
		t.Fatal(err)
	}
	up := &l7.Upstream{Protocols: protocols(h2c)}
	t.Cleanup(up.CloseIdle)
	return &l7.Proxy{Pool: pool, Upstream: up}
}

// A way is one that a WebSocket takes from its client to its server.
type way struct {
	name   string
	client bool // of HTTP/2
	site   func(t *testing.T, h http.Handler) string
}

// ways returns all of them: the servers of HTTP/2 are those of l7, whose handlers
// of net/http hijack a stream.
func ways() (list []way) {
	front := func(t *testing.T, h http.Handler) string { return serve(t, &l7.Server{Handler: h, Logger: quiet}) }
	one := func(t *testing.T, h http.Handler) string { return serve(t, &http.Server{Handler: h}) }
	sites := []struct {
		name string
		make func(t *testing.T, h http.Handler) string
	}{
		{"HTTP/1", func(t *testing.T, h http.Handler) string { return front(t, gateway(t, one(t, h), false)) }},
		{"HTTP/2", func(t *testing.T, h http.Handler) string { return front(t, gateway(t, front(t, h), true)) }},
		{"a handler", front},
		{"a sandwich", func(t *testing.T, h http.Handler) string {
			p := gateway(t, one(t, h), false)
			return front(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { p.ServeHTTP(w, r) }))
		}},
		{"HTTP/2 and HTTP/1", func(t *testing.T, h http.Handler) string {
			return front(t, gateway(t, front(t, gateway(t, one(t, h), false)), true))
		}},
	}
	for _, client := range []bool{false, true} {
		for _, s := range sites {
			list = append(list, way{fmt.Sprintf("HTTP/%d to %s", 1+btoi(client), s.name), client, s.make})
		}
	}
	return list
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// each runs do over all ways, to servers of both libraries.
func each(t *testing.T, do func(t *testing.T, ctx context.Context, dial func(opt *coder.DialOptions) *coder.Conn)) {
	for _, w := range ways() {
		for name, h := range map[string]http.HandlerFunc{"gorilla": echoGorilla, "coder": echoCoder} {
			t.Run(w.name+"/"+name, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				addr := w.site(t, h)
				do(t, ctx, func(opt *coder.DialOptions) *coder.Conn {
					t.Helper()
					if opt == nil {
						opt = &coder.DialOptions{}
					}
					if w.client {
						opt.HTTPClient = &http.Client{Transport: overHTTP2(t)}
					}
					c, _, err := coder.Dial(ctx, "ws://"+addr+"/chat", opt)
					if err != nil {
						t.Fatal(err)
					}
					c.SetReadLimit(64 << 20)
					t.Cleanup(func() { c.CloseNow() })
					return c
				})
			})
		}
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// stream is a tunnel of HTTP/2 as the Body of a 101.
type stream struct {
	io.ReadCloser
	io.Writer
	out io.Closer
}

func (s stream) Close() error {
	s.out.Close()
	return s.ReadCloser.Close()
}

// overHTTP2 makes an extended CONNECT of a request to upgrade (RFC 8441), as
// browsers do.
func overHTTP2(t *testing.T) http.RoundTripper {
	tr := &http2.Transport{AllowHTTP: true, DialTLSContext: func(ctx context.Context, network, addr string, _ *tls.Config) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, addr)
	}}
	t.Cleanup(tr.CloseIdleConnections)
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		in, out := io.Pipe()
		req, err := http.NewRequestWithContext(t.Context(), "CONNECT", r.URL.String(), in)
		if err != nil {
			return nil, err
		}
		for name, values := range r.Header {
			if name != "Connection" && name != "Upgrade" && name != "Sec-Websocket-Key" {
				req.Header[name] = values
			}
		}
		req.Header[":protocol"] = []string{"websocket"}
		res, err := tr.RoundTrip(req)
		if err != nil || res.StatusCode != 200 {
			return res, err
		}
		sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
		res.StatusCode = 101
		res.Header.Set("Connection", "Upgrade")
		res.Header.Set("Upgrade", "websocket")
		res.Header.Set("Sec-WebSocket-Accept", base64.StdEncoding.EncodeToString(sum[:]))
		res.Body = stream{res.Body, out, out}
		return res, nil
	})
}

// Messages of all the sizes at which the framing changes, text and binary, with
// and without compression.
func TestMessages(t *testing.T) {
	each(t, func(t *testing.T, ctx context.Context, dial func(*coder.DialOptions) *coder.Conn) {
		for _, mode := range []coder.CompressionMode{coder.CompressionDisabled, coder.CompressionContextTakeover} {
			c := dial(&coder.DialOptions{Subprotocols: []string{"chat"}, CompressionMode: mode})
			if c.Subprotocol() != "chat" {
				t.Errorf("subprotocol %q", c.Subprotocol())
			}
			for _, n := range []int{0, 1, 125, 126, 127, 128, 65_535, 65_536, 65_537, 1 << 20, 5 << 20} {
				message := bytes.Repeat([]byte("é~"), n/3+1)[:n]
				kind := coder.MessageBinary
				if n%3 == 0 {
					kind = coder.MessageText
				}
				go c.Write(ctx, kind, message)
				k, got, err := c.Read(ctx)
				if err != nil || k != kind || !bytes.Equal(got, message) {
					t.Fatalf("%d bytes: %v, %d bytes, %v", n, k, len(got), err)
				}
			}
			c.Close(coder.StatusNormalClosure, "")
		}
	})
}

// A message in many fragments, with pings in between, which are answered.
func TestFragmentsAndPings(t *testing.T) {
	each(t, func(t *testing.T, ctx context.Context, dial func(*coder.DialOptions) *coder.Conn) {
		c := dial(nil)
		got := make(chan []byte, 1)
		go func() {
			_, p, err := c.Read(ctx)
			if err != nil {
				t.Error(err)
			}
			got <- p
			c.Read(ctx) // for the pongs
		}()
		w, err := c.Writer(ctx, coder.MessageBinary)
		if err != nil {
			t.Fatal(err)
		}
		var want []byte
		for i := range 50 {
			part := bytes.Repeat([]byte{byte(i)}, i*i)
			if _, err := w.Write(part); err != nil {
				t.Fatal(err)
			}
			want = append(want, part...)
			if i%10 == 0 {
				if err := c.Ping(ctx); err != nil {
					t.Fatalf("ping %d: %v", i, err)
				}
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if p := <-got; !bytes.Equal(p, want) {
			t.Errorf("got %d bytes; want %d", len(p), len(want))
		}
		if err := c.Ping(ctx); err != nil {
			t.Error(err)
		}
	})
}

// Close codes and reasons are passed on, from either side.
func TestCloseCodes(t *testing.T) {
	for _, w := range ways() {
		t.Run(w.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			ended := make(chan error, 1)
			addr := w.site(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				c, err := coder.Accept(rw, r, nil)
				if err != nil {
					t.Error(err)
					return
				}
				defer c.CloseNow()
				if r.URL.Path == "/server" {
					c.Close(4001, "by the server")
					return
				}
				_, _, err = c.Read(r.Context())
				ended <- err
			}))
			opt := &coder.DialOptions{}
			if w.client {
				opt.HTTPClient = &http.Client{Transport: overHTTP2(t)}
			}
			c, _, err := coder.Dial(ctx, "ws://"+addr+"/server", opt)
			if err != nil {
				t.Fatal(err)
			}
			_, _, err = c.Read(ctx)
			if ce := *new(coder.CloseError); !errors.As(err, &ce) || ce.Code != 4001 || ce.Reason != "by the server" {
				t.Errorf("from the server: %v", err)
			}
			for _, code := range []coder.StatusCode{1000, 1001, 1003, 1007, 1011, 3000, 4999} {
				reason := strings.Repeat("r", int(code)%123)
				if c, _, err = coder.Dial(ctx, "ws://"+addr+"/client", opt); err != nil {
					t.Fatal(err)
				}
				if err := c.Close(code, reason); err != nil {
					t.Errorf("close by %d: %v", code, err)
				}
				if ce, err := *new(coder.CloseError), <-ended; !errors.As(err, &ce) || ce.Code != code || ce.Reason != reason {
					t.Errorf("from the client: %v; want %d", err, code)
				}
			}
		})
	}
}

// What breaks the protocol is the peers' business, who close by its code: nothing
// of it is kept from them.
func TestViolations(t *testing.T) {
	mask := func(head ...byte) []byte { return append(head, 0, 0, 0, 0) } // a mask that changes nothing
	for name, tc := range map[string]struct {
		frame []byte
		code  uint16
	}{
		"reserved bit":         {mask(0xF2, 0x80), 1002},
		"reserved opcode":      {mask(0x83, 0x80), 1002},
		"fragmented ping":      {mask(0x09, 0x80), 1002},
		"continuation of none": {mask(0x80, 0x80), 1002},
		"not masked":           {[]byte{0x82, 0x01, 'x'}, 1002},
	} {
		t.Run(name, func(t *testing.T) {
			for _, w := range ways() {
				addr := w.site(t, http.HandlerFunc(echoGorilla))
				req, _ := http.NewRequest("GET", "http://"+addr+"/", nil)
				req.Header = http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="}}
				var tr http.RoundTripper = &http.Transport{}
				if w.client {
					tr = overHTTP2(t)
				}
				res, err := tr.RoundTrip(req)
				if err != nil || res.StatusCode != 101 {
					t.Fatalf("%s: %v, %v", w.name, res, err)
				}
				if _, err := res.Body.(io.Writer).Write(tc.frame); err != nil {
					t.Fatal(err)
				}
				b, _ := io.ReadAll(res.Body)
				if len(b) < 4 || b[0] != 0x88 || uint16(b[2])<<8|uint16(b[3]) != tc.code {
					t.Errorf("%s: got %x; want a close by %d", w.name, b, tc.code)
				}
				res.Body.Close()
			}
		})
	}
}

// A program dials by a Transport over a pool, over either protocol.
func TestTransport(t *testing.T) {
	for _, h2c := range []bool{false, true} {
		addr := serve(t, &l7.Server{Handler: http.HandlerFunc(echoCoder), Logger: quiet})
		p := gateway(t, addr, h2c)
		tr := &l7.Transport{Pool: p.Pool, Upstream: p.Upstream}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		c, _, err := coder.Dial(ctx, "ws://any/", &coder.DialOptions{HTTPClient: &http.Client{Transport: tr}})
		if err != nil {
			t.Fatalf("HTTP/2 %v: %v", h2c, err)
		}
		for i := range 100 {
			if err := c.Write(ctx, coder.MessageText, fmt.Append(nil, i)); err != nil {
				t.Fatal(err)
			}
			if _, b, err := c.Read(ctx); err != nil || string(b) != fmt.Sprint(i) {
				t.Fatalf("%q, %v", b, err)
			}
		}
		if err := c.Close(1000, ""); err != nil {
			t.Errorf("HTTP/2 %v: %v", h2c, err)
		}
	}
}

// Many WebSockets share the connections of HTTP/2, and nobody gets another's.
func TestManyAtOnce(t *testing.T) {
	for _, w := range ways() {
		t.Run(w.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
			defer cancel()
			addr := w.site(t, http.HandlerFunc(echoGorilla))
			opt := &coder.DialOptions{}
			if w.client {
				opt.HTTPClient = &http.Client{Transport: overHTTP2(t)}
			}
			var wg sync.WaitGroup
			for i := range 150 {
				wg.Go(func() {
					c, _, err := coder.Dial(ctx, "ws://"+addr+"/", opt)
					if err != nil {
						t.Error(err)
						return
					}
					defer c.CloseNow()
					c.SetReadLimit(1 << 20)
					for j := range 20 {
						want := bytes.Repeat(fmt.Appendf(nil, "%d.%d ", i, j), 1+j*100)
						if err := c.Write(ctx, coder.MessageBinary, want); err != nil {
							t.Error(err)
							return
						}
						if _, got, err := c.Read(ctx); err != nil || !bytes.Equal(got, want) {
							t.Errorf("%d.%d: %d bytes, %v", i, j, len(got), err)
							return
						}
					}
				})
			}
			wg.Wait()
		})
	}
}
