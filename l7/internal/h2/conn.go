// SPDX-License-Identifier: Apache-2.0

package h2

import (
	"golang.org/x/net/http2/hpack"
)

// A Config is what a Conn is made with. All of it must be set.
type Config struct {
	Client       bool // this side is the client
	MaxStreams   int  // that the peer may have open; a client's peer may have none
	MaxFrame     int  // bytes of a frame's payload that the peer may send: 16 384 to 16 777 215
	MaxBlock     int  // bytes of a compressed head or trailer, and of its CONTINUATION frames
	StreamWindow int  // bytes of a body that the peer may send ahead of what has been consumed, for each stream; at least 65 535
	ConnWindow   int  // the same for all streams together: the bound on memory. What MaxStreams leave of it lets busy streams have more
	MaxWindow    int  // bytes that a busy stream may get
	MaxHeaders   int  // SETTINGS_MAX_HEADER_LIST_SIZE: advice to the peer; 0 gives none
	Connect      bool // a server offers extended CONNECT (RFC 8441)
}

// A Conn is one side of a connection. See the package comment for its use.
type Conn struct {
	Out []byte // what is to be written

	client  bool
	local   Settings // what we have told
	peer    Settings // what the peer has told
	told    bool     // the peer has told its settings, as it must first
	unacked int      // SETTINGS of ours that it has not acknowledged
	allowed uint32   // streams that it may have open, as far as it has acknowledged that
	maxData int64    // StreamWindow
	maxMore int64    // MaxWindow
	spare   int64    // of ConnWindow, not promised to any stream yet

	streams map[uint32]*Stream
	free    []*Stream
	opened  int    // streams that the initiator has open
	newest  uint32 // of the peer's streams (server), or of ours (client)
	closing uint32 // the peer's streams above it are ignored: our GOAWAY
	leaving bool   // we have sent GOAWAY
	left    bool   // the peer has sent GOAWAY
	peerMax uint32 // our streams above it are not processed: the peer's GOAWAY
	dead    ring   // streams that were closed lately

	send int64 // bytes of DATA that we may send
	recv int64 // bytes of DATA that the peer may send
	used int64 // consumed and not yet given back
	most int64 // what recv is filled up to

	calm calm
	enc  encoder
	turn uint32 // how often Out was taken

	// What belongs to the reading side alone.
	maxFrame uint32
	maxBlock int
	skip     int // bytes of the preface to come
	block    []byte
	inBlock  uint32 // the stream whose head is not complete; 0 if there is none
	blockEnd bool   // it ends its stream
	dec      *hpack.Decoder
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
		c.local.MaxHeaders = uint32(cfg.MaxHeaders)
	}
	if c.client {
		c.local.Push = false
		c.Out = append(c.Out, Preface...)
	} else {
		c.local.MaxStreams, c.local.Connect = uint32(cfg.MaxStreams), cfg.Connect
		c.skip = len(Preface)
	}
	c.enc = encoder{max: firstTable, least: firstTable}
	c.dec = hpack.NewDecoder(firstTable, nil)
	c.Out = c.local.append(c.Out, c.client)
	c.unacked, c.allowed = 1, c.local.MaxStreams
	if c.most > c.recv {
		c.Out = appendWindowUpdate(c.Out, 0, c.most-c.recv)
		c.recv = c.most
	}
	return c
}

// Take returns what is to be written and leaves spare, emptied, in its place.
func (c *Conn) Take(spare []byte) []byte {
	out := c.Out
	c.Out = spare[:0]
	c.turn++
	return out
}

// Open returns how many streams the initiator has open.
func (c *Conn) Open() int { return c.opened }

// Peer returns what the peer has told, and whether it has.
func (c *Conn) Peer() (Settings, bool) { return c.peer, c.told }

// Acked reports whether the peer has acknowledged our settings.
func (c *Conn) Acked() bool { return c.unacked == 0 }

// Glitches returns how often the peer did what an attacker does.
func (c *Conn) Glitches() (n uint64) {
	for _, m := range c.calm.counts {
		n += m
	}
	return n
}

// GlitchesOf returns how often the peer did g.
func (c *Conn) GlitchesOf(g Glitch) uint64 { return c.calm.counts[g] }

// Streams calls f for every stream that is not closed, in no certain order.
func (c *Conn) Streams(f func(*Stream)) {
	for _, s := range c.streams {
		f(s)
	}
}

// begin makes the state of a new stream.
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

// Free gives back the memory of a stream that is closed and that the owner has
// done with.
func (c *Conn) Free(s *Stream) {
	if s.state == Closed && len(c.free) < 128 {
		s.Owner = nil
		c.free = append(c.free, s)
	}
}

// close ends a stream. What it had of the connection's windows goes back.
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
	c.giveBack(s.buffered) // nobody will consume it
	s.buffered = 0
}

// ending is how a stream came to be closed.
type ending uint8

const (
	endedWell   ending = iota + 1 // both sides have said that they are done
	resetByPeer                   // RST_STREAM has come
	resetByUs                     // RST_STREAM was sent: frames that were under way are ignored
)

// ring remembers the streams that were closed last.
type ring struct {
	ids  [64]uint32
	how  [64]ending
	next int
}

func (r *ring) add(id uint32, how ending) {
	r.ids[r.next], r.how[r.next] = id, how
	r.next = (r.next + 1) % len(r.ids)
}

func (r *ring) find(id uint32) ending {
	for i, d := range r.ids {
		if d == id {
			return r.how[i]
		}
	}
	return 0
}
