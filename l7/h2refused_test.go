// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
)

// A server that allows few streams on a connection gets no more than those,
// from the first burst on: who comes second waits for its SETTINGS.
func TestHTTP2FewStreams(t *testing.T) {
	fronts(t, proxyH2(nil), func(t *testing.T, f *front) {
		ln, err := f.network.Listen("tcp", one)
		if err != nil {
			t.Fatal(err)
		}
		var served atomic.Int32
		srv := &http.Server{Protocols: protocols("h2c"), HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 2}, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			served.Add(1)
			time.Sleep(100 * time.Millisecond)
			io.WriteString(w, "ok")
		})}
		go srv.Serve(ln)
		defer srv.Close()
		f.network.Dialed = func(c *l4test.Conn) error {
			c.Peer().SetLatency(10 * time.Millisecond) // SETTINGS are on their way for a while
			return nil
		}
		var wg sync.WaitGroup
		for range 40 {
			c := f.dial(t)
			wg.Go(func() {
				c.send(getA)
				if res, body, err := c.reply("GET"); err != nil || res.StatusCode != 200 || body != "ok" {
					t.Errorf("got %v %q, %v", res, body, err)
				}
			})
		}
		wg.Wait()
		for _, r := range f.done() {
			if r.Tries != 1 {
				t.Errorf("%d tries", r.Tries)
			}
		}
		if n := served.Load(); n != 40 {
			t.Errorf("the server served %d", n)
		}
	})
}

// h2Server answers streams of HTTP/2 by itself: answer is told which request it
// is, over all connections, and returns false if the connection is to end.
type h2Server struct {
	settings []http2.Setting
	answer   func(n int, s *h2ServerStream) bool

	n atomic.Int32
}

type h2ServerStream struct {
	fr *http2.Framer
	id uint32
}

func (s *h2ServerStream) reply(status, body string) {
	var b bytes.Buffer
	hpack.NewEncoder(&b).WriteField(hpack.HeaderField{Name: ":status", Value: status})
	s.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: s.id, BlockFragment: b.Bytes(), EndHeaders: true})
	s.fr.WriteData(s.id, true, []byte(body))
}

func (h *h2Server) serve(c *l4test.Conn, br *bufio.Reader) {
	io.ReadFull(br, make([]byte, len(http2.ClientPreface)))
	fr := http2.NewFramer(c, br)
	fr.WriteSettings(h.settings...)
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
		case *http2.PingFrame:
			if !f.IsAck() {
				fr.WritePing(true, f.Data)
			}
		case *http2.HeadersFrame:
			if !h.answer(int(h.n.Add(1)), &h2ServerStream{fr, f.StreamID}) {
				return
			}
		}
	}
}

// A request that the server says it has not looked at is sent again, whatever
// its method, and without the retry budget, of which there is none here (RFC
// 9113, section 8.7).
func TestHTTP2RefusedStreamsAreRepeated(t *testing.T) {
	site := func(n *l4test.Network) http.Handler {
		p := newProxy(n, one)
		p.Pool = &balance.Pool{Budget: balance.Budget{Share: -1, Min: -1}}
		if err := p.Pool.Set(balance.Endpoint{Addr: one}); err != nil {
			t.Fatal(err)
		}
		p.Upstream.Protocols = protocols("h2c")
		return p
	}
	refuse := func(s *h2ServerStream) bool {
		s.fr.WriteRSTStream(s.id, http2.ErrCodeRefusedStream)
		return true
	}
	goAway := func(code http2.ErrCode) func(s *h2ServerStream) bool {
		return func(s *h2ServerStream) bool {
			s.fr.WriteGoAway(s.id-min(s.id, 2), code, nil)
			return false
		}
	}
	for _, tc := range []struct {
		name   string
		refuse func(s *h2ServerStream) bool
		times  int
		want   string
	}{
		{"refused once", refuse, 1, "200 ok"},
		{"refused three times", refuse, 3, "200 ok"},
		{"refused five times", refuse, 5, "200 ok"}, // the second try, which is not the budget's business
		{"refused always", refuse, 1000, "502"},
		{"GOAWAY", goAway(http2.ErrCodeNo), 1, "200 ok"},
		{"GOAWAY three times", goAway(http2.ErrCodeNo), 3, "200 ok"},
		{"GOAWAY always", goAway(http2.ErrCodeNo), 1000, "502"}, // without taking any
		{"GOAWAY with an error", goAway(http2.ErrCodeEnhanceYourCalm), 1, "200 ok"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			fronts(t, site, func(t *testing.T, f *front) {
				h := &h2Server{answer: func(n int, s *h2ServerStream) bool {
					if n <= tc.times {
						return tc.refuse(s)
					}
					s.reply("200", "ok")
					return true
				}}
				serveOrigin(t, f.network, one, h.serve)
				for _, body := range []string{"", strings.Repeat("x", 10_000)} {
					h.n.Store(0)
					res, err := f.client.Post("http://a.test/", "text/plain", strings.NewReader(body))
					if err != nil {
						t.Fatal(err)
					}
					b, _ := io.ReadAll(res.Body)
					res.Body.Close()
					if got := fmt.Sprint(res.StatusCode, " ", string(b)); !strings.HasPrefix(got, tc.want) {
						t.Errorf("%d bytes: got %s; want %s: %v", len(body), got, tc.want, f.last(t).Err)
					}
					if n := h.n.Load(); tc.times == 1000 && n > 8 {
						t.Errorf("the server was asked %d times", n)
					}
				}
			})
		})
	}
}

// A server that sends no SETTINGS holds up those who wait for them for no longer
// than ConnectTimeout, and no others.
func TestHTTP2NoSettings(t *testing.T) {
	withTransport(t, []string{one}, func(t *testing.T, n *l4test.Network, tr *l7.Transport) {
		tr.Upstream.Protocols, tr.Retry.Tries = protocols("h2c"), 1
		tr.HeaderTimeout = 20 * time.Second
		var conns atomic.Int32
		serveOrigin(t, n, one, func(c *l4test.Conn, br *bufio.Reader) {
			conns.Add(1)
			io.Copy(io.Discard, br)
		})
		var wg sync.WaitGroup
		ask := func(want time.Duration) {
			wg.Go(func() {
				start := time.Now()
				_, err := tr.RoundTrip(get("http://a.test/"))
				if d := time.Since(start); err == nil || d < want || d > want*3/2 {
					t.Errorf("%v after %v; want an error after %v", err, d, want)
				}
			})
			time.Sleep(time.Second)
		}
		ask(20 * time.Second) // has its stream
		ask(3 * time.Second)  // waits
		time.Sleep(3 * time.Second)
		ask(20 * time.Second) // has a connection of its own
		wg.Wait()
		if c := conns.Load(); c != 2 {
			t.Errorf("%d connections; want 2", c)
		}
	})
}

// A server that ends a connection before its SETTINGS may have served the request that it has
// read: that is repeated only if it is idempotent.
func TestHTTP2EndBeforeSettings(t *testing.T) {
	fronts(t, proxyH2(nil), func(t *testing.T, f *front) {
		var asked atomic.Int32
		serveOrigin(t, f.network, one, func(c *l4test.Conn, br *bufio.Reader) {
			io.ReadFull(br, make([]byte, len(http2.ClientPreface)))
			for fr := http2.NewFramer(c, br); ; {
				frame, err := fr.ReadFrame()
				if err != nil {
					return
				}
				if _, is := frame.(*http2.HeadersFrame); is {
					asked.Add(1)
					return
				}
			}
		})
		for method, most := range map[string]int32{"POST": 1, "PUT": 8} {
			asked.Store(0)
			req, err := http.NewRequest(method, "http://a.test/", strings.NewReader("x"))
			if err != nil {
				t.Fatal(err)
			}
			res, err := f.client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if n := asked.Load(); res.StatusCode != http.StatusBadGateway || n < 1 || n > most {
				t.Errorf("%s: status %d, and the server was asked %d times; want 502 and at most %d", method, res.StatusCode, n, most)
			}
		}
	})
}

// A connection takes as many streams as MaxStreams says, and another is opened for
// more: a server works on one connection with one thread, and its window bounds all.
func TestHTTP2StreamsOfAConnection(t *testing.T) {
	for name, c := range map[string]struct{ most, conns int }{"default": {0, 3}, "few": {30, 9}, "as many as the server allows": {-1, 1}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := l4test.NewNetwork()
				ln, err := network.Listen("tcp", one)
				if err != nil {
					t.Fatal(err)
				}
				var conns atomic.Int32
				srv := &http.Server{Protocols: protocols("h2c"), HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 1000},
					ConnState: func(_ net.Conn, st http.ConnState) {
						if st == http.StateNew {
							conns.Add(1)
						}
					},
					Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { time.Sleep(time.Second) })}
				go srv.Serve(ln)
				defer srv.Close()
				tr := &l7.Transport{Pool: newPool(one), Upstream: &l7.Upstream{Dial: network.DialContext, Protocols: protocols("h2c"), MaxStreams: c.most}}
				var wg sync.WaitGroup
				for range 256 {
					wg.Go(func() {
						res, err := (&http.Client{Transport: tr}).Get("http://" + one)
						if err != nil {
							t.Error(err)
							return
						}
						res.Body.Close()
					})
				}
				wg.Wait()
				tr.Upstream.CloseIdle()
				if n := int(conns.Load()); n != c.conns {
					t.Errorf("%d connections, want %d", n, c.conns)
				}
			})
		})
	}
}
