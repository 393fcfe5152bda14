// SPDX-License-Identifier: Apache-2.0

package l4

import "errors"

// ErrNotQuiet is the error of Ask if an idle connection unexpectedly has something to
// read, or has ended. Ask has then written nothing.
//
// It is for package l7: see "Machinery" in the package documentation.
var ErrNotQuiet = errors.New("l4: the peer spoke, or went away, before it was asked")

// Ask writes req to a peer that only answers requests, waits for the beginning of the
// answer, and returns it in a buffer borrowed from p, as ReadBuffer does. It is for
// connections that have been idle: for TCP and Unix sockets on Linux it checks that the
// connection is still open and quiet. That costs no extra system call: it replaces the first
// attempt to read the answer, which would find nothing. After [Adopt] it is known without a
// look, from what the kernel had to tell until the network was last asked, which may have been
// some milliseconds ago; with look it looks all the same, for what must not be sent twice.
// Other connections are not checked.
//
// The error is ErrNotQuiet if the check failed and nothing was written. If not all of req
// could be written at once, b and the error are nil, and n is the number of bytes
// written: the caller writes the rest, and reads. During the call Ask is both the reader
// and the writer of c.
//
// It is for package l7: see "Machinery" in the package documentation.
func (c *Conn) Ask(req []byte, look bool, p *BufferPool) (b *Buffer, n int, err error) {
	if len(c.ahead) > 0 {
		return nil, 0, ErrNotQuiet
	}
	if c.raw != nil {
		return c.askRaw(req, look, p)
	}
	if n, err = c.Write(req); err != nil {
		return nil, n, err
	}
	b, err = c.ReadBuffer(p)
	return b, n, err
}
