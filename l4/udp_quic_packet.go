// SPDX-License-Identifier: Apache-2.0

package l4

import "encoding/binary"

const (
	quicV1 = 1
	quicV2 = 0x6b3343cf

	quicIDBytes      = 20   // of the longest connection id of these versions
	quicInitialBytes = 1200 // of the smallest datagram that may begin a connection
)

// A quicKind is what a QUIC packet is for, as far as it can be seen.
type quicKind uint8

const (
	quicShort     quicKind = iota // 1-RTT: the header has no more than a destination, of unknown length
	quicInitial                   // of a client: may begin a connection
	quicZeroRTT                   // early data
	quicHandshake                 // goes to an id that the server has chosen
	quicRetry                     // names another id for the server
	quicNegotiate                 // a Version Negotiation
	quicUnknown                   // of another version
)

// begins reports whether a client may send it before it has seen a reply.
func (k quicKind) begins() bool { return k == quicInitial || k == quicZeroRTT || k == quicUnknown }

// A quicPacket is one packet of a datagram.
type quicPacket struct {
	kind    quicKind
	version uint32
	dst     []byte // destination id; of a short header, the most that it could be
	src     []byte // source id; none in a short header
	b       []byte // from the first byte of the packet to the end of the datagram
	after   int    // bytes of b before what is not part of all versions
}

// parseQUIC reads the first packet of b: what does not change between versions (RFC 8999,
// section 5), and its type in those that are known.
func parseQUIC(b []byte) (p quicPacket, ok bool) {
	if len(b) == 0 {
		return p, false
	}
	p.b = b
	if b[0]&0x80 == 0 {
		p.dst = b[1:min(len(b), 1+quicIDBytes)]
		return p, true
	}
	c := cursor{b: b[1:]}
	version := c.bytes(4)
	dst, src := c.vector8(), c.vector8()
	if c.bad {
		return p, false
	}
	p.version, p.dst, p.src = binary.BigEndian.Uint32(version), dst.b, src.b
	p.after = len(b) - len(c.b)
	switch kind := b[0] >> 4 & 3; p.version {
	case quicV1: // RFC 9000, section 17.2
		p.kind = quicInitial + quicKind(kind)
	case quicV2: // RFC 9369, section 3.2
		p.kind = quicInitial + quicKind(kind+3)&3
	case 0:
		p.kind = quicNegotiate
		return p, true
	default:
		p.kind = quicUnknown
		return p, true
	}
	return p, len(p.dst) <= quicIDBytes && len(p.src) <= quicIDBytes
}

// body finds the packet number of an Initial or 0-RTT packet, after header bytes, the end of
// the packet, and what follows it in the datagram (RFC 9000, sections 17.2.2 and 17.2.3).
func (p *quicPacket) body() (header int, packet, next []byte, ok bool) {
	c := cursor{b: p.b[p.after:]}
	if p.kind == quicInitial {
		c.bytes(c.varint()) // token
	}
	n := c.varint()
	if c.bad || n > len(c.b) {
		return 0, nil, nil, false
	}
	header = len(p.b) - len(c.b)
	return header, p.b[:header+n], p.b[header+n:], true
}

// varint reads a number in 1 to 8 bytes (RFC 9000, section 16).
func (c *cursor) varint() int {
	if len(c.b) == 0 {
		c.bad = true
		return 0
	}
	size := 1 << (c.b[0] >> 6)
	b := c.bytes(size)
	if b == nil {
		return 0
	}
	v := uint64(b[0] & 0x3f)
	for _, x := range b[1:] {
		v = v<<8 | uint64(x)
	}
	const most = 1 << 30 // more than any length that fits, on any system
	return int(min(v, most))
}
