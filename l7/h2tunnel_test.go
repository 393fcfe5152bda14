// SPDX-License-Identifier: Apache-2.0

package l7_test

//lint:file-ignore SA1019 the client of net/http sends no extended CONNECT

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
)

// tunnelTo returns a site that lets CONNECT and WebSocket through to one.
func tunnelTo(names ...string) func(n *l4test.Network) http.Handler {
	return func(n *l4test.Network) http.Handler {
		p := newProxy(n, one)
		p.Connect, p.Upstream.Protocols = true, protocols(names...)
		return p
	}
}

// relayTo serves, at one, a gateway to two: a server of HTTP/2 that offers
// extended CONNECT. With secure it speaks TLS.
func relayTo(t *testing.T, n *l4test.Network, secure *tls.Config) {
	p := newProxy(n, two)
	p.Connect = true
	srv := &l7.Server{Logger: discardLog(), TLSConfig: secure, Handler: l7.HandlerFunc(func(x *l7.Exchange) {
		if x.Path == "/" {
			x.Respond(200, nil, "")
			return
		}
		l7.Serve(p, x)
	})}
	ln, err := n.Listen("tcp", one)
	if err != nil {
		t.Fatal(err)
	}
	if secure != nil {
		go srv.ServeTLS(ln, "", "")
	} else {
		go srv.Serve(ln)
	}
	t.Cleanup(func() { srv.Close() })
}

// echoConnect is a proxy of HTTP/1 that echoes what comes through CONNECT.
func echoConnect(t *testing.T, n *l4test.Network, addr string) {
	serveOrigin(t, n, addr, func(c *l4test.Conn, br *bufio.Reader) {
		r, err := http.ReadRequest(br)
		if err != nil {
			return
		}
		if r.Method != "CONNECT" || r.Host != "b.test:443" {
			t.Errorf("the server got %s %s", r.Method, r.Host)
		}
		io.WriteString(c, "HTTP/1.1 200 OK\r\nX-By: proxy\r\n\r\n")
		io.Copy(c, br)
		c.CloseWrite()
	})
}

// A stretch is a tunnel as its client has it.
type stretch struct {
	io.Reader
	io.WriteCloser // Close ends one direction
}

// openH1 opens a tunnel over HTTP/1.
func (f *front) openH1(t *testing.T, connect bool) stretch {
	c := f.dial(t)
	want := 101
	if connect {
		c.send("CONNECT b.test:443 HTTP/1.1\r\nHost: b.test:443\r\n\r\n")
		want = 200
	} else {
		c.send("GET /chat?x HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" +
			"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	}
	head := ""
	for !strings.HasSuffix(head, "\r\n\r\n") {
		line, err := c.br.ReadString('\n')
		if err != nil {
			t.Fatalf("%q, %v", head, err)
		}
		head += line
	}
	res, err := http.ReadResponse(bufio.NewReader(strings.NewReader(head)), &http.Request{Method: "CONNECT"})
	if err != nil || res.StatusCode != want || connect && res.Header.Get("X-By") != "proxy" {
		t.Fatalf("%v, %v", res, err)
	}
	if got := res.Header.Get("Sec-WebSocket-Accept"); !connect && got != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" { // RFC 6455, section 1.3
		t.Errorf("Sec-WebSocket-Accept: %q", got)
	}
	return stretch{c.br, writeEnd{c.Conn}}
}

type writeEnd struct{ *l4test.Conn }

func (w writeEnd) Close() error { return w.CloseWrite() }

// openH2 opens a tunnel over HTTP/2.
func (f *front) openH2(t *testing.T, connect bool) stretch {
	if !connect {
		res, out, err := f.socket(t, "/chat?x", "websocket")
		if err != nil || res.StatusCode != 200 {
			t.Fatalf("%v, %v", res, err)
		}
		return stretch{res.Body, out}
	}
	tr := &http2.Transport{AllowHTTP: true, DialTLSContext: func(ctx context.Context, _, _ string, _ *tls.Config) (net.Conn, error) {
		return f.network.DialContext(ctx, "tcp", siteAddr)
	}}
	t.Cleanup(tr.CloseIdleConnections)
	in, out := io.Pipe()
	t.Cleanup(func() { out.Close() })
	req, _ := http.NewRequestWithContext(t.Context(), "CONNECT", "http://b.test:443", in)
	res, err := tr.RoundTrip(req)
	if err != nil || res.StatusCode != 200 || res.Header.Get("X-By") != "proxy" {
		t.Fatalf("%v, %v", res, err)
	}
	t.Cleanup(func() { res.Body.Close() })
	return stretch{res.Body, out}
}

// WebSocket and CONNECT go from clients of either protocol to servers of either
// protocol, with the end of each direction for itself.
func TestTunnelsBetweenProtocols(t *testing.T) {
	for _, connect := range []bool{false, true} {
		for _, client := range []string{"HTTP/1", "HTTP/2"} {
			for _, server := range []string{"HTTP/1", "HTTP/2"} {
				t.Run(fmt.Sprintf("connect=%v/%s to %s", connect, client, server), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						site := tunnelTo("1")
						if server == "HTTP/2" {
							site = tunnelTo("h2c")
						}
						byteFront(t, site, new(l7.Server), func(t *testing.T, f *front) {
							end := one
							if server == "HTTP/2" {
								relayTo(t, f.network, nil)
								end = two
							}
							open, status := f.openH1, 101
							if client == "HTTP/2" {
								open = f.openH2
							}
							if connect {
								echoConnect(t, f.network, end)
								status = 200
							} else {
								echoSocket(t, f.network, end, nil)
							}
							c := open(t, connect)
							for _, size := range []int{1, 70_000, 3 << 20} {
								message := bytes.Repeat([]byte{byte(size)}, size)
								go c.Write(message)
								got := make([]byte, size)
								if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, message) {
									t.Fatalf("%d bytes: %v", size, err)
								}
								time.Sleep(time.Minute)
							}
							go func() {
								io.WriteString(c, "last")
								c.Close()
							}()
							if rest, err := io.ReadAll(c); string(rest) != "last" || err != nil {
								t.Errorf("at the end: %q, %v", rest, err)
							}
							if r := f.last(t); r.Status != status || r.Termination.String() != "--" || r.BytesIn != r.BytesOut || r.BytesOut < 3<<20 {
								t.Errorf("the record: %d, %v, %d and %d bytes", r.Status, r.Termination, r.BytesIn, r.BytesOut)
							}
						})
					})
				})
			}
		}
	}
}

// h2TunnelServer takes one stream, notes what it is asked for, and answers as
// answer does once the head has come. Its SETTINGS come after a second.
func h2TunnelServer(t *testing.T, n *l4test.Network, offer bool, asked *string, answer func(s *h2ServerStream, fr *http2.Framer)) {
	serveOrigin(t, n, one, func(c *l4test.Conn, br *bufio.Reader) {
		io.ReadFull(br, make([]byte, len(http2.ClientPreface)))
		time.Sleep(time.Second)
		start := time.Now()
		fr := http2.NewFramer(c, br)
		fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
		if offer {
			fr.WriteSettings(http2.Setting{ID: http2.SettingEnableConnectProtocol, Val: 1})
		} else {
			fr.WriteSettings()
		}
		for {
			f, err := fr.ReadFrame()
			if err != nil {
				return
			}
			switch f := f.(type) {
			case *http2.SettingsFrame:
				if !f.IsAck() {
					fr.WriteSettingsAck()
				}
			case *http2.RSTStreamFrame:
				*asked += " reset:" + f.ErrCode.String()
			case *http2.DataFrame:
				*asked += fmt.Sprintf(" data:%s,%v", f.Data(), f.StreamEnded())
			case *http2.MetaHeadersFrame:
				if time.Since(start) != 0 && offer {
					t.Error("the server was asked before its SETTINGS had come, or long after")
				}
				for _, hf := range f.Fields {
					if strings.HasPrefix(hf.Name, ":") || strings.HasPrefix(hf.Name, "sec-") || hf.Name == "upgrade" {
						*asked += hf.Name + "=" + hf.Value + " "
					}
				}
				*asked += fmt.Sprintf("end=%v", f.StreamEnded())
				answer(&h2ServerStream{fr, f.StreamID}, fr)
			}
		}
	})
}

const wsHead = "GET /chat?x HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" +
	"Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"

// A server that offers extended CONNECT gets it once it has said so, without the
// key that HTTP/2 does not need; one that does not gets the request without the
// wish (RFC 8441, sections 3 to 5).
func TestUpgradeToServersOfHTTP2(t *testing.T) {
	ok := func(s *h2ServerStream, fr *http2.Framer) {
		var b bytes.Buffer
		hpack.NewEncoder(&b).WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
		fr.WriteHeaders(http2.HeadersFrameParam{StreamID: s.id, BlockFragment: b.Bytes(), EndHeaders: true})
		fr.WriteData(s.id, false, []byte("hi"))
	}
	const extended = ":method=CONNECT :protocol=websocket :scheme=http :authority=a.test :path=/chat?x sec-websocket-version=13 sec-websocket-protocol=chat end=false"
	for _, tc := range []struct {
		name   string
		offer  bool
		answer func(s *h2ServerStream, fr *http2.Framer)
		status int
		body   string
		asked  string
		end    string
	}{
		{"offered", true, ok, 101, "hi", extended, "reset:CANCEL"},
		{"offered and refused", true, func(s *h2ServerStream, _ *http2.Framer) { s.reply("403", "no") }, 403, "no", extended, "reset:NO_ERROR"},
		{"not offered", false, func(s *h2ServerStream, _ *http2.Framer) { s.reply("426", "no") }, 426, "no",
			":method=GET :scheme=http :authority=a.test :path=/chat?x sec-websocket-version=13 sec-websocket-protocol=chat sec-websocket-key=dGhlIHNhbXBsZSBub25jZQ== end=true", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				byteFront(t, tunnelTo("h2c"), new(l7.Server), func(t *testing.T, f *front) {
					var asked string
					h2TunnelServer(t, f.network, tc.offer, &asked, tc.answer)
					c := f.dial(t).send(wsHead)
					res, body, err := c.reply("GET")
					if err == nil && res.StatusCode == 101 {
						b := make([]byte, 2)
						_, err = io.ReadFull(c.br, b)
						body = string(b)
					}
					if err != nil || res.StatusCode != tc.status || body != tc.body {
						t.Fatalf("%v, %q, %v", res, body, err)
					}
					c.SetLinger(0)
					c.Close()
					synctest.Wait()
					if got, want := asked, strings.TrimSpace(tc.asked+" "+tc.end); got != want {
						t.Errorf("the server got\n%s; want\n%s", got, want)
					}
				})
			})
		})
	}
}

// A server that breaks a tunnel off breaks it for the client, whatever the client
// speaks: a part is not to look like the whole.
func TestTunnelBrokenOffByTheServer(t *testing.T) {
	for _, client := range []string{"HTTP/1", "HTTP/2"} {
		for _, server := range []string{"h2c", "1"} {
			t.Run(client+" to "+server, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					byteFront(t, tunnelTo(server), new(l7.Server), func(t *testing.T, f *front) {
						var asked string
						if server == "1" {
							serveOrigin(t, f.network, one, func(c *l4test.Conn, br *bufio.Reader) {
								http.ReadRequest(br)
								io.WriteString(c, "HTTP/1.1 200 OK\r\nX-By: proxy\r\n\r\npart")
								time.Sleep(time.Second)
								c.SetLinger(0)
							})
						} else {
							h2TunnelServer(t, f.network, false, &asked, func(s *h2ServerStream, fr *http2.Framer) {
								var b bytes.Buffer
								enc := hpack.NewEncoder(&b)
								enc.WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
								enc.WriteField(hpack.HeaderField{Name: "x-by", Value: "proxy"})
								fr.WriteHeaders(http2.HeadersFrameParam{StreamID: s.id, BlockFragment: b.Bytes(), EndHeaders: true})
								fr.WriteData(s.id, false, []byte("part"))
								time.Sleep(time.Second)
								fr.WriteRSTStream(s.id, http2.ErrCodeInternal)
							})
						}
						open := f.openH1
						if client == "HTTP/2" {
							open = f.openH2
						}
						c := open(t, true)
						if b, err := io.ReadAll(c); string(b) != "part" || err == nil {
							t.Errorf("got %q, %v; want an error", b, err)
						}
						if r := f.last(t); r.Termination.String() != "SD" {
							t.Errorf("the record: %v, %v", r.Termination, r.Err)
						}
					})
				})
			})
		}
	}
}

// Where both protocols are allowed, a WebSocket takes HTTP/1 until the server has
// offered extended CONNECT, and then a stream of the connection there is.
func TestWebSocketSharesAConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var dials int
		site := func(n *l4test.Network) http.Handler {
			p := tunnelTo("1", "2")(n).(*l7.Proxy)
			p.Upstream.TLS = func(*balance.Server) *tls.Config { return &tls.Config{InsecureSkipVerify: true} }
			p.Upstream.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
				dials++
				return n.DialContext(ctx, network, addr)
			}
			return p
		}
		byteFront(t, site, new(l7.Server), func(t *testing.T, f *front) {
			relayTo(t, f.network, &tls.Config{Certificates: []tls.Certificate{selfSigned(t)}, NextProtos: []string{"h2", "http/1.1"}})
			echoSocket(t, f.network, two, nil)
			talk := func() {
				t.Helper()
				c := f.openH1(t, false)
				go io.WriteString(c, "hello")
				b := make([]byte, 5)
				if _, err := io.ReadFull(c, b); err != nil || string(b) != "hello" {
					t.Errorf("%q, %v", b, err)
				}
				c.Close()
				io.ReadAll(c)
				synctest.Wait()
			}
			talk()
			if dials != 1 {
				t.Errorf("%d connections; want 1", dials)
			}
			f.get(t, "/") // over HTTP/2, whose server offers it
			talk()
			talk()
			if dials != 2 {
				t.Errorf("%d connections; want 2", dials)
			}
		})
	})
}

// CONNECT over HTTP/2 is answered 405 unless it is allowed, and where the stream
// cannot be had, as under net/http.
func TestConnectOverHTTP2IsRefused(t *testing.T) {
	ask := func(t *testing.T, f *front) {
		if got := h2Ask(t, f.network, "", nil, ":method", "CONNECT", ":authority", "b.test:443"); got != "405" {
			t.Errorf("got %s", got)
		}
	}
	synctest.Test(t, func(t *testing.T) { byteFront(t, proxyTo(one), new(l7.Server), ask) })
	synctest.Test(t, func(t *testing.T) {
		f := newFront("standard")
		srv := &http.Server{Handler: tunnelTo("1")(f.network), Protocols: protocols("h2c")}
		f.run(t, srv.Serve, srv.Close, ask)
	})
}
