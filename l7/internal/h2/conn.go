// SPDX-License-Identifier: Apache-2.0

package h2

import "math"

// A Config configures a Conn. All fields must be set.
type Config struct {
	Client       bool // this side is the client
	MaxStreams   int  // that the peer may open; the peer of a client may open none
	MaxFrame     int  // bytes of a frame's payload that the peer may send: 16 384 to 16 777 215
	MaxBlock     int  // bytes of a compressed head or trailer, and of its CONTINUATION frames
	StreamWindow int  // bytes that the peer may send ahead of consumption, for each stream; at least 65 535
	ConnWindow   int  // the same for all streams together: the bound on memory. The part not reserved for MaxStreams is for busy streams
	MaxWindow    int  // bytes that a busy stream may get
	MaxHeaders   int  // SETTINGS_MAX_HEADER_LIST_SIZE: advice to the peer; 0 gives none
	Connect      bool // a server offers extended CONNECT (RFC 8441)
}

// A Conn is one side of a connection. See the package comment for its use.
type Conn struct {
	Out []byte // bytes to be written

	client  bool
	local   Settings // ours, as sent
	peer    Settings // the peer's, as received
	told    bool     // the peer has sent its first SETTINGS
	unacked int      // SETTINGS of ours that it has not acknowledged
	allowed uint32   // streams that the peer may open, by the last SETTINGS that it has acknowledged
	maxData int64    // StreamWindow
	maxMore int64    // MaxWindow
	spare   int64    // part of ConnWindow not yet assigned to a stream

	streams map[uint32]*Stream
	free    []*Stream
	opened  int    // open streams of the initiator
	newest  uint32 // highest stream of the peer (server), or of ours (client)
	closing uint32 // the peer's streams above it are ignored: our GOAWAY
	leaving bool   // we have sent GOAWAY
	left    bool   // the peer has sent GOAWAY
	peerMax uint32 // our streams above it are not processed: the peer's GOAWAY
	dead    ring   // recently closed streams

	send int64 // bytes of DATA that we may send
	recv int64 // bytes of DATA that the peer may send
	used int64 // consumed and not yet returned to the window
	most int64 // the full size of recv

	calm calm
	enc  encoder
	turn uint32 // number of calls of Take

	// Used only by the reading side.
	maxFrame uint32
	maxBlock int
	skip     int // bytes of the preface not yet read
	block    []byte
	inBlock  uint32 // the stream whose head is not complete; 0 if there is none
	blockEnd bool   // it ends its stream
	dec      decoder
}

// New returns a Conn whose first frames are in its Out.
func New(cfg *Config) *Conn {
	c := &Conn{
		client: cfg.Client, local: firstSettings(), peer: firstSettings(),
		streams: make(map[uint32]*Stream), closing: maxStreamID, peerMax: maxStreamID,
		send: firstWindow, recv: firstWindow, most: int64(max(cfg.ConnWindow, firstWindow)),
		maxFrame: uint32(cfg.MaxFrame), maxBlock: cfg.MaxBlock, turn: 1,
		maxData: int64(cfg.StreamWindow), maxMore: int64(cfg.MaxWindow),
	}
	c.spare = max(c.most-int64(cfg.MaxStreams)*c.maxData, 0)
	c.local.MaxFrame, c.local.Window = c.maxFrame, uint32(cfg.StreamWindow)
	if cfg.MaxHeaders > 0 {
		c.local.MaxHeaders = uint32(min(uint64(cfg.MaxHeaders), math.MaxUint32))
	}
	if c.client {
		c.local.Push = false
		c.Out = append(c.Out, Preface...)
	} else {
		c.local.MaxStreams, c.local.Connect = uint32(cfg.MaxStreams), cfg.Connect
		c.skip = len(Preface)
	}
	c.enc = encoder{max: firstTable, least: firstTable}
	c.dec.max = firstTable
	c.Out = c.local.append(c.Out, c.client)
	c.unacked, c.allowed = 1, c.local.MaxStreams
	if c.most > c.recv {
		c.Out = appendWindowUpdate(c.Out, 0, c.most-c.recv)
		c.recv = c.most
	}
	return c
}

// Take returns Out and replaces it by spare, emptied.
func (c *Conn) Take(spare []byte) []byte {
	out := c.Out
	c.Out = spare[:0]
	c.turn++
	return out
}

// InHead reports whether a head or trailer has come in part. It belongs to the
// reading side, as Parse does.
func (c *Conn) InHead() bool { return c.inBlock != 0 }

// Rest releases memory that a connection without streams does not need. It needs the
// reading side and the lock.
func (c *Conn) Rest() {
	if c.inBlock == 0 {
		c.block, c.dec.strings = nil, nil
	}
	if c.opened == 0 {
		c.streams, c.free = make(map[uint32]*Stream), nil
	}
}

// Open returns how many streams the initiator has open.
func (c *Conn) Open() int { return c.opened }

// Peer returns the peer's settings, and whether they have come.
func (c *Conn) Peer() (Settings, bool) { return c.peer, c.told }

// Acked reports whether the peer has acknowledged our settings.
func (c *Conn) Acked() bool { return c.unacked == 0 }

// Glitches returns the number of the peer's glitches.
func (c *Conn) Glitches() (n uint64) {
	for _, m := range c.calm.counts {
		n += m
	}
	return n
}

// GlitchesOf returns how often the peer did g.
func (c *Conn) GlitchesOf(g Glitch) uint64 { return c.calm.counts[g] }

// Streams calls f for every stream that is not closed, in no particular order.
func (c *Conn) Streams(f func(*Stream)) {
	for _, s := range c.streams {
		f(s)
	}
}

// begin returns a new stream.
func (c *Conn) begin(id uint32) *Stream {
	var s *Stream
	if n := len(c.free); n > 0 {
		s = c.free[n-1]
		c.free = c.free[:n-1]
	} else {
		s = new(Stream)
	}
	*s = Stream{ID: id, send: int64(c.peer.Window), recv: c.maxData, window: c.maxData, Urgency: defaultUrgency}
	c.streams[id] = s
	c.opened++
	return s
}

// Free releases the memory of a closed stream that the owner no longer uses.
func (c *Conn) Free(s *Stream) {
	if s.state == Closed && len(c.free) < 128 {
		s.Owner = nil
		c.free = append(c.free, s)
	}
}

// close ends a stream and returns its part of the connection's window.
func (c *Conn) close(s *Stream, how ending) {
	if s.state == Closed {
		return
	}
	s.state = Closed
	delete(c.streams, s.ID)
	c.opened--
	c.dead.add(s.ID, how)
	c.spare += s.window - c.maxData
	s.window = c.maxData
	c.giveBack(s.buffered) // it will not be consumed
	s.buffered = 0
}

// ending is how a stream was closed.
type ending uint8

const (
	endedWell   ending = iota + 1 // both sides have sent END_STREAM
	resetByPeer                   // RST_STREAM has come
	resetByUs                     // RST_STREAM was sent: frames in flight are ignored
)

// ring remembers the most recently closed streams.
type ring struct {
	ids  [64]uint32
	how  [64]ending
	next int
}

func (r *ring) add(id uint32, how ending) {
	r.ids[r.next], r.how[r.next] = id, how
	r.next = (r.next + 1) % len(r.ids)
}

// change notes more of a closed stream.
func (r *ring) change(id uint32, from, to ending) {
	for i, d := range r.ids {
		if d == id && r.how[i] == from {
			r.how[i] = to
		}
	}
}

func (r *ring) find(id uint32) ending {
	for i, d := range r.ids {
		if d == id {
			return r.how[i]
		}
	}
	return 0
}
