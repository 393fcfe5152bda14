// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/penstock-lb/penstock/l4/l4test"
)

// A mixStream is what its client knows of it. Guarded by the mu of its connection.
type mixStream struct {
	token  string
	got    int
	size   int
	status string
	over   bool
	ended  chan struct{} // END_STREAM or RST_STREAM has come, or the connection is lost
	turn   chan struct{} // something has come
}

type mixConn struct {
	mu      sync.Mutex
	fr      *http2.Framer
	out     bytes.Buffer
	enc     *hpack.Encoder
	streams map[uint32]*mixStream
	window  int64 // of the connection
	room    chan struct{}
	lost    bool
}

// client does some hundred requests over one connection.
func (m *mixer) client(t *testing.T, n *l4test.Network, rnd *rand.Rand, who string) {
	nc, err := n.DialContext(context.Background(), "tcp", siteAddr)
	if err != nil {
		t.Error(err)
		return
	}
	defer nc.Close()
	io.WriteString(nc, http2.ClientPreface)
	c := &mixConn{fr: http2.NewFramer(nc, nc), streams: map[uint32]*mixStream{}, window: 65_535, room: make(chan struct{}, 1)}
	c.enc = hpack.NewEncoder(&c.out)
	c.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: uint32(20_000 + rnd.IntN(100_000))})
	c.fr.WriteWindowUpdate(0, 1<<24)
	var reader sync.WaitGroup
	chance := rand.New(rand.NewPCG(rnd.Uint64(), 1))
	reader.Go(func() { m.read(t, c, chance) })
	var wg sync.WaitGroup
	slots := make(chan struct{}, 40)
	cut := rnd.IntN(4) == 0
	for i := range 60 {
		if cut && i == 50 {
			nc.Close()
		}
		slots <- struct{}{}
		own := rand.New(rand.NewPCG(rnd.Uint64(), 2))
		id := uint32(2*i + 1)
		s := &mixStream{token: fmt.Sprintf("%s-%d-%d", who, rnd.IntN(1<<30), i), size: own.IntN(150_000), ended: make(chan struct{}), turn: make(chan struct{}, 1)}
		body := 0
		if own.IntN(2) == 0 {
			body = own.IntN(120_000)
		}
		m.begun.Add(1)
		if !c.head(id, s, body == 0) {
			break
		}
		wg.Go(func() {
			defer func() { <-slots }()
			m.stream(c, id, s, body, own)
		})
	}
	wg.Wait()
	nc.Close()
	reader.Wait()
}

// head opens a stream.
func (c *mixConn) head(id uint32, s *mixStream, end bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lost {
		return false
	}
	c.streams[id] = s
	c.out.Reset()
	method := "POST"
	if end {
		method = "GET"
	}
	for _, f := range [][2]string{{":method", method}, {":scheme", "http"}, {":authority", "a.test"}, {":path", "/" + s.token}, {"x-token", s.token}, {"x-size", strconv.Itoa(s.size)}} {
		c.enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	return c.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: c.out.Bytes(), EndHeaders: true, EndStream: end}) == nil
}

// stream sends the body of a request, waits for the reply, or resets the stream at
// some point.
func (m *mixer) stream(c *mixConn, id uint32, s *mixStream, body int, rnd *rand.Rand) {
	fate := rnd.IntN(10)
	reset := func() {
		c.mu.Lock()
		if !s.over {
			s.over = true
			m.ours.Add(1)
			c.fr.WriteRSTStream(id, http2.ErrCodeCancel)
		}
		c.mu.Unlock()
	}
	if fate == 0 {
		reset()
		return
	}
	left := int64(60_000) // of the window that the gateway gives a stream; more is not asked for
	for sent := 0; sent < min(body, int(left)); {
		k := min(body-sent, 1+rnd.IntN(16_000), int(left)-sent)
		c.mu.Lock()
		for c.window < int64(k) && !c.lost && !s.over {
			c.mu.Unlock()
			select {
			case <-c.room:
			case <-s.ended:
			}
			c.mu.Lock()
		}
		if c.lost || s.over {
			c.mu.Unlock()
			break
		}
		c.window -= int64(k)
		more := c.window > 16_000
		c.fr.WriteData(id, sent+k == body, mixed(s.token, sent, k))
		c.mu.Unlock()
		if more {
			c.wake()
		}
		if sent += k; fate == 1 && sent > body/2 {
			reset()
			return
		}
	}
	if body > int(left) {
		c.mu.Lock()
		if !s.over && !c.lost {
			c.fr.WriteData(id, true, nil)
		}
		c.mu.Unlock()
	}
	if fate == 2 || fate == 3 { // at the head of the reply, or in its midst
		select {
		case <-s.turn:
			reset()
		case <-s.ended:
		}
		return
	}
	<-s.ended
}

func (c *mixConn) wake() {
	select {
	case c.room <- struct{}{}:
	default:
	}
}

// read takes what the gateway sends and checks whose it is.
func (m *mixer) read(t *testing.T, c *mixConn, rnd *rand.Rand) {
	for {
		f, err := c.fr.ReadFrame()
		c.mu.Lock()
		if err != nil {
			c.lost = true
			for _, s := range c.streams {
				s.over = true
				close(s.ended)
			}
			c.mu.Unlock()
			return
		}
		id := f.Header().StreamID
		s := c.streams[id]
		finish := func() {
			s.over = true
			delete(c.streams, id)
			close(s.ended)
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				c.fr.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				c.fr.WritePing(true, f.Data)
			}
		case *http2.WindowUpdateFrame:
			if id == 0 {
				c.window += int64(f.Increment)
				c.wake()
			}
		case *http2.RSTStreamFrame:
			if s != nil {
				m.resets.Add(1)
				finish()
			}
		case *http2.MetaHeadersFrame:
			if s == nil {
				break
			}
			for _, hf := range f.Fields {
				if hf.Name == "x-token" && hf.Value != s.token {
					t.Errorf("%s got a field of %s", s.token, hf.Value)
				}
			}
			if st := f.PseudoValue("status"); st != "" && st != "103" {
				s.status = st
			}
			if f.StreamEnded() {
				m.finished(t, s)
				finish()
			} else {
				poke(s.turn)
			}
		case *http2.DataFrame:
			if n := len(f.Data()); n > 0 {
				c.fr.WriteWindowUpdate(0, uint32(n))
				if s != nil && !f.StreamEnded() {
					c.fr.WriteWindowUpdate(id, uint32(n))
				}
			}
			if s == nil {
				break
			}
			if p := f.Data(); s.status == "200" && !bytes.Equal(p, mixed(s.token, s.got, len(p))) {
				t.Errorf("%s got, at %d of %d, what is not its own: %.60q", s.token, s.got, s.size, p)
			}
			if s.got += len(f.Data()); f.StreamEnded() {
				m.finished(t, s)
				finish()
			} else if rnd.IntN(3) == 0 {
				poke(s.turn)
			}
		}
		c.mu.Unlock()
	}
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// finished checks a reply that has ended well.
func (m *mixer) finished(t *testing.T, s *mixStream) {
	switch {
	case s.status != "200":
		m.refused.Add(1)
	case s.got != s.size && s.got != 50_000: // which is as much as the hostile one gives
		t.Errorf("%s got %d bytes of %d, and no error", s.token, s.got, s.size)
	default:
		m.whole.Add(1)
	}
}
