// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"io"
	"net"
	"syscall"
)

// What a direction does with dst.
const (
	idle  int32 = iota
	busy        // it writes, or has failed to and has not said so yet
	owing       // busy, and it passes on the end of the other direction afterwards
)

// settle ends the state of being busy.
func (d *direction) settle() {
	if d.put.Swap(idle) == owing {
		d.other().stop(io.EOF)
	}
}

func (d *direction) other() *direction {
	if d == &d.r.up {
		return &d.r.down
	}
	return &d.r.up
}

// doubtful reports whether the end of src may be a reset that the other direction has
// been told of: the kernel reports a reset to the first call, and an end to later ones.
// The other direction then handles the reset, which happens soon, since no call waits on
// such a socket.
func (d *direction) doubtful() bool {
	return unconnected(d.src) && d.other().put.CompareAndSwap(busy, owing)
}

// unconnected reports whether the socket below c has lost its peer: it was reset, or both
// streams have ended.
func unconnected(c net.Conn) (gone bool) {
	for {
		if conn, ok := c.(*Conn); ok {
			c = conn.nc
			continue
		}
		if s, ok := c.(syscall.Conn); ok {
			raw, err := s.SyscallConn()
			return err == nil && raw.Control(func(fd uintptr) { gone = hasNoPeer(fd) }) == nil && gone
		}
		w, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return false
		}
		c = w.NetConn()
	}
}
