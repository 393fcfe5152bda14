// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"syscall"
)

// A listener accepts socks.
type listener struct {
	file *os.File
	raw  syscall.RawConn
	addr net.Addr
	unix bool
	path string // of a Unix socket, to be removed

	local net.Addr // of all connections; nil if they may differ

	shared  atomic.Bool // another process removes the path
	handed  atomic.Bool // another process accepts
	closing atomic.Bool
	closed  chan struct{} // closed once the socket is

	spare atomic.Pointer[acceptance] // for the next Accept; may be nil
}

// FileListener returns a listener for a listening socket that was handed over
// by another process, as a descriptor that the host made an *os.File of. It
// works on a copy: closing f does not affect it. The socket's options are what
// they were.
func (lc *ListenConfig) FileListener(f *os.File) (net.Listener, error) {
	ln, err := net.FileListener(f)
	if err != nil {
		return nil, err
	}
	if u, ok := ln.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(true)
	}
	return lighten(ln)
}

// lighten takes over the socket of ln.
func lighten(ln net.Listener) (net.Listener, error) {
	l := &listener{addr: ln.Addr(), closed: make(chan struct{})}
	var err error
	switch ln := ln.(type) {
	case *net.TCPListener:
		l.file, err = ln.File()
		if a := l.addr.(*net.TCPAddr); !a.IP.IsUnspecified() && a.IP != nil {
			l.local = a
		}
	case *net.UnixListener:
		l.unix = true
		l.file, err = ln.File()
		if a := l.addr.(*net.UnixAddr); a.Name != "" && a.Name[0] != '@' {
			l.path = a.Name
		}
		ln.SetUnlinkOnClose(false)
	default:
		return ln, nil
	}
	ln.Close()
	if err == nil {
		l.raw, err = l.file.SyscallConn()
	}
	if err != nil {
		return nil, fmt.Errorf("l4: listen: %w", err)
	}
	return l, nil
}

// Accept waits for a connection. After Close its error wraps net.ErrClosed.
func (l *listener) Accept() (net.Conn, error) {
	a := l.spare.Swap(nil)
	if a == nil {
		a = &acceptance{l: l}
		a.ready = a.accept
	}
	err := l.raw.Read(a.ready)
	s, failed := a.s, a.err
	a.s, a.err = nil, nil
	l.spare.Store(a)
	if err == nil {
		err = failed
	}
	if s == nil && l.handed.Load() {
		<-l.closed
		err = net.ErrClosed
	}
	if err != nil {
		return nil, l.opError("accept", err)
	}
	return s, nil
}

// An acceptance is a call of Accept. The next one uses it again.
type acceptance struct {
	l     *listener
	ready func(fd uintptr) bool
	s     *sock
	err   error
}

// accept accepts once; false means wait.
func (a *acceptance) accept(fd uintptr) bool {
	for !a.l.handed.Load() {
		n, from, err := sysAccept(fd)
		switch err {
		case nil:
			a.s = &sock{fd: int32(n), unix: a.l.unix, local: a.l.local, remote: from}
		case syscall.EAGAIN:
			return false
		case syscall.EINTR, syscall.ECONNABORTED:
			continue
		default:
			a.err = os.NewSyscallError("accept4", err)
		}
		return true
	}
	return true
}

func (l *listener) opError(op string, err error) error {
	if l.closing.Load() { // files have other words for it
		err = net.ErrClosed
	}
	return &net.OpError{Op: op, Net: l.addr.Network(), Addr: l.addr, Err: err}
}

func (l *listener) Addr() net.Addr { return l.addr }

// Close returns when the address is free, whichever call of several has closed
// the socket.
func (l *listener) Close() error {
	if l.closing.Swap(true) {
		<-l.closed
		return l.opError("close", net.ErrClosed)
	}
	defer close(l.closed)
	if l.path != "" && !l.shared.Load() {
		os.Remove(l.path)
	}
	return l.file.Close()
}

// File returns a copy of the socket's descriptor, to hand the listener over
// to another process.
func (l *listener) File() (f *os.File, err error) {
	cerr := l.raw.Control(func(fd uintptr) {
		var n int
		if n, err = dupCloseOnExec(int(fd)); err == nil {
			f = os.NewFile(uintptr(n), l.file.Name())
		}
	})
	if cerr != nil {
		err = l.opError("dup", cerr)
	}
	return f, err
}

func dupCloseOnExec(fd int) (int, error) {
	n, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_DUPFD_CLOEXEC, 0)
	if errno != 0 {
		return -1, os.NewSyscallError("fcntl", errno)
	}
	return int(n), nil
}
