// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"errors"
	"io"
)

// Transfer moves n bytes from src to dst inside the kernel (splice(2)), and
// returns how many were moved before an error. Nothing may have been read
// ahead of src. Before each wait it calls before, if that is not nil, for the
// deadlines to be renewed: with src if something is to be read from it, with
// dst if that is to take something.
//
// The error is [errors.ErrUnsupported], with nothing moved, where that cannot
// be done: it takes TCP or Unix sockets on Linux. [io.ErrUnexpectedEOF] says
// that src ended early. After any other error bytes that were read from src
// may be lost.
//
// It is for package l7: see "Machinery" in the package documentation.
func Transfer(dst, src *Conn, n int64, before func(c *Conn)) (int64, error) {
	if dst.raw == nil || src.raw == nil || len(src.ahead) > 0 {
		return 0, errors.ErrUnsupported
	}
	moved, err := transferRaw(dst, src, n, before)
	src.bytesRead.Add(moved)
	dst.bytesWritten.Add(moved)
	if err == io.EOF {
		src.flags.set(peerGone)
		err = io.ErrUnexpectedEOF
	}
	return moved, err
}
