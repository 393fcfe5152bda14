// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
)

// A flapper is a server that sends a GOAWAY after every few streams of a connection, answers
// those that it has taken, and ends the connection.
type flapper struct {
	after int    // streams
	drop  uint32 // of those, how many at most the GOAWAY gives back
	twice bool   // a first GOAWAY still allows all streams (RFC 9113, section 6.8)

	mu     sync.Mutex
	served map[string]int // by target
}

// A flap is one connection of a flapper.
type flap struct {
	*flapper
	fr      *http2.Framer
	replies sync.WaitGroup

	mu      sync.Mutex // also for writing
	asked   int
	highest uint32 // processed
	last    uint32 // that the GOAWAY takes; 0 until there is one
}

func (f *flapper) serve(c *l4test.Conn, br *bufio.Reader) {
	io.ReadFull(br, make([]byte, len(http2.ClientPreface)))
	s := &flap{flapper: f, fr: http2.NewFramer(c, br)}
	s.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	s.fr.WriteSettings()
	for {
		frame, err := s.fr.ReadFrame()
		if err != nil {
			return
		}
		s.take(c, frame)
	}
}

func (s *flap) take(c *l4test.Conn, frame http2.Frame) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch frame := frame.(type) {
	case *http2.SettingsFrame:
		if !frame.IsAck() {
			s.fr.WriteSettingsAck()
		}
	case *http2.PingFrame:
		if !frame.IsAck() {
			s.fr.WritePing(true, frame.Data)
		}
	case *http2.MetaHeadersFrame:
		if s.last != 0 {
			return // given back
		}
		s.asked++
		id, target := frame.StreamID, frame.PseudoValue("path")
		s.replies.Go(func() { s.reply(id, target) })
		switch {
		case s.twice && s.asked == s.after:
			s.fr.WriteGoAway(1<<31-1, http2.ErrCodeNo, nil)
		case s.asked >= s.after:
			s.last = max(s.highest, id-min(id, 2*s.drop))
			s.fr.WriteGoAway(s.last, http2.ErrCodeNo, nil)
			go func() {
				s.replies.Wait()
				c.CloseWrite()
			}()
		}
	}
}

func (s *flap) reply(id uint32, target string) {
	time.Sleep(time.Duration(id%5+1) * time.Millisecond)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last != 0 && id > s.last {
		return
	}
	s.highest = max(s.highest, id)
	s.flapper.mu.Lock()
	s.served[target]++
	s.flapper.mu.Unlock()
	var b bytes.Buffer
	hpack.NewEncoder(&b).WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
	s.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: b.Bytes(), EndHeaders: true})
	s.fr.WriteData(id, true, []byte(target))
}

// A server that ends its connections all the time, and says by GOAWAY what it has not
// processed, fails no request, whatever its method, and gets each once, without the retry
// budget.
func TestServerThatKeepsGoingAway(t *testing.T) {
	const clients, each = 20, 10
	for _, tc := range []*flapper{
		{after: 1}, {after: 3}, {after: 50}, {after: 3, drop: 1}, {after: 10, drop: 4}, {after: 3, twice: true},
	} {
		for _, method := range []string{"GET", "POST"} {
			name := fmt.Sprintf("%s/after %d, %d given back, twice %v", method, tc.after, tc.drop, tc.twice)
			t.Run(name, func(t *testing.T) {
				var p *l7.Proxy
				site := func(n *l4test.Network) http.Handler {
					p = newProxy(n, one)
					p.Pool = &balance.Pool{Budget: balance.Budget{Share: -1, Min: -1}}
					if err := p.Pool.Set(balance.Endpoint{Addr: one}); err != nil {
						t.Fatal(err)
					}
					p.Upstream.Protocols = protocols("h2c")
					return p
				}
				fronts(t, site, func(t *testing.T, f *front) {
					s := &flapper{after: tc.after, drop: tc.drop, twice: tc.twice, served: map[string]int{}}
					serveOrigin(t, f.network, one, s.serve)
					f.network.Dialed = func(c *l4test.Conn) error {
						if c.RemoteAddr().String() == one { // a GOAWAY is on its way for a while
							c.SetLatency(5 * time.Millisecond)
							c.Peer().SetLatency(5 * time.Millisecond)
						}
						return nil
					}
					var wg sync.WaitGroup
					for i := range clients {
						wg.Go(func() {
							for j := range each {
								f.askOnce(t, method, fmt.Sprintf("/%d/%d", i, j))
							}
						})
					}
					wg.Wait()
					for target, n := range s.served {
						if n != 1 {
							t.Errorf("%s was served %d times", target, n)
						}
					}
					if n := len(s.served); n != clients*each {
						t.Errorf("%d requests were served; want %d", n, clients*each)
					}
					p.Upstream.CloseIdle()
					time.Sleep(time.Second)
					if n := p.Pool.Server(one).InFlight(); n != 0 {
						t.Errorf("%d in flight", n)
					}
				})
			})
		}
	}
}

// askOnce wants target as the body of the reply.
func (f *front) askOnce(t *testing.T, method, target string) {
	var body io.Reader
	if method == "POST" {
		body = strings.NewReader(strings.Repeat("x", 1000))
	}
	req, err := http.NewRequest(method, "http://a.test"+target, body)
	if err != nil {
		t.Error(err)
		return
	}
	res, err := f.client.Do(req)
	if err != nil {
		t.Errorf("%s: %v", target, err)
		return
	}
	defer res.Body.Close()
	if b, err := io.ReadAll(res.Body); res.StatusCode != 200 || string(b) != target || err != nil {
		t.Errorf("%s: %d %q, %v", target, res.StatusCode, b, err)
	}
}
