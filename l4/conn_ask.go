// SPDX-License-Identifier: Apache-2.0

package l4

import "errors"

// ErrNotQuiet is what Ask returns, having written nothing, when a connection
// on which nothing was due has something to read, be it its end.
//
// It is for package l7: see "Machinery" in the package documentation.
var ErrNotQuiet = errors.New("l4: the peer spoke, or went away, before it was asked")

// Ask writes req to a peer that speaks only when asked, and waits for the
// beginning of the answer, which comes in a buffer borrowed from p as with
// ReadBuffer. It is for connections that have been idle: for TCP and Unix
// sockets on Linux the look at whether the connection is as it was left costs
// no system call of its own, since it takes the place of the first, vain,
// attempt to read the answer. Others are not looked at.
//
// The error is ErrNotQuiet if nothing was written for that reason. If not all
// of req could be written at once, b and the error are nil, and n says how much
// was: the caller writes the rest, and reads. It is both the reader and the
// writer of c meanwhile.
//
// It is for package l7: see "Machinery" in the package documentation.
func (c *Conn) Ask(req []byte, p *BufferPool) (b *Buffer, n int, err error) {
	if len(c.ahead) > 0 {
		return nil, 0, ErrNotQuiet
	}
	if c.raw != nil {
		return c.askRaw(req, p)
	}
	if n, err = c.Write(req); err != nil {
		return nil, n, err
	}
	b, err = c.ReadBuffer(p)
	return b, n, err
}
