// SPDX-License-Identifier: Apache-2.0

package h2

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
)

// FuzzReceive gives a server any bytes behind a preface. Whatever x/net's
// Framer takes apart is taken apart alike, and memory stays within its bound.
func FuzzReceive(f *testing.F) {
	var b bytes.Buffer
	w := http2.NewFramer(&b, nil)
	_ = w.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 7})
	_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block(":method", "GET", "a", "b"), EndHeaders: true, PadLength: 3, Priority: http2.PriorityParam{StreamDep: 3, Weight: 9}})
	_ = w.WriteData(1, true, []byte("body"))
	_ = w.WriteWindowUpdate(1, 9)
	_ = w.WriteRSTStream(1, http2.ErrCodeCancel)
	_ = w.WritePing(false, [8]byte{1})
	_ = w.WriteGoAway(3, http2.ErrCodeNo, []byte("bye"))
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, in []byte) {
		s := New(serverConfig())
		s.skip = 0
		r := http2.NewFramer(nil, bytes.NewReader(in))
		r.SetMaxReadFrameSize(MinMaxFrame)
		r.AllowIllegalReads = true
		fields := 0
		for {
			fr, n, err := s.Parse(in)
			if err != nil || n == 0 {
				break
			}
			theirs, terr := r.ReadFrame()
			if terr == nil {
				h := theirs.Header()
				require.Equal(t, uint8(h.Type), uint8(fr.Type))
				require.Equal(t, uint8(h.Flags), fr.Flags)
				require.Equal(t, h.StreamID, fr.Stream)
				require.EqualValues(t, h.Length, len(fr.Payload))
			}
			in = in[n:]
			ev, err := s.Receive(fr, start)
			if err != nil {
				break
			}
			if d, ok := theirs.(*http2.DataFrame); ok && terr == nil && ev.Kind == Body {
				require.Equal(t, d.Data(), ev.Data)
				require.Equal(t, d.StreamEnded(), ev.End)
			}
			if ev.Kind == Head || ev.Kind == Trailer {
				if s.Decode(ev.Block, func(*HeaderField) { fields++ }) != nil {
					break
				}
			}
			check(t, s)
		}
		require.Less(t, len(s.Out), 1<<16+32*len(in)+1<<20)
	})
}

// check tests what always holds.
func check(t *testing.T, c *Conn) {
	var buffered, promised int64
	for id, s := range c.streams {
		require.Equal(t, id, s.ID)
		require.NotEqual(t, Closed, s.state)
		require.GreaterOrEqual(t, s.recv, int64(0))
		require.GreaterOrEqual(t, s.buffered, int64(0))
		require.LessOrEqual(t, s.send, int64(MaxWindow))
		require.LessOrEqual(t, s.recv+s.buffered+s.used, s.window)
		require.LessOrEqual(t, s.window, max(c.maxMore, c.maxData))
		buffered += s.buffered
		promised += s.window - c.maxData
	}
	require.Equal(t, len(c.streams), c.opened)
	require.GreaterOrEqual(t, c.recv, int64(0))
	require.LessOrEqual(t, c.recv+c.used+buffered, c.most)
	require.Equal(t, c.most, c.recv+c.used+buffered, "no byte of the connection's window is lost")
	require.GreaterOrEqual(t, c.spare, int64(0))
	require.LessOrEqual(t, c.spare+promised, c.most)
	require.LessOrEqual(t, c.send, int64(MaxWindow))
}

// FuzzProgram takes bytes for a program: what a client and a server that keep
// the rules do, and when their frames arrive. Neither may find an error, every
// byte of a body arrives once and in order, and windows add up.
func FuzzProgram(f *testing.F) {
	f.Add([]byte("0123456789abcdefghijklmnopqrstuvwxyz"))
	f.Add([]byte{0, 0, 0, 1, 200, 2, 1, 200, 9, 9, 3, 3, 1, 255, 9, 4, 4, 5, 6, 7, 8, 9})
	f.Fuzz(func(t *testing.T, program []byte) {
		p := newPair(t)
		type side struct {
			sent, got map[uint32]byte // the next byte of each stream
			open      []*Stream
		}
		sides := map[*Conn]*side{}
		for _, c := range []*Conn{p.client, p.server} {
			sides[c] = &side{sent: map[uint32]byte{}, got: map[uint32]byte{}}
		}
		settle := func() {
			p.server.calm.level, p.client.calm.level = 0, 0
			for _, e := range p.take() {
				me := sides[e.by]
				switch e.Kind {
				case Head:
					e.Stream.Final()
					if e.by == p.server {
						me.open = append(me.open, e.Stream)
					}
				case Body:
					for _, b := range e.Data {
						require.Equal(t, me.got[e.Stream.ID], b, "stream %d", e.Stream.ID)
						me.got[e.Stream.ID]++
					}
				}
			}
		}
		buf := make([]byte, 1<<16)
		for i := 0; i+2 < len(program); i += 3 {
			op, which, n := program[i], program[i+1], int(program[i+2])
			c := p.client
			if op&1 == 1 {
				c = p.server
			}
			me := sides[c]
			var s *Stream
			if len(me.open) > 0 {
				s = me.open[int(which)%len(me.open)]
			}
			switch (op >> 1) % 8 {
			case 0:
				if c == p.client {
					if s := c.Begin(); s != nil {
						head(c, s, n%4 == 0, ":method", "GET", "n", string(rune('a'+n%26)))
						me.open = append(me.open, s)
					}
				} else if s != nil && s.state != Closed && s.state != HalfClosedLocal && me.sent[s.ID] == 0 {
					head(c, s, false, ":status", "200")
				}
			case 1, 2:
				if s == nil || c == p.server && s.state == Closed {
					break
				}
				b := buf[:n*256]
				next := me.sent[s.ID]
				for i := range b {
					b[i] = next + byte(i)
				}
				if c == p.server && me.sent[s.ID] == 0 && s.state != HalfClosedLocal {
					head(c, s, false, ":status", "200")
				}
				me.sent[s.ID] += byte(c.WriteData(s, b, which%8 == 0))
			case 3:
				if s != nil {
					c.Consume(s, int64(n)*512)
				}
			case 4:
				if s != nil && n%8 == 0 {
					c.Reset(s, Cancel)
				}
			case 5:
				p.pass(p.client, p.server)
			case 6:
				p.pass(p.server, p.client)
			case 7:
				if c == p.server && n%16 == 0 {
					c.SetMaxStreams(1 + n/64)
				}
			}
			settle()
			check(t, p.client)
			check(t, p.server)
		}
		for range 4 {
			p.step()
			settle()
		}
		for _, c := range []*Conn{p.client, p.server} {
			for _, s := range sides[c].open {
				c.Reset(s, Cancel)
			}
		}
		p.step()
		settle()
		require.Zero(t, p.client.Open()+p.server.Open())
		check(t, p.client)
		check(t, p.server)
	})
}
