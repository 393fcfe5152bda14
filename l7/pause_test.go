// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"bufio"
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

	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/l7/l7test"
)

// clientOf connects to a front on n, over TLS if cfg is not nil.
func clientOf(t *testing.T, n *l4test.Network, cfg *tls.Config) (net.Conn, *l4test.Conn) {
	t.Helper()
	nc, err := n.DialContext(t.Context(), "tcp", siteAddr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	if cfg == nil {
		return nc, nc.(*l4test.Conn)
	}
	c := tls.Client(nc, cfg)
	t.Cleanup(func() { c.Close() })
	return c, nc.(*l4test.Conn)
}

// serveAs serves srv on siteAddr, over TLS if secure, and returns what clients
// need to connect.
func serveAs(t *testing.T, n *l4test.Network, srv *l7.Server, secure bool) *tls.Config {
	t.Helper()
	ln, err := n.Listen("tcp", siteAddr)
	if err != nil {
		t.Fatal(err)
	}
	if srv.Logger == nil {
		srv.Logger = discardLog()
	}
	t.Cleanup(func() { srv.Close() })
	if !secure {
		go srv.Serve(ln)
		return nil
	}
	srv.TLSConfig = &tls.Config{Certificates: []tls.Certificate{selfSigned(t)}}
	go srv.ServeTLS(ln, "", "")
	return &tls.Config{InsecureSkipVerify: true}
}

// A server may pause between the pieces of its reply for longer than the client
// may take for one: SendTimeout is judged by the time at which there is
// something to write.
func TestReplyPausesLongerThanSendTimeout(t *testing.T) {
	for name, head := range map[string]string{
		"chunked": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n",
		"length":  "HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\nfirst",
		"close":   "HTTP/1.1 200 OK\r\n\r\nfirst",
	} {
		pieces := map[string][2]string{
			"chunked": {"6\r\nsecond\r\n", "6\r\nthird!\r\n0\r\n\r\n"},
			"length":  {"second", "third!"},
			"close":   {"second", "third!"},
		}[name]
		for _, secure := range []bool{false, true} {
			t.Run(fmt.Sprint(name, " TLS ", secure), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n := l4test.NewNetwork()
					origin(t, n, one, l7test.Script{l7test.Send(head), l7test.Wait(3 * time.Second), l7test.Send(pieces[0]),
						l7test.Wait(3 * time.Second), l7test.Send(pieces[1]), l7test.Close()})
					p := newProxy(n, one)
					p.BodyTimeout = 20 * time.Second
					var last l7.Record
					srv := &l7.Server{Handler: p, SendTimeout: 2 * time.Second, OnDone: func(r *l7.Record) { last = *r }}
					c, _ := clientOf(t, n, serveAs(t, n, srv, secure))
					io.WriteString(c, getA)
					res, err := http.ReadResponse(bufio.NewReader(c), nil)
					if err != nil {
						t.Fatal(err)
					}
					b, err := io.ReadAll(res.Body)
					synctest.Wait()
					if string(b) != "firstsecondthird!" || err != nil || last.Termination.String() != "--" {
						t.Errorf("read %q, %v; the record says %v, %v", b, err, last.Termination, last.Err)
					}
				})
			})
		}
	}
}

// What the host does between the head of the reply and its sending takes no
// time from the client.
func TestEditorPausesLongerThanSendTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := l4test.NewNetwork()
		origin(t, n, one, l7test.Script{l7test.Reply(200, strings.Repeat("x", 3<<20))})
		p := newProxy(n, one)
		h := l7.HandlerFunc(func(x *l7.Exchange) {
			x.OnReply(l7.ReplyFunc(func(*l7.Exchange, *l7.Reply) { time.Sleep(3 * time.Second) }))
			p.ServeExchange(x)
		})
		c, _ := clientOf(t, n, serveAs(t, n, &l7.Server{Handler: h, SendTimeout: 2 * time.Second}, false))
		io.WriteString(c, getA)
		time.Sleep(4500 * time.Millisecond) // 3 of the editor, 1.5 of not reading
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(res.Body); len(b) != 3<<20 || err != nil {
			t.Errorf("read %d bytes, %v", len(b), err)
		}
	})
}

// slowConn reads 4 KiB a second.
type slowConn struct{ net.Conn }

func (c slowConn) Read(p []byte) (int, error) {
	time.Sleep(time.Second)
	return c.Conn.Read(p[:min(len(p), 4<<10)])
}

// A client that takes a reply slowly, but takes it, gets all of it, however
// long that is: the timeout is one of standing still.
func TestSlowClientOutlivesSendTimeout(t *testing.T) {
	for _, secure := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			n := l4test.NewNetwork()
			const size = 3 << 20
			origin(t, n, one, l7test.Script{l7test.Reply(200, strings.Repeat("x", size))})
			var last l7.Record
			srv := &l7.Server{Handler: newProxy(n, one), SendTimeout: 2 * time.Second, OnDone: func(r *l7.Record) { last = *r }}
			cfg := serveAs(t, n, srv, secure)
			_, raw := clientOf(t, n, nil)
			var c net.Conn = slowConn{raw} // 64 KiB, a write, take 16 s; a record of TLS takes 4
			if secure {
				c = tls.Client(c, cfg)
			}
			io.WriteString(c, getA)
			res, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatal(err)
			}
			if k, err := io.Copy(io.Discard, res.Body); k < size || err != nil {
				t.Errorf("TLS %v: read %d bytes, %v; the record says %v %v", secure, k, err, last.Termination, last.Err)
			}
		})
	}
}

// A client that takes nothing is cut, on every path to it.
func TestStalledClientEndsAtSendTimeout(t *testing.T) {
	big := strings.Repeat("x", 3<<20)
	foreign := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, big) })
	for _, tc := range []struct {
		name   string
		h      http.Handler
		secure bool
	}{{"proxy", nil, false}, {"proxy over TLS", nil, true}, {"foreign", foreign, false}, {"foreign over TLS", foreign, true}} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := l4test.NewNetwork()
				origin(t, n, one, l7test.Script{l7test.Reply(200, big)})
				done := make(chan l7.Record, 1)
				srv := &l7.Server{Handler: tc.h, SendTimeout: 2 * time.Second, OnDone: func(r *l7.Record) { done <- *r }}
				if tc.h == nil {
					srv.Handler = newProxy(n, one)
				}
				c, _ := clientOf(t, n, serveAs(t, n, srv, tc.secure))
				start := time.Now()
				io.WriteString(c, getA)
				select {
				case <-done:
				case <-time.After(time.Minute):
					t.Fatal("the exchange goes on")
				}
				if d := time.Since(start); d < 2*time.Second || d > 3*time.Second {
					t.Errorf("ended after %v; want 2s to 2.5s", d)
				}
			})
		})
	}
}

// A connection lives between requests for as long as IdleTimeout says, counted
// from when the last reply was sent, however long that took.
func TestIdleTimeBeginsBehindTheReply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := l4test.NewNetwork()
		const size = 2 << 20
		h := l7.HandlerFunc(func(x *l7.Exchange) { x.Respond(200, nil, strings.Repeat("x", size)) })
		c, _ := clientOf(t, n, serveAs(t, n, &l7.Server{Handler: h, IdleTimeout: 10 * time.Second}, false))
		br := bufio.NewReader(c)
		for range 2 {
			io.WriteString(c, getA)
			time.Sleep(20 * time.Second)
			res, err := http.ReadResponse(br, nil)
			if err != nil {
				t.Fatal(err)
			}
			if k, err := io.Copy(io.Discard, res.Body); k != size || err != nil {
				t.Fatalf("read %d, %v", k, err)
			}
			time.Sleep(9900 * time.Millisecond)
		}
	})
}

// So it is over HTTP/2, where one stream may wait for what another one writes.
func TestSlowClientOutlivesSendTimeoutOverHTTP2(t *testing.T) {
	for _, secure := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			n := l4test.NewNetwork()
			const size = 1 << 20
			h := l7.HandlerFunc(func(x *l7.Exchange) { x.Respond(200, nil, strings.Repeat("x", size)) })
			cfg := serveAs(t, n, &l7.Server{Handler: h, SendTimeout: 2 * time.Second, Logger: discardLog()}, secure)
			_, raw := clientOf(t, n, nil)
			defer func() { // as the client sleeps between its reads
				raw.Close()
				time.Sleep(10 * time.Second)
			}()
			dial := func(context.Context, string, string) (net.Conn, error) { return slowConn{raw}, nil } // 64 KiB, a write, take 16 s
			tr, url := &http.Transport{DialContext: dial, Protocols: protocols("h2c")}, "http://a.test/"
			if secure {
				cfg.NextProtos = []string{"h2"}
				tr.Protocols, tr.TLSClientConfig, url = protocols("2"), cfg, "https://a.test/"
			}
			defer tr.CloseIdleConnections()
			done := make(chan error, 3)
			for range cap(done) {
				go func() {
					res, err := (&http.Client{Transport: tr}).Get(url)
					if err == nil {
						_, err = io.CopyN(io.Discard, res.Body, size)
						res.Body.Close()
					}
					done <- err
				}()
				time.Sleep(10 * time.Second) // one connection for all
			}
			for range cap(done) {
				if err := <-done; err != nil {
					t.Errorf("TLS %v: %v", secure, err)
				}
			}
		})
	}
}

// A server that takes a request body slowly gets all of it as well.
func TestSlowServerOutlivesBodyTimeout(t *testing.T) {
	const size = 3 << 20
	set := func(n *l4test.Network) http.Handler {
		p := newProxy(n, one)
		p.BodyTimeout, p.HeaderTimeout = 2*time.Second, time.Hour // much of it is on its way when all is sent
		return p
	}
	fronts(t, set, func(t *testing.T, f *front) {
		serveOrigin(t, f.network, one, func(c *l4test.Conn, _ *bufio.Reader) {
			r, err := http.ReadRequest(bufio.NewReaderSize(slowConn{c}, 4<<10))
			if err != nil {
				return
			}
			k, _ := io.Copy(io.Discard, r.Body)
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n%7d", k)
		})
		res, err := f.client.Post("http://a.test/", "text/plain", strings.NewReader(strings.Repeat("x", size)))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if b, err := io.ReadAll(res.Body); string(b) != fmt.Sprintf("%7d", size) || err != nil {
			t.Errorf("%d %q, %v: %v", res.StatusCode, b, err, f.last(t).Err)
		}
	})
}

// TLS of a listener's cannot go on with a record that was out of time, so there
// the timeout is of a whole write, and not of a part of it.
func TestListenerTLSGetsAllOfWriteTimeout(t *testing.T) {
	for _, h2client := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			n := l4test.NewNetwork()
			const size = 2 << 20
			ln, err := n.Listen("tcp", siteAddr)
			if err != nil {
				t.Fatal(err)
			}
			cfg := &tls.Config{Certificates: []tls.Certificate{selfSigned(t)}}
			ask := &tls.Config{InsecureSkipVerify: true}
			if h2client {
				cfg.NextProtos, ask.NextProtos = []string{"h2"}, []string{"h2"}
			}
			origin(t, n, one, l7test.Script{l7test.Reply(200, strings.Repeat("x", size))})
			srv := &l7.Server{Handler: newProxy(n, one), SendTimeout: 20 * time.Second, Logger: discardLog()}
			go srv.Serve(tls.NewListener(ln, cfg))
			defer srv.Close()
			_, raw := clientOf(t, n, nil)
			defer func() { // as the client sleeps between its reads
				raw.Close()
				time.Sleep(10 * time.Second)
			}()
			tr := &http.Transport{Protocols: protocols("1", "2"), ForceAttemptHTTP2: h2client, TLSClientConfig: ask,
				DialContext: func(context.Context, string, string) (net.Conn, error) { return slowConn{raw}, nil }}
			defer tr.CloseIdleConnections()
			res, err := (&http.Client{Transport: tr}).Get("https://a.test/") // 64 KiB take 16 s
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if k, err := io.Copy(io.Discard, res.Body); k != size || err != nil {
				t.Errorf("HTTP/2 %v: read %d bytes, %v", h2client, k, err)
			}
		})
	}
}
