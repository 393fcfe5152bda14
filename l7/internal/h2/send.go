// SPDX-License-Identifier: Apache-2.0

package h2

// Begin opens a stream from the client's side. It returns nil if that is not
// possible: the peer's limit is reached, it has sent GOAWAY, or the stream
// numbers are used up. WriteHead must follow before the next Begin.
func (c *Conn) Begin() *Stream {
	if !c.CanBegin() {
		return nil
	}
	if c.newest == 0 {
		c.newest = 1
	} else {
		c.newest += 2
	}
	return c.begin(c.newest)
}

// CanBegin reports whether Begin would open a stream.
func (c *Conn) CanBegin() bool { return c.Room() > 0 }

// Room returns how many streams Begin would open.
func (c *Conn) Room() int {
	if c.left || c.leaving || c.newest+2 > maxStreamID {
		return 0
	}
	return max(int(min(c.peer.MaxStreams, 1<<30))-c.opened, 0)
}

// Unprocessed reports whether the peer has said by GOAWAY that it has not
// processed the stream and will not: the request may be sent again over another
// connection (RFC 9113, section 6.8).
func (c *Conn) Unprocessed(s *Stream) bool { return s.ID > c.peerMax }

// A Block writes the fields of a head or trailer into a Conn's Out.
type Block struct {
	c     *Conn
	start int
}

// WriteHead begins a block of fields, which End ends. Nothing else may be
// written in between.
func (c *Conn) WriteHead() Block {
	b := Block{c, len(c.Out)}
	c.Out = c.enc.begin(append(c.Out, make([]byte, HeaderLen)...))
	return b
}

// Field adds a field. The name must be in lower case; sensitive keeps the
// value out of every table (RFC 7541, section 7.1.3).
func (b Block) Field(name, value string, sensitive bool) {
	b.c.Out = b.c.enc.field(b.c.Out, name, value, sensitive)
}

// Again adds a field that the last block had at the same place, if FieldAs has added
// it there, and reports whether it did. That costs the least.
func (b Block) Again(raw, value string) (ok bool) {
	b.c.Out, ok = b.c.enc.again(b.c.Out, raw, value)
	return ok
}

// FieldAs is Field for a field that Again did not add. Raw is the name in the spelling
// that Again is to know it by; it is kept.
func (b Block) FieldAs(raw, name, value string) {
	start := len(b.c.Out)
	b.Field(name, value, false)
	b.c.enc.known(b.c.Out, start, raw)
}

// End sends the block as the head or trailer of s; end sets END_STREAM.
func (b Block) End(s *Stream, end bool) {
	c := b.c
	var flags uint8
	if end {
		flags = FlagEndStream
	}
	n, most := len(c.Out)-b.start-HeaderLen, int(c.peer.MaxFrame)
	if n <= most {
		put := c.Out[b.start:b.start:len(c.Out)]
		appendHeader(put, n, Headers, flags|FlagEndHeaders, s.ID)
		s.tail, s.turn = b.start, c.turn
	} else {
		c.split(b.start, most, flags, s.ID)
		s.turn = 0 // the last frame is not HEADERS
	}
	if end {
		c.endedByUs(s)
	}
}

// split splits a block that does not fit into one frame.
func (c *Conn) split(start, most int, flags uint8, id uint32) {
	block := append([]byte(nil), c.Out[start+HeaderLen:]...)
	out, t := c.Out[:start], Headers
	for len(block) > 0 {
		part := block[:min(most, len(block))]
		if block = block[len(part):]; len(block) == 0 {
			flags |= FlagEndHeaders
		}
		out = append(appendHeader(out, len(part), t, flags, id), part...)
		t, flags = Continuation, 0
	}
	c.Out = out
}

// Sendable returns how many bytes of DATA s may send now.
func (c *Conn) Sendable(s *Stream) int64 {
	if s.state == Closed || s.state == HalfClosedLocal {
		return 0
	}
	return max(min(c.send, s.send), 0)
}

// WriteData sends as much of p as the windows allow, in frames of a size that
// the peer accepts, and returns how much that was. With end, the last byte is
// sent with END_STREAM.
func (c *Conn) WriteData(s *Stream, p []byte, end bool) int {
	if s.state == Closed || s.state == HalfClosedLocal {
		return 0
	}
	n := int(min(int64(len(p)), c.Sendable(s)))
	if n == 0 && (len(p) > 0 || !end) {
		return 0
	}
	c.send -= int64(n)
	s.send -= int64(n)
	c.calm.refund() // the peer will send WINDOW_UPDATE
	for done := 0; ; {
		part := min(n-done, int(c.peer.MaxFrame))
		last := done+part == n
		var flags uint8
		if last && end && n == len(p) {
			flags = FlagEndStream
		}
		s.tail, s.turn = len(c.Out), c.turn
		c.Out = append(appendHeader(c.Out, part, Data, flags, s.ID), p[done:done+part]...)
		if done += part; last {
			break
		}
	}
	if end && n == len(p) {
		c.endedByUs(s)
	}
	return n
}

// Finish sends END_STREAM: in the last frame of s if that is still in Out, else
// in an empty one.
func (c *Conn) Finish(s *Stream) {
	if s.state == Closed || s.state == HalfClosedLocal {
		return
	}
	if s.turn == c.turn {
		c.Out[s.tail+4] |= FlagEndStream
	} else {
		c.Out = appendHeader(c.Out, 0, Data, FlagEndStream, s.ID)
	}
	c.endedByUs(s)
}

func (c *Conn) endedByUs(s *Stream) {
	if s.state = s.state.ended(false); s.state == Closed {
		s.state = HalfClosedRemote
		c.close(s, endedWell)
		c.calm.served()
	}
}

// Reset closes a stream by RST_STREAM, unless it is closed.
func (c *Conn) Reset(s *Stream, code Code) {
	if s.state == Closed {
		return
	}
	c.Out = appendReset(c.Out, s.ID, code)
	c.close(s, resetByUs)
}

// Consume is called when n bytes of the body of s have been used: the peer may
// send as many more. Windows are updated when half of them is used; the window
// of a stream that is read as fast as it comes grows.
func (c *Conn) Consume(s *Stream, n int64) {
	if s.state == Closed {
		return // close has returned them
	}
	n = min(n, s.buffered)
	s.buffered -= n
	c.giveBack(n)
	if s.state == HalfClosedRemote {
		return
	}
	s.used += n
	if s.used < s.window/2 {
		return
	}
	more := s.used
	if s.buffered == 0 && s.recv <= s.window/2 { // only the window limits the stream
		if grow := min(s.window, c.maxMore-s.window, c.spare); grow > 0 {
			c.spare -= grow
			s.window += grow
			more += grow
		}
	}
	s.used = 0
	s.recv += more
	c.Out = appendWindowUpdate(c.Out, s.ID, more)
}

// giveBack returns n bytes to the connection's window once they are a large
// part of what the peer has left.
func (c *Conn) giveBack(n int64) {
	if c.used += n; c.used > 0 && c.used >= c.recv/2 {
		c.recv += c.used
		c.Out = appendWindowUpdate(c.Out, 0, c.used)
		c.used = 0
	}
}

// WritePing sends a PING; Pong is the event of its answer.
func (c *Conn) WritePing(data [pingLen]byte) { c.Out = appendPing(c.Out, 0, data) }

// Leave sends GOAWAY. With warn it only asks for no new streams, and still
// accepts those in flight (RFC 9113, section 6.8): a second Leave must follow a
// round trip later. It returns the last stream that is processed.
func (c *Conn) Leave(warn bool, code Code, debug string) uint32 {
	last := uint32(maxStreamID)
	if !warn {
		last = min(c.newest, c.closing)
		if c.client {
			last = 0
		}
		c.closing = last
	}
	c.leaving = c.leaving || !warn || c.client
	c.Out = appendGoAway(c.Out, last, code, debug)
	return last
}

// SetMaxStreams changes how many streams the peer may have open, from its next
// one on. Streams that are open stay.
func (c *Conn) SetMaxStreams(n int) {
	if uint32(n) == c.local.MaxStreams || c.client {
		return
	}
	c.local.MaxStreams = uint32(n)
	c.unacked, c.allowed = c.unacked+1, max(c.allowed, c.local.MaxStreams)
	b := appendHeader(c.Out, settingLen, SettingsFrame, 0, 0)
	c.Out = append(b, 0, setMaxStreams, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
}
