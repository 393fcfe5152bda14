// SPDX-License-Identifier: Apache-2.0

package l4

// A cursor reads the presentation language of TLS (RFC 8446, section 3). It
// turns bad, and empty, at the first read past its end: one check at the end
// will do.
type cursor struct {
	b   []byte
	bad bool
}

func (c *cursor) bytes(n int) []byte {
	if n > len(c.b) {
		c.b, c.bad = nil, true
		return nil
	}
	head := c.b[:n]
	c.b = c.b[n:]
	return head
}

func (c *cursor) uint8() uint8 {
	if b := c.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (c *cursor) uint16() uint16 {
	if b := c.bytes(2); b != nil {
		return uint16(b[0])<<8 | uint16(b[1])
	}
	return 0
}

// vector8 and vector16 read a vector whose length takes one or two bytes.
func (c *cursor) vector8() cursor  { return cursor{b: c.bytes(int(c.uint8()))} }
func (c *cursor) vector16() cursor { return cursor{b: c.bytes(int(c.uint16()))} }

// nonEmpty returns v, and turns c bad if v is empty.
func (c *cursor) nonEmpty(v cursor) cursor {
	if len(v.b) == 0 {
		c.b, c.bad = nil, true
	}
	return v
}

// readUint16s takes all that is left of c.
func readUint16s[T ~uint16](c *cursor) []T {
	if len(c.b)%2 != 0 {
		c.b, c.bad = nil, true
		return nil
	}
	out := make([]T, 0, len(c.b)/2)
	for len(c.b) > 0 {
		out = append(out, T(c.uint16()))
	}
	return out
}
