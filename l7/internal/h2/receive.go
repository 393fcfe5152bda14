// SPDX-License-Identifier: Apache-2.0

package h2

import (
	"encoding/binary"
	"time"
)

// A Kind is the kind of an Event.
type Kind uint8

// The kinds.
const (
	Nothing      Kind = iota // nothing to do, but Out may have grown
	Head                     // of a request or a reply, final or not: Block must be passed to Decode, which may end the stream
	Trailer                  // likewise
	Body                     // a piece of a body in Data, to be consumed
	Reset                    // the stream is closed by the peer, or by us since the peer broke a rule
	Writable                 // Stream, or any stream if it is nil, may be able to send more
	Leaving                  // GOAWAY: our streams above Last were not processed
	Pong                     // our PING was answered
	Configured               // SETTINGS: the peer's limits may have changed
	Acknowledged             // the peer has acknowledged all our SETTINGS
	Reordered                // the priority of Stream has changed
)

// An Event is what a frame means to the owner.
type Event struct {
	Kind   Kind
	Stream *Stream // nil if the event concerns the connection, and for a head to be refused
	Block  []byte  // of Head and Trailer; valid until the next Parse
	Data   []byte  // of Body; valid until the next Parse
	End    bool    // the peer has ended the stream
	Code   Code    // of Reset and Leaving
	ByUs   bool    // of Reset: we have reset the stream
	Last   uint32  // of Leaving
	Ping   [pingLen]byte
	Reason string // of Reset by us
}

// Parse returns the first frame of b and its length, 0 if it is not complete.
// It skips a client's preface before the first frame.
func (c *Conn) Parse(b []byte) (f Frame, n int, err error) {
	skipped := 0
	if c.skip > 0 {
		m := min(c.skip, len(b))
		at := len(Preface) - c.skip
		if string(b[:m]) != Preface[at:at+m] {
			return f, 0, connError(ProtocolError, "no preface")
		}
		if m < c.skip {
			return f, 0, nil // the owner keeps its bytes
		}
		skipped = m
	}
	f, n, err = cut(b[skipped:], c.maxFrame)
	if err != nil || n == 0 {
		return f, 0, err
	}
	c.skip = 0
	return f, n + skipped, nil
}

// Decode calls emit for each field of a block, in order; a nil emit discards
// them. Each block must be decoded, in the order of the events, since
// compression is stateful. An error ends the connection.
func (c *Conn) Decode(block []byte, emit func(*HeaderField)) error {
	if emit == nil {
		emit = func(*HeaderField) {}
	}
	return c.dec.decode(block, emit)
}

// Receive returns the meaning of a frame that was received at now. An error is
// a *ConnError: the owner sends GOAWAY and closes.
func (c *Conn) Receive(f Frame, now time.Time) (Event, error) {
	if c.inBlock != 0 && (f.Type != Continuation || f.Stream != c.inBlock) {
		return Event{}, connError(ProtocolError, "another frame inside a field block")
	}
	if !c.told && f.Type != SettingsFrame {
		return Event{}, connError(ProtocolError, "SETTINGS is not the first frame")
	}
	switch f.Type {
	case Data:
		return c.receiveData(&f, now)
	case Headers:
		return c.receiveHeaders(&f, now)
	case Continuation:
		return c.receiveContinuation(&f, now)
	case ResetStream:
		return c.receiveReset(&f, now)
	case WindowUpdate:
		return c.receiveWindowUpdate(&f, now)
	case SettingsFrame:
		return c.receiveSettings(&f, now)
	case Ping:
		return c.receivePing(&f, now)
	case GoAway:
		return c.receiveGoAway(&f, now)
	case Priority:
		return c.receivePriority(&f, now)
	case PriorityUpdate:
		return c.receivePriorityUpdate(&f, now)
	case PushPromise:
		return Event{}, connError(ProtocolError, "PUSH_PROMISE, which was not allowed")
	}
	return Event{}, c.glitch(GlitchUnknown, now)
}

// Break resets a stream whose peer has broken a rule that the owner checks. An
// error ends the connection.
func (c *Conn) Break(s *Stream, now time.Time) error {
	c.Reset(s, ProtocolError)
	return c.glitch(GlitchReset, now)
}

// Malformed notes a request that the owner answers, and resets behind that. An error
// ends the connection.
func (c *Conn) Malformed(now time.Time) error { return c.glitch(GlitchReset, now) }

// Overlong counts a head that the owner refuses because it is too long. An error
// ends the connection.
func (c *Conn) Overlong(now time.Time) error { return c.glitch(GlitchFields, now) }

func (c *Conn) glitch(g Glitch, now time.Time) error {
	if c.calm.add(g, now) {
		return connError(EnhanceYourCalm, "too much of "+g.String())
	}
	return nil
}

// fail resets a stream whose peer has broken a rule.
func (c *Conn) fail(s *Stream, code Code, reason string, now time.Time) (Event, error) {
	if err := c.glitch(GlitchReset, now); err != nil {
		return Event{}, err
	}
	c.Reset(s, code)
	return Event{Kind: Reset, Stream: s, Code: code, ByUs: true, Reason: reason}, nil
}

// idle reports whether a stream has never been opened. All streams are opened
// by the client, since there is no push.
func (c *Conn) idle(id uint32) bool { return id%2 == 0 || id > c.newest }

func (c *Conn) receiveData(f *Frame, now time.Time) (Event, error) {
	if f.Stream == 0 {
		return Event{}, connError(ProtocolError, "DATA on stream 0")
	}
	if c.idle(f.Stream) {
		return Event{}, connError(ProtocolError, "DATA of an idle stream")
	}
	p, err := f.unpad()
	if err != nil {
		return Event{}, err
	}
	n := int64(len(f.Payload))
	if n > c.recv {
		return Event{}, connError(FlowControlError, "more than the connection's window")
	}
	c.recv -= n
	end := f.has(FlagEndStream)
	s := c.streams[f.Stream]
	if s == nil {
		c.giveBack(n)
		if n == 0 {
			if err := c.glitch(GlitchEmpty, now); err != nil {
				return Event{}, err
			}
		}
		return c.late(f.Stream, now)
	}
	if s.state == HalfClosedRemote {
		c.giveBack(n)
		return c.fail(s, StreamClosed, "DATA after the end", now)
	}
	if n > s.recv {
		c.giveBack(n)
		return c.fail(s, FlowControlError, "more than the stream's window", now)
	}
	if !s.headed {
		c.giveBack(n)
		return c.fail(s, ProtocolError, "DATA before the head", now)
	}
	if len(p) == 0 && !end {
		if err := c.glitch(GlitchEmpty, now); err != nil {
			return Event{}, err
		}
	} else {
		c.calm.refund()
	}
	s.recv -= n
	s.buffered += n
	if pad := n - int64(len(p)); pad > 0 {
		c.Consume(s, pad)
	}
	if end {
		c.endedByPeer(s)
	}
	return Event{Kind: Body, Stream: s, Data: p, End: end}, nil
}

// late handles a frame of a closed stream.
func (c *Conn) late(id uint32, now time.Time) (Event, error) {
	switch c.dead.find(id) {
	case resetByUs:
		return Event{}, nil // it was in flight (RFC 9113, section 5.1)
	case endedWell:
		return Event{}, connError(StreamClosed, "a frame after the end of a stream")
	case 0:
		// It is not known how the stream ended. If we have reset it, a whole window
		// may be in flight, which is not a fault.
		return Event{}, nil
	}
	c.Out = appendReset(c.Out, id, StreamClosed)
	return Event{}, c.glitch(GlitchReset, now)
}

func (c *Conn) endedByPeer(s *Stream) {
	if s.state = s.state.ended(true); s.state == Closed {
		s.state = HalfClosedLocal
		c.close(s, endedWell)
		c.calm.served()
	}
}

func (c *Conn) receiveHeaders(f *Frame, now time.Time) (Event, error) {
	if f.Stream == 0 || f.Stream%2 == 0 {
		return Event{}, connError(ProtocolError, "HEADERS of a stream that is not a client's")
	}
	p, err := f.unpad()
	if err != nil {
		return Event{}, err
	}
	if f.has(FlagPriority) {
		if len(p) < priorityLen {
			return Event{}, connError(FrameSizeError, "HEADERS too short for its priority")
		}
		if binary.BigEndian.Uint32(p)&maxStreamID == f.Stream {
			return Event{}, connError(ProtocolError, "a stream that depends on itself")
		}
		p = p[priorityLen:]
	}
	c.blockEnd = f.has(FlagEndStream)
	if f.has(FlagEndHeaders) {
		return c.head(f.Stream, p, now)
	}
	if len(p) > c.maxBlock {
		return Event{}, connError(EnhanceYourCalm, "fields too large")
	}
	c.block, c.inBlock = append(c.block[:0], p...), f.Stream
	return Event{}, nil
}

func (c *Conn) receiveContinuation(f *Frame, now time.Time) (Event, error) {
	if c.inBlock == 0 {
		return Event{}, connError(ProtocolError, "CONTINUATION of nothing")
	}
	if err := c.glitch(GlitchSplit, now); err != nil {
		return Event{}, err
	}
	if len(c.block)+len(f.Payload) > c.maxBlock {
		return Event{}, connError(EnhanceYourCalm, "fields too large")
	}
	c.block = append(c.block, f.Payload...)
	if !f.has(FlagEndHeaders) {
		return Event{}, nil
	}
	c.inBlock = 0
	return c.head(f.Stream, c.block, now)
}

// head handles a complete field block.
func (c *Conn) head(id uint32, block []byte, now time.Time) (Event, error) {
	s := c.streams[id]
	if s == nil && c.client {
		if c.idle(id) {
			return Event{}, connError(ProtocolError, "HEADERS of an idle stream")
		}
		return c.refuse(id, block, now)
	}
	if s == nil {
		if id <= c.newest {
			if how := c.dead.find(id); how != 0 {
				return c.refuse(id, block, now)
			}
			return Event{}, connError(ProtocolError, "a stream with a lower number than an earlier one")
		}
		c.newest = id
		if id > c.closing {
			return Event{}, c.Decode(block, nil) // ignored after our GOAWAY
		}
		if int64(c.opened) >= int64(c.allowed) {
			c.Out = appendReset(c.Out, id, RefusedStream)
			c.dead.add(id, resetByUs)
			if c.unacked == 0 { // it knows our limit
				if err := c.glitch(GlitchRefused, now); err != nil {
					return Event{}, err
				}
			}
			return Event{}, c.Decode(block, nil)
		}
		s = c.begin(id)
		s.headed = true
		if c.blockEnd {
			c.endedByPeer(s)
		}
		return Event{Kind: Head, Stream: s, Block: block, End: c.blockEnd}, nil
	}
	if s.state == HalfClosedRemote {
		if err := c.Decode(block, nil); err != nil {
			return Event{}, err
		}
		return c.fail(s, StreamClosed, "HEADERS after the end", now)
	}
	kind := Head
	if s.headed {
		if kind = Trailer; !c.blockEnd {
			if err := c.Decode(block, nil); err != nil {
				return Event{}, err
			}
			return c.fail(s, ProtocolError, "a trailer that does not end its stream", now)
		}
	}
	if c.blockEnd {
		c.endedByPeer(s)
	}
	return Event{Kind: kind, Stream: s, Block: block, End: c.blockEnd}, nil
}

// refuse handles a head of a closed stream.
func (c *Conn) refuse(id uint32, block []byte, now time.Time) (Event, error) {
	if err := c.Decode(block, nil); err != nil {
		return Event{}, err
	}
	ev, err := c.late(id, now)
	if err == nil && c.dead.find(id) == resetByPeer {
		err = connError(StreamClosed, "HEADERS behind RST_STREAM")
	}
	return ev, err
}

func (c *Conn) receiveReset(f *Frame, now time.Time) (Event, error) {
	switch {
	case len(f.Payload) != resetLen:
		return Event{}, connError(FrameSizeError, "RST_STREAM of another size than 4")
	case f.Stream == 0:
		return Event{}, connError(ProtocolError, "RST_STREAM of no stream")
	case c.idle(f.Stream):
		return Event{}, connError(ProtocolError, "RST_STREAM of an idle stream")
	}
	s := c.streams[f.Stream]
	if s == nil {
		c.dead.change(f.Stream, resetByUs, resetByPeer) // nothing is in flight any more
		return Event{}, c.glitch(GlitchUnknown, now)    // it crossed our end of the stream
	}
	if !c.client {
		if err := c.glitch(GlitchReset, now); err != nil {
			return Event{}, err
		}
	}
	c.close(s, resetByPeer)
	return Event{Kind: Reset, Stream: s, Code: Code(binary.BigEndian.Uint32(f.Payload))}, nil
}

func (c *Conn) receiveWindowUpdate(f *Frame, now time.Time) (Event, error) {
	if len(f.Payload) != incrementLen {
		return Event{}, connError(FrameSizeError, "WINDOW_UPDATE of another size than 4")
	}
	n := int64(binary.BigEndian.Uint32(f.Payload) & MaxWindow)
	if n < smallUpdate {
		if err := c.glitch(GlitchWindow, now); err != nil {
			return Event{}, err
		}
	}
	if f.Stream == 0 {
		if n == 0 {
			return Event{}, connError(ProtocolError, "WINDOW_UPDATE by 0")
		}
		if c.send += n; c.send > MaxWindow {
			return Event{}, connError(FlowControlError, "the connection's window above 2^31-1")
		}
		return Event{Kind: Writable}, nil
	}
	if c.idle(f.Stream) {
		return Event{}, connError(ProtocolError, "WINDOW_UPDATE of an idle stream")
	}
	s := c.streams[f.Stream]
	if s == nil {
		return Event{}, nil // it may be late
	}
	if n == 0 {
		return c.fail(s, ProtocolError, "WINDOW_UPDATE by 0", now)
	}
	if s.send += n; s.send > MaxWindow {
		return c.fail(s, FlowControlError, "the stream's window above 2^31-1", now)
	}
	return Event{Kind: Writable, Stream: s}, nil
}

func (c *Conn) receiveSettings(f *Frame, now time.Time) (Event, error) {
	if f.Stream != 0 {
		return Event{}, connError(ProtocolError, "SETTINGS of a stream")
	}
	if f.has(FlagAck) {
		if len(f.Payload) != 0 {
			return Event{}, connError(FrameSizeError, "an acknowledgement with a payload")
		}
		if !c.told {
			return Event{}, connError(ProtocolError, "SETTINGS is not the first frame")
		}
		if c.unacked == 0 {
			return Event{}, connError(ProtocolError, "an acknowledgement without SETTINGS to acknowledge")
		}
		if c.unacked--; c.unacked == 0 {
			c.allowed = c.local.MaxStreams
			return Event{Kind: Acknowledged}, nil
		}
		return Event{}, nil
	}
	if len(f.Payload)%settingLen != 0 {
		return Event{}, connError(FrameSizeError, "SETTINGS with a size that is not a multiple of 6")
	}
	if c.told {
		if err := c.glitch(GlitchSettings, now); err != nil {
			return Event{}, err
		}
	}
	was := c.peer
	if err := c.peer.apply(f.Payload, c.client); err != nil {
		return Event{}, err
	}
	c.told = true
	if d := int64(c.peer.Window) - int64(was.Window); d != 0 {
		for _, s := range c.streams {
			if s.send += d; s.send > MaxWindow {
				return Event{}, connError(FlowControlError, "a stream's window above 2^31-1")
			}
		}
	}
	if c.peer.TableSize != was.TableSize {
		c.enc.setMax(c.peer.TableSize)
	}
	c.Out = appendHeader(c.Out, 0, SettingsFrame, FlagAck, 0)
	return Event{Kind: Configured}, nil
}

func (c *Conn) receivePing(f *Frame, now time.Time) (Event, error) {
	switch {
	case len(f.Payload) != pingLen:
		return Event{}, connError(FrameSizeError, "PING of another size than 8")
	case f.Stream != 0:
		return Event{}, connError(ProtocolError, "PING of a stream")
	}
	data := [pingLen]byte(f.Payload)
	if f.has(FlagAck) {
		return Event{Kind: Pong, Ping: data}, nil
	}
	c.Out = appendPing(c.Out, FlagAck, data)
	return Event{}, c.glitch(GlitchPing, now)
}

func (c *Conn) receiveGoAway(f *Frame, now time.Time) (Event, error) {
	switch {
	case len(f.Payload) < goAwayLen:
		return Event{}, connError(FrameSizeError, "GOAWAY shorter than 8")
	case f.Stream != 0:
		return Event{}, connError(ProtocolError, "GOAWAY of a stream")
	}
	if err := c.glitch(GlitchGoAway, now); err != nil {
		return Event{}, err
	}
	last := binary.BigEndian.Uint32(f.Payload) & maxStreamID
	if c.left && last > c.peerMax {
		return Event{}, connError(ProtocolError, "GOAWAY that takes an earlier one back")
	}
	c.left, c.peerMax = true, last
	return Event{Kind: Leaving, Last: last, Code: Code(binary.BigEndian.Uint32(f.Payload[4:])), Reason: string(f.Payload[goAwayLen:min(len(f.Payload), goAwayLen+256)])}, nil
}

// receivePriority checks the format and ignores the priority tree of RFC 7540
// (RFC 9113, section 5.3.2).
func (c *Conn) receivePriority(f *Frame, now time.Time) (Event, error) {
	if f.Stream == 0 {
		return Event{}, connError(ProtocolError, "PRIORITY of no stream")
	}
	if err := c.glitch(GlitchPriority, now); err != nil {
		return Event{}, err
	}
	s := c.streams[f.Stream]
	switch {
	case len(f.Payload) != priorityLen && s != nil:
		return c.fail(s, FrameSizeError, "PRIORITY of another size than 5", now)
	case len(f.Payload) != priorityLen:
		return Event{}, connError(FrameSizeError, "PRIORITY of another size than 5")
	case binary.BigEndian.Uint32(f.Payload)&maxStreamID != f.Stream:
		return Event{}, nil
	case s != nil:
		return c.fail(s, ProtocolError, "a stream that depends on itself", now)
	}
	return Event{}, connError(ProtocolError, "a stream that depends on itself")
}

func (c *Conn) receivePriorityUpdate(f *Frame, now time.Time) (Event, error) {
	switch {
	case f.Stream != 0 || c.client:
		return Event{}, connError(ProtocolError, "PRIORITY_UPDATE of a stream, or by a server")
	case len(f.Payload) < 4:
		return Event{}, connError(FrameSizeError, "PRIORITY_UPDATE shorter than 4")
	}
	if err := c.glitch(GlitchPriority, now); err != nil {
		return Event{}, err
	}
	id := binary.BigEndian.Uint32(f.Payload) & maxStreamID
	if id == 0 {
		return Event{}, connError(ProtocolError, "PRIORITY_UPDATE for the connection")
	}
	s := c.streams[id]
	if s == nil {
		return Event{}, nil
	}
	s.Urgency, s.Incremental = ParsePriority(string(f.Payload[4:min(len(f.Payload), 4+256)]))
	return Event{Kind: Reordered, Stream: s}, nil
}
