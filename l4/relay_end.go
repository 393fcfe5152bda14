// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
)

// ErrNoCloseNotify is matched by the error of a relay whose end was normal, except that one
// side ended TLS without close_notify, by the end of TCP alone. Anything on the way can make
// that (RFC 8446, section 6.1), but much software ends TLS so when it has sent everything.
// Therefore all that was received is delivered, the other side's TLS ends without close_notify
// too, a plain connection ends by FIN, and the server is not blamed. The end within a record
// is an error, [io.ErrUnexpectedEOF], and resets the other side.
//
// It is noticed in TLS of [TerminateTLS] and [OriginateTLS], and in that of a HandshakeFunc
// which makes it over NewConn(server).
var ErrNoCloseNotify = errors.New("l4: TLS ended without close_notify")

var (
	errClientShort = fmt.Errorf("%w by the client", ErrNoCloseNotify)
	errServerShort = fmt.Errorf("%w by the server", ErrNoCloseNotify)
)

// passShort passes on that src ended TLS without close_notify: TLS of dst gets none either,
// only the end of what it is over, which loses no data as a reset may.
func (d *direction) passShort() {
	d.r.noteShort(d.src)
	below := belowTLS(d.dst)
	if below == nil {
		if !d.r.last() {
			d.passEnd()
		}
		return
	}
	if cw, ok := below.(interface{ CloseWrite() error }); ok && !errors.Is(cw.CloseWrite(), errors.ErrUnsupported) {
		return
	}
	d.r.cut(Termination{}, nil)
	below.Close()
}

func (r *relay) noteShort(src *Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.short == nil {
		r.short = src
	}
}

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
