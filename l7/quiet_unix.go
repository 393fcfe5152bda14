// SPDX-License-Identifier: Apache-2.0

//go:build unix

package l7

import (
	"crypto/tls"
	"net"
	"runtime"
	"syscall"
)

// quiet looks for data or an end on an idle connection, without waiting and without
// consuming.
type quiet struct {
	raw    syscall.RawConn // nil if there is no socket
	look   func(fd uintptr) bool
	silent bool
	tls    bool
}

func newQuiet(c net.Conn) *quiet {
	q := new(quiet)
	if t, ok := c.(*tls.Conn); ok {
		q.tls = true
		c = t.NetConn()
	}
	switch c := c.(type) {
	case *net.TCPConn:
		q.raw, _ = c.SyscallConn()
	case *net.UnixConn:
		q.raw, _ = c.SyscallConn()
	}
	q.look = func(fd uintptr) bool {
		var b [1]byte
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK)
		q.silent = err == syscall.EAGAIN
		return true
	}
	return q
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
func (q *quiet) bare() bool { return runtime.GOOS == "linux" && q.raw != nil && !q.tls }
