// SPDX-License-Identifier: Apache-2.0

//go:build unix

package l7

import (
	"net"
	"runtime"
	"syscall"

	"github.com/penstock-lb/penstock/l4"
)

// quiet looks for data or an end on an idle connection, without waiting and without
// consuming.
type quiet struct {
	raw    syscall.RawConn // nil if there is no socket
	look   func(fd uintptr) bool
	silent bool
	plain  bool // the connection is the socket itself
}

func newQuiet(c net.Conn) *quiet {
	q := new(quiet)
	q.raw, q.plain = socketUnder(c)
	q.look = func(fd uintptr) bool {
		var b [1]byte
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK)
		q.silent = err == syscall.EAGAIN
		return true
	}
	return q
}

// socketUnder returns the socket that c reads from, through wrappers that have NetConn as
// a *tls.Conn does, or nil. Plain means that there is no wrapper.
func socketUnder(c net.Conn) (raw syscall.RawConn, plain bool) {
	for plain = true; ; plain = false {
		switch w := c.(type) {
		case *net.TCPConn:
			raw, _ = w.SyscallConn()
			return raw, plain
		case *net.UnixConn:
			raw, _ = w.SyscallConn()
			return raw, plain
		case *l4.Conn:
			if w.Parkable() {
				raw, _ = w.SyscallConn()
				return raw, plain
			}
			c = w.NetConn()
		case interface{ NetConn() net.Conn }:
			if c = w.NetConn(); c == nil {
				return nil, false
			}
		default:
			return nil, false
		}
	}
}

// is reports whether there is nothing to read, not even the end. If that cannot
// be found out, it returns true.
func (q *quiet) is() bool {
	if q.raw == nil {
		return true
	}
	return q.raw.Read(q.look) == nil && q.silent
}

// bare reports whether Ask of an [l4.Conn] over the connection does the same.
func (q *quiet) bare() bool { return runtime.GOOS == "linux" && q.raw != nil && q.plain }
