// SPDX-License-Identifier: Apache-2.0

package h2

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

var start = time.Unix(1_000_000, 0)

func serverConfig() *Config {
	return &Config{MaxStreams: 4, MaxFrame: MinMaxFrame, MaxBlock: 64 << 10, StreamWindow: 1 << 16, ConnWindow: 1 << 20, MaxWindow: 1 << 18}
}

// pair is two Conns whose frames reach each other when step is called.
type pair struct {
	t              testing.TB
	client, server *Conn
	events         []told
	heads          []string
}

type told struct {
	by *Conn
	Event
}

func newPair(t testing.TB, change ...func(client, server *Config)) *pair {
	s := serverConfig()
	c := *s
	c.Client = true
	for _, f := range change {
		f(&c, s)
	}
	p := &pair{t: t, client: New(&c), server: New(s)}
	p.step()
	require.Empty(t, p.take())
	return p
}

// step passes on all that has been written, until nothing is.
func (p *pair) step() {
	for len(p.client.Out)+len(p.server.Out) > 0 {
		p.pass(p.client, p.server)
		p.pass(p.server, p.client)
	}
}

func (p *pair) pass(from, to *Conn) {
	in := from.Out
	from.Out = nil
	for len(in) > 0 {
		f, n, err := to.Parse(in)
		require.NoError(p.t, err)
		require.NotZero(p.t, n, "part of a frame")
		in = in[n:]
		ev, err := to.Receive(f, start)
		require.NoError(p.t, err)
		if ev.Kind == Head || ev.Kind == Trailer {
			require.NoError(p.t, to.Decode(ev.Block, func(f *HeaderField) { p.heads = append(p.heads, f.Name+"="+f.Value) }))
		}
		ev.Data = bytes.Clone(ev.Data)
		if ev.Kind != Nothing && ev.Kind != Configured && ev.Kind != Acknowledged && ev.Kind != Writable {
			p.events = append(p.events, told{to, ev})
		}
	}
}

// take returns the events since it was called last.
func (p *pair) take() []told {
	ev := p.events
	p.events = nil
	return ev
}

func head(c *Conn, s *Stream, end bool, fields ...string) {
	b := c.WriteHead()
	for i := 0; i < len(fields); i += 2 {
		b.Field(fields[i], fields[i+1], false)
	}
	b.End(s, end)
}

func TestRequestAndReply(t *testing.T) {
	p := newPair(t)
	s := p.client.Begin()
	head(p.client, s, false, ":method", "POST", "x", "1")
	require.Equal(t, 5, p.client.WriteData(s, []byte("hello"), true))
	p.step()
	ev := p.take()
	require.Len(t, ev, 2)
	require.Equal(t, Head, ev[0].Kind)
	require.False(t, ev[0].End)
	require.Equal(t, Body, ev[1].Kind)
	require.Equal(t, "hello", string(ev[1].Data))
	require.True(t, ev[1].End)
	require.Equal(t, []string{":method=POST", "x=1"}, p.heads)

	r := ev[0].Stream
	require.Equal(t, HalfClosedRemote, r.State())
	head(p.server, r, false, ":status", "200")
	head(p.server, r, true, "grpc-status", "0")
	p.step()
	s.Final()
	require.Equal(t, Closed, r.State())
	require.Equal(t, Closed, s.State())
	require.Zero(t, p.client.Open()+p.server.Open())
}

// The end goes out with the last frame, if that has not been written yet.
func TestFinish(t *testing.T) {
	for name, c := range map[string]struct {
		write  func(c *Conn, s *Stream)
		frames int
	}{
		"with the head":            {func(c *Conn, s *Stream) { head(c, s, false, ":status", "204") }, 1},
		"with the data":            {func(c *Conn, s *Stream) { head(c, s, false, ":status", "200"); c.WriteData(s, []byte("x"), false) }, 2},
		"by itself":                {func(c *Conn, s *Stream) { head(c, s, false, ":status", "200"); c.Out = c.Take(nil) }, 2},
		"behind a block in pieces": {func(c *Conn, s *Stream) { head(c, s, false, ":status", "200", "x", strings.Repeat("\x7f", 20_000)) }, 3},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t)
			mine := p.client.Begin()
			head(p.client, mine, true, ":method", "GET")
			p.step()
			s := p.take()[0].Stream
			c.write(p.server, s)
			p.server.Finish(s)
			p.server.Finish(s)
			require.Equal(t, Closed, s.State())
			n, in := 0, p.server.Out
			for len(in) > 0 {
				_, m, err := p.client.Parse(in)
				require.NoError(t, err)
				in = in[m:]
				n++
			}
			require.Equal(t, c.frames, n)
			p.step()
			require.Equal(t, Closed, mine.State())
		})
	}
}

// Each row of the table in State's comment.
func TestStreamStates(t *testing.T) {
	for _, c := range []struct {
		from   State
		byPeer bool
		want   State
	}{
		{Open, true, HalfClosedRemote}, {Open, false, HalfClosedLocal},
		{HalfClosedLocal, true, Closed}, {HalfClosedRemote, false, Closed},
	} {
		require.Equal(t, c.want, c.from.ended(c.byPeer), "%v, by the peer: %v", c.from, c.byPeer)
	}
	p := newPair(t)
	for _, st := range []State{Open, HalfClosedRemote, HalfClosedLocal} {
		s := p.client.Begin()
		head(p.client, s, st == HalfClosedRemote, ":method", "GET")
		p.step()
		r := p.take()[0].Stream
		if st == HalfClosedLocal {
			head(p.server, r, true, ":status", "200")
		}
		require.Equal(t, st, r.State())
		p.server.Reset(r, Cancel)
		require.Equal(t, Closed, r.State())
		p.step()
		require.Equal(t, Closed, s.State(), "RST_STREAM closes from %v", st)
		require.NotEmpty(t, p.take())
	}
}

func TestBlockIsSplit(t *testing.T) {
	p := newPair(t)
	s := p.client.Begin()
	long := strings.Repeat("\x7f", 20_000) // that does not compress
	head(p.client, s, true, ":method", "GET", "long", long)
	p.step()
	require.Equal(t, "long="+long, p.heads[1])
	require.EqualValues(t, 1, p.server.GlitchesOf(GlitchSplit), "in as many frames as are needed")
}

func TestDataWaitsForWindows(t *testing.T) {
	p := newPair(t)
	s := p.client.Begin()
	head(p.client, s, false, ":method", "POST")
	body := make([]byte, 1<<17)
	n := p.client.WriteData(s, body, true)
	require.Equal(t, 1<<16, n, "the stream's window")
	require.Zero(t, p.client.WriteData(s, body[n:], true))
	p.step()
	ev := p.take()
	r := ev[0].Stream
	require.EqualValues(t, 1<<16, r.Buffered())
	p.server.Consume(r, 1<<15)
	p.step()
	require.EqualValues(t, 1<<15, p.client.Sendable(s), "half of the window is given back at once")
	n += p.client.WriteData(s, body[n:], true)
	p.step()
	p.server.Consume(r, r.Buffered())
	p.step()
	require.Greater(t, p.client.Sendable(s), int64(1<<16), "the window of a stream that is read at once has grown")
	n += p.client.WriteData(s, body[n:], true)
	require.Equal(t, len(body), n)
	p.step()
	require.Equal(t, HalfClosedRemote, r.State())
	require.Equal(t, HalfClosedLocal, s.State())
}

// Streams whose bodies nobody reads do not stall another one.
func TestStalledUploadsDoNotStallOthers(t *testing.T) {
	p := newPair(t, func(c, s *Config) { s.MaxStreams = 8; s.ConnWindow = 8 << 16 })
	body := make([]byte, 1<<20)
	for range 7 {
		s := p.client.Begin()
		head(p.client, s, false, ":method", "POST")
		p.client.WriteData(s, body, true)
	}
	p.step()
	p.take()
	s := p.client.Begin()
	head(p.client, s, false, ":method", "POST")
	sent := 0
	var r *Stream
	for sent < len(body) {
		n := p.client.WriteData(s, body[sent:], true)
		require.NotZero(t, n, "stalled at %d", sent)
		sent += n
		p.step()
		for _, e := range p.take() {
			if r = e.Stream; e.Kind == Body {
				p.server.Consume(r, int64(len(e.Data)))
			}
		}
		p.step()
	}
}

// What has been received and not been consumed is never more than ConnWindow.
func TestMemoryIsBounded(t *testing.T) {
	p := newPair(t, func(c, s *Config) { s.MaxStreams = 64; s.ConnWindow = 1 << 20 })
	body := make([]byte, 1<<20)
	for p.client.CanBegin() {
		s := p.client.Begin()
		head(p.client, s, false, ":method", "POST")
		p.client.WriteData(s, body, true)
	}
	p.step()
	var sum int64
	p.server.Streams(func(s *Stream) { sum += s.Buffered() })
	require.LessOrEqual(t, sum, int64(1<<20))
	require.Equal(t, int64(1<<20), sum)
}

// What streams that end early have taken of the connection's window goes back.
func TestWindowsComeBack(t *testing.T) {
	p := newPair(t)
	body := make([]byte, 1<<16)
	for i := range 100 {
		s := p.client.Begin()
		head(p.client, s, false, ":method", "POST")
		require.NotZero(t, p.client.WriteData(s, body, false), "stream %d", i)
		p.step()
		r := p.take()[0].Stream
		switch i % 3 {
		case 0:
			p.server.Reset(r, Cancel)
		case 1:
			p.server.Consume(r, 1000)
			p.client.Reset(s, Cancel)
		default:
			head(p.server, r, true, ":status", "200")
			p.server.Reset(r, NoError)
		}
		p.step()
		p.take()
		p.server.calm = calm{}
		require.Equal(t, p.server.spare, int64(1<<20-4<<16))
	}
	require.Zero(t, p.server.Open())
}

func TestGoAway(t *testing.T) {
	p := newPair(t)
	first := p.client.Begin()
	head(p.client, first, true, ":method", "GET")
	p.step()
	p.take()
	p.server.Leave(true, NoError, "")
	second := p.client.Begin()
	head(p.client, second, true, ":method", "GET") // under way when the warning comes
	p.step()
	require.Len(t, p.take(), 2, "the stream on its way is served")
	require.Nil(t, p.client.Begin())
	require.False(t, p.client.Unprocessed(second))
	require.EqualValues(t, 3, p.server.Leave(false, NoError, ""))
	p.step()
	ev := p.take()
	require.Equal(t, Leaving, ev[0].Kind)
	require.EqualValues(t, 3, ev[0].Last)
	require.False(t, p.client.Unprocessed(second))
	require.True(t, p.client.Unprocessed(&Stream{ID: 5}))
}

// After a reset of ours, frames in flight are ignored. The peer's own reset is the last
// of them, so a head after that is a mistake (section 5.1).
func TestHeadAfterBothHaveReset(t *testing.T) {
	p := newPair(t)
	head(p.client, p.client.Begin(), false, ":method", "GET")
	p.step()
	p.server.Reset(p.take()[0].Stream, NoError)
	var b bytes.Buffer
	w := http2.NewFramer(&b, nil)
	receive := func() error {
		f, n, err := p.server.Parse(b.Next(b.Len()))
		require.NoError(t, err)
		require.NotZero(t, n)
		_, err = p.server.Receive(f, start)
		return err
	}
	again := func() error {
		require.NoError(t, w.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block(":method", "GET"), EndHeaders: true, EndStream: true}))
		return receive()
	}
	require.NoError(t, again())
	require.NoError(t, w.WriteRSTStream(1, http2.ErrCodeCancel))
	require.NoError(t, receive())
	var ce *ConnError
	require.ErrorAs(t, again(), &ce)
	require.Equal(t, StreamClosed, ce.Code)
}

func TestRefusedAbove(t *testing.T) {
	p := newPair(t)
	for range 4 {
		head(p.client, p.client.Begin(), false, ":method", "GET")
	}
	require.Nil(t, p.client.Begin())
	p.client.peer.MaxStreams = 9 // a peer that does not care
	s := p.client.Begin()
	head(p.client, s, false, ":method", "GET", "x", "y")
	p.step()
	ev := p.take()
	last := ev[len(ev)-1]
	require.Equal(t, Reset, last.Kind)
	require.Equal(t, RefusedStream, last.Code)
	require.Equal(t, s, last.Stream)
	require.Equal(t, Closed, s.State())
	// The memory of the compression is still right.
	p.client.Reset(p.client.streams[1], Cancel)
	p.step()
	p.take()
	p.heads = nil
	head(p.client, p.client.Begin(), true, ":method", "GET", "x", "y")
	p.step()
	require.Equal(t, []string{":method=GET", "x=y"}, p.heads)
}

// Fewer streams are allowed only once the peer knows.
func TestMaxStreamsFalls(t *testing.T) {
	p := newPair(t)
	p.server.SetMaxStreams(1)
	head(p.client, p.client.Begin(), false, ":method", "GET")
	head(p.client, p.client.Begin(), false, ":method", "GET")
	p.step()
	require.Len(t, p.take(), 2, "both were on their way")
	require.Nil(t, p.client.Begin())
	p.server.SetMaxStreams(3)
	p.step()
	require.Equal(t, 1, p.client.Room())
}

// raw is a server and a client of single frames.
func raw(t *testing.T, frames func(f *http2.Framer)) (*Conn, Event, error) {
	s := New(serverConfig())
	var b bytes.Buffer
	b.WriteString(Preface)
	f := http2.NewFramer(&b, nil)
	f.AllowIllegalWrites = true
	require.NoError(t, f.WriteSettings())
	frames(f)
	in := b.Bytes()
	var last Event
	for len(in) > 0 {
		f, n, err := s.Parse(in)
		if err != nil {
			return s, last, err
		}
		if n == 0 {
			break
		}
		in = in[n:]
		if last, err = s.Receive(f, start); err != nil {
			return s, last, err
		}
		if last.Kind == Head || last.Kind == Trailer {
			require.NoError(t, s.Decode(last.Block, nil))
		}
	}
	return s, last, nil
}

func block(fields ...string) []byte {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	for i := 0; i < len(fields); i += 2 {
		_ = e.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return b.Bytes()
}

// What ends a connection, with the code that RFC 9113 names.
func TestConnectionErrors(t *testing.T) {
	get := func(f *http2.Framer, id uint32, end bool) {
		_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block(":method", "GET"), EndHeaders: true, EndStream: end})
	}
	for name, c := range map[string]struct {
		code   Code
		frames func(f *http2.Framer)
	}{
		"DATA of stream 0 (6.1)":       {ProtocolError, func(f *http2.Framer) { _ = f.WriteData(0, true, nil) }},
		"DATA of an idle stream (5.1)": {ProtocolError, func(f *http2.Framer) { _ = f.WriteData(1, true, nil) }},
		"padding too long (6.1)": {ProtocolError, func(f *http2.Framer) {
			get(f, 1, false)
			_ = f.WriteRawFrame(http2.FrameData, FlagPadded, 1, []byte{9, 0})
		}},
		"HEADERS of stream 0 (6.2)":         {ProtocolError, func(f *http2.Framer) { get(f, 0, true) }},
		"HEADERS of an even stream (5.1.1)": {ProtocolError, func(f *http2.Framer) { get(f, 2, true) }},
		"a lower stream (5.1.1)":            {ProtocolError, func(f *http2.Framer) { get(f, 5, true); get(f, 3, true) }},
		"HEADERS depend on themselves (5.3.1)": {ProtocolError, func(f *http2.Framer) {
			_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block(":method", "GET"), EndHeaders: true, Priority: http2.PriorityParam{StreamDep: 1, Weight: 1}})
		}},
		"RST_STREAM of stream 0 (6.4)":       {ProtocolError, func(f *http2.Framer) { _ = f.WriteRSTStream(0, 0) }},
		"RST_STREAM of an idle stream (6.4)": {ProtocolError, func(f *http2.Framer) { _ = f.WriteRSTStream(1, 0) }},
		"RST_STREAM of 3 bytes (6.4)": {FrameSizeError, func(f *http2.Framer) {
			get(f, 1, true)
			_ = f.WriteRawFrame(http2.FrameRSTStream, 0, 1, []byte{0, 0, 0})
		}},
		"SETTINGS of a stream (6.5)":            {ProtocolError, func(f *http2.Framer) { _ = f.WriteRawFrame(http2.FrameSettings, 0, 1, nil) }},
		"SETTINGS of 5 bytes (6.5)":             {FrameSizeError, func(f *http2.Framer) { _ = f.WriteRawFrame(http2.FrameSettings, 0, 0, make([]byte, 5)) }},
		"an acknowledgement of 6 bytes (6.5)":   {FrameSizeError, func(f *http2.Framer) { _ = f.WriteRawFrame(http2.FrameSettings, FlagAck, 0, make([]byte, 6)) }},
		"an acknowledgement of nothing (6.5.3)": {ProtocolError, func(f *http2.Framer) { _ = f.WriteSettingsAck(); _ = f.WriteSettingsAck() }},
		"ENABLE_PUSH 2 (6.5.2)":                 {ProtocolError, func(f *http2.Framer) { _ = f.WriteSettings(http2.Setting{ID: http2.SettingEnablePush, Val: 2}) }},
		"a window above 2^31-1 (6.5.2)": {FlowControlError, func(f *http2.Framer) {
			_ = f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 31})
		}},
		"frames below 2^14 (6.5.2)": {ProtocolError, func(f *http2.Framer) {
			_ = f.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1<<14 - 1})
		}},
		"SETTINGS that overflow a window (6.9.2)": {FlowControlError, func(f *http2.Framer) {
			get(f, 1, false)
			_ = f.WriteWindowUpdate(1, 1<<31-1<<16)
			_ = f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1<<31 - 1})
		}},
		"PUSH_PROMISE by a client (8.4)": {ProtocolError, func(f *http2.Framer) {
			_ = f.WritePushPromise(http2.PushPromiseParam{StreamID: 1, PromiseID: 2, BlockFragment: block(":method", "GET"), EndHeaders: true})
		}},
		"PING of a stream (6.7)":          {ProtocolError, func(f *http2.Framer) { _ = f.WriteRawFrame(http2.FramePing, 0, 1, make([]byte, 8)) }},
		"PING of 7 bytes (6.7)":           {FrameSizeError, func(f *http2.Framer) { _ = f.WriteRawFrame(http2.FramePing, 0, 0, make([]byte, 7)) }},
		"GOAWAY of a stream (6.8)":        {ProtocolError, func(f *http2.Framer) { _ = f.WriteRawFrame(http2.FrameGoAway, 0, 1, make([]byte, 8)) }},
		"WINDOW_UPDATE by 0 (6.9)":        {ProtocolError, func(f *http2.Framer) { _ = f.WriteRawFrame(http2.FrameWindowUpdate, 0, 0, make([]byte, 4)) }},
		"the connection's window (6.9.1)": {FlowControlError, func(f *http2.Framer) { _ = f.WriteWindowUpdate(0, 1<<31-1) }},
		"CONTINUATION of nothing (6.10)":  {ProtocolError, func(f *http2.Framer) { _ = f.WriteContinuation(1, true, nil) }},
		"a frame inside of a block (6.10)": {ProtocolError, func(f *http2.Framer) {
			_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block(":method", "GET")})
			_ = f.WriteData(1, true, nil)
		}},
		"CONTINUATION of another stream (6.10)": {ProtocolError, func(f *http2.Framer) {
			_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block(":method", "GET")})
			_ = f.WriteContinuation(3, true, nil)
		}},
		"a frame too large (4.2)":         {FrameSizeError, func(f *http2.Framer) { get(f, 1, false); _ = f.WriteData(1, true, make([]byte, 1<<14+1)) }},
		"PRIORITY of stream 0 (6.3)":      {ProtocolError, func(f *http2.Framer) { _ = f.WriteRawFrame(http2.FramePriority, 0, 0, make([]byte, 5)) }},
		"GOAWAY that is taken back (6.8)": {ProtocolError, func(f *http2.Framer) { _ = f.WriteGoAway(0, 0, nil); _ = f.WriteGoAway(2, 0, nil) }},
		"a head that never ends (10.5.1)": {EnhanceYourCalm, func(f *http2.Framer) {
			_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block(":method", "GET")})
			for range 100 {
				_ = f.WriteContinuation(1, false, make([]byte, 1<<10))
			}
		}},
		"HEADERS behind the end of both (5.1)":    {ProtocolError, func(f *http2.Framer) { get(f, 3, true); get(f, 1, true) }},
		"PRIORITY_UPDATE of a stream (RFC 9218)":  {ProtocolError, func(f *http2.Framer) { _ = f.WriteRawFrame(0x10, 0, 1, make([]byte, 4)) }},
		"PRIORITY_UPDATE for stream 0 (RFC 9218)": {ProtocolError, func(f *http2.Framer) { _ = f.WriteRawFrame(0x10, 0, 0, make([]byte, 4)) }},
		"extended CONNECT is taken back (RFC 8441)": {ProtocolError, func(f *http2.Framer) {
			_ = f.WriteSettings(http2.Setting{ID: 8, Val: 1})
			_ = f.WriteSettings(http2.Setting{ID: 8, Val: 0})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := raw(t, c.frames)
			var ce *ConnError
			require.ErrorAs(t, err, &ce)
			require.Equal(t, c.code, ce.Code, ce.Error())
		})
	}
}

func TestMoreThanTheConnectionsWindow(t *testing.T) {
	cfg := serverConfig()
	cfg.ConnWindow = 1 << 16
	s := New(cfg)
	s.skip, s.told, s.newest = 0, true, 3
	s.begin(1).headed, s.begin(3).headed = true, true
	var err error
	for i := range uint32(5) {
		_, err = s.Receive(Frame{Type: Data, Stream: 2*(i%2) + 1, Payload: make([]byte, 1<<14)}, start)
		if i < 4 {
			require.NoError(t, err)
		}
	}
	var ce *ConnError
	require.ErrorAs(t, err, &ce)
	require.Equal(t, FlowControlError, ce.Code)
}

// What ends only its stream.
func TestStreamErrors(t *testing.T) {
	get := func(f *http2.Framer, end bool) {
		_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block(":method", "GET"), EndHeaders: true, EndStream: end})
	}
	for name, c := range map[string]struct {
		code   Code
		frames func(f *http2.Framer)
	}{
		"DATA behind the end (5.1)":    {StreamClosed, func(f *http2.Framer) { get(f, true); _ = f.WriteData(1, true, []byte("x")) }},
		"HEADERS behind the end (5.1)": {StreamClosed, func(f *http2.Framer) { get(f, true); get(f, true) }},
		"more than the window (6.9)": {FlowControlError, func(f *http2.Framer) {
			get(f, false)
			for range 5 {
				_ = f.WriteData(1, false, make([]byte, 1<<14))
			}
		}},
		"WINDOW_UPDATE by 0 (6.9)": {ProtocolError, func(f *http2.Framer) {
			get(f, true)
			_ = f.WriteRawFrame(http2.FrameWindowUpdate, 0, 1, make([]byte, 4))
		}},
		"a window above 2^31-1 (6.9.1)":   {FlowControlError, func(f *http2.Framer) { get(f, true); _ = f.WriteWindowUpdate(1, 1<<31-1) }},
		"a trailer without an end (8.1)":  {ProtocolError, func(f *http2.Framer) { get(f, false); get(f, false) }},
		"PRIORITY of 4 bytes (6.3)":       {FrameSizeError, func(f *http2.Framer) { get(f, true); _ = f.WriteRawFrame(http2.FramePriority, 0, 1, make([]byte, 4)) }},
		"PRIORITY that depends on itself": {ProtocolError, func(f *http2.Framer) { get(f, true); _ = f.WritePriority(1, http2.PriorityParam{StreamDep: 1}) }},
	} {
		t.Run(name, func(t *testing.T) {
			s, ev, err := raw(t, c.frames)
			require.NoError(t, err)
			require.Equal(t, Reset, ev.Kind)
			require.True(t, ev.ByUs)
			require.Equal(t, c.code, ev.Code, ev.Reason)
			require.Equal(t, Closed, ev.Stream.State())
			want := appendReset(nil, 1, c.code)
			require.True(t, bytes.HasSuffix(s.Out, want), "RST_STREAM is written")
		})
	}
}

// A setting that comes twice counts as it came last (RFC 9113, section 6.5.3).
func TestSettingTwice(t *testing.T) {
	s, _, err := raw(t, func(f *http2.Framer) {
		_ = f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 100}, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 7})
		_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block(":method", "GET"), EndHeaders: true, EndStream: true})
	})
	require.NoError(t, err)
	require.EqualValues(t, 7, s.streams[1].Window())
}

// A window may become negative, and is waited for (RFC 9113, section 6.9.2).
func TestNegativeWindow(t *testing.T) {
	p := newPair(t)
	s := p.client.Begin()
	head(p.client, s, false, ":method", "POST")
	require.Equal(t, 1000, p.client.WriteData(s, make([]byte, 1000), false))
	set := appendHeader(nil, 6, SettingsFrame, 0, 0)
	set = append(binary.BigEndian.AppendUint16(set, setWindow), 0, 0, 0, 100)
	f, _, err := p.client.Parse(set)
	require.NoError(t, err)
	_, err = p.client.Receive(f, start)
	require.NoError(t, err)
	require.EqualValues(t, 100-1000, s.send)
	require.Zero(t, p.client.WriteData(s, []byte("x"), false))
	require.Zero(t, s.Window())
}

// Floods end the connection soon; what honest clients do does not.
func TestFloods(t *testing.T) {
	get := func(f *http2.Framer, id uint32, end bool) {
		_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block(":method", "GET"), EndHeaders: true, EndStream: end})
	}
	for name, flood := range map[string]func(f *http2.Framer){
		"rapid reset": func(f *http2.Framer) {
			for i := range uint32(300) {
				get(f, 2*i+1, true)
				_ = f.WriteRSTStream(2*i+1, 8)
			}
		},
		"made us reset": func(f *http2.Framer) {
			for i := range uint32(300) {
				get(f, 2*i+1, true)
				_ = f.WriteRawFrame(http2.FrameWindowUpdate, 0, 2*i+1, make([]byte, 4))
			}
		},
		"PING": func(f *http2.Framer) {
			for range 2000 {
				_ = f.WritePing(false, [8]byte{})
			}
		},
		"SETTINGS": func(f *http2.Framer) {
			for range 300 {
				_ = f.WriteSettings()
			}
		},
		"PRIORITY": func(f *http2.Framer) {
			for range 2000 {
				_ = f.WritePriority(1, http2.PriorityParam{StreamDep: 3})
			}
		},
		"empty DATA": func(f *http2.Framer) {
			get(f, 1, false)
			for range 300 {
				_ = f.WriteData(1, false, nil)
			}
		},
		"WINDOW_UPDATE": func(f *http2.Framer) {
			for range 2000 {
				_ = f.WriteWindowUpdate(0, 1)
			}
		},
		"GOAWAY": func(f *http2.Framer) {
			for range 300 {
				_ = f.WriteGoAway(0, 0, nil)
			}
		},
		"unknown": func(f *http2.Framer) {
			for range 2000 {
				_ = f.WriteRawFrame(0x42, 0, 0, nil)
			}
		},
		"CONTINUATION": func(f *http2.Framer) {
			_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block(":method", "GET")})
			for range 300 {
				_ = f.WriteContinuation(1, false, nil)
			}
		},
		"refused": func(f *http2.Framer) {
			_ = f.WriteSettingsAck()
			for i := range uint32(300) {
				get(f, 2*i+1, true)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := raw(t, flood)
			var ce *ConnError
			require.True(t, errors.As(err, &ce), "not ended")
			require.Equal(t, EnhanceYourCalm, ce.Code)
		})
	}
	t.Run("a page that is left", func(t *testing.T) {
		_, _, err := raw(t, func(f *http2.Framer) {
			for i := range uint32(100) {
				get(f, 2*i+1, true)
				_ = f.WriteRSTStream(2*i+1, 8)
			}
		})
		require.NoError(t, err)
	})
	t.Run("with time between", func(t *testing.T) {
		c := calm{}
		now := start
		for range 100_000 {
			now = now.Add(20 * time.Millisecond)
			require.False(t, c.add(GlitchPing, now))
		}
	})
}

func TestPriorityField(t *testing.T) {
	for v, want := range map[string]struct {
		urgency     uint8
		incremental bool
	}{
		"": {3, false}, "u=0": {0, false}, "u=7, i": {7, true}, "i,u=1": {1, true}, "u=8": {3, false}, "u=-1": {3, false},
		"i=?0": {3, false}, "i=?1": {3, true}, "u=2;x=1": {3, false}, " u=5 ": {5, false}, "x, u=4": {4, false},
	} {
		u, i := ParsePriority(v)
		require.Equal(t, want.urgency, u, "%q", v)
		require.Equal(t, want.incremental, i, "%q", v)
	}
}

func TestPrefaceInPieces(t *testing.T) {
	in := append([]byte(Preface), appendHeader(nil, 0, SettingsFrame, 0, 0)...)
	s := New(serverConfig())
	for i := range in {
		_, n, err := s.Parse(in[:i])
		require.NoError(t, err)
		require.Zero(t, n)
	}
	f, n, err := s.Parse(in)
	require.NoError(t, err)
	require.Equal(t, len(in), n)
	require.Equal(t, SettingsFrame, f.Type)
	_, _, err = New(serverConfig()).Parse([]byte("PRI * HTTP/1"))
	require.Error(t, err)
	_, _, err = New(serverConfig()).Parse([]byte("GET"))
	require.Error(t, err)
}

func TestNames(t *testing.T) {
	for c := Code(0); c < 16; c++ {
		require.NotEmpty(t, c.String())
	}
	for g := range Glitch(20) {
		require.NotEmpty(t, g.String())
	}
	for s := range State(9) {
		require.NotEmpty(t, s.String())
	}
}
