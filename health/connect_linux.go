// SPDX-License-Identifier: Apache-2.0

package health

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
)

// A connecting is an attempt to open a TCP connection only to learn whether it
// can be. It asks the kernel for what that takes and no more, and gives the
// connection up with a reset before its handshake is complete: the last ACK is
// held back, so that the server's process never sees it, and neither side keeps
// anything. That is a third of the system calls and less than half of the
// packets of a connection by package net.
//
// Source: HAProxy's plain connect checks do the same, src/tcpcheck.c
// (CONNECT_DELACK_ALWAYS) and src/proto_tcp.c.
type connecting struct {
	fd int
	to syscall.Sockaddr
}

// An idleSockets keeps sockets from one connection to the next, which saves a third of
// what a probe costs. The zero value is empty. One goroutine uses it.
type idleSockets struct{ v4, v6 int } // descriptors, plus one

// of returns the place for sockets of family.
func (s *idleSockets) of(family int) *int {
	if family == syscall.AF_INET {
		return &s.v4
	}
	return &s.v6
}

// close closes what is kept.
func (s *idleSockets) close() {
	for _, fd := range []*int{&s.v4, &s.v6} {
		if *fd > 0 {
			sysClose(*fd - 1)
			*fd = 0
		}
	}
}

// socket returns a socket of family that is not connected.
func (s *idleSockets) socket(family int) (fd int, err error) {
	if kept := s.of(family); *kept > 0 {
		fd, *kept = *kept-1, 0
	} else {
		fd, err = syscall.Socket(family, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			return 0, os.NewSyscallError("socket", err)
		}
		// Should this fail, the connection is closed in the usual way.
		syscall.SetsockoptLinger(fd, syscall.SOL_SOCKET, syscall.SO_LINGER, &syscall.Linger{Onoff: 1})
	}
	syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_QUICKACK, 0)
	return fd, nil
}

// put resets the connection of fd, and keeps fd if it can be used again.
func (s *idleSockets) put(fd, family int) {
	if kept := s.of(family); *kept == 0 && sysDisconnect(fd) {
		*kept = fd + 1
		return
	}
	sysClose(fd)
}

// beginConnect begins to connect to addr with a socket of s. done is true if that
// has come to an end, good or bad, as it has on loopback; otherwise wait must be
// called. ok is false if addr is not an IP address and port in digits.
func beginConnect(addr string, s *idleSockets) (c connecting, done, ok bool, err error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil || to.Addr().Zone() != "" || to.Addr().IsUnspecified() || to.Port() == 0 {
		return c, false, false, nil
	}
	family := syscall.AF_INET
	if ip := to.Addr().Unmap(); ip.Is4() {
		c.to = &syscall.SockaddrInet4{Addr: ip.As4(), Port: int(to.Port())}
	} else {
		family = syscall.AF_INET6
		c.to = &syscall.SockaddrInet6{Addr: ip.As16(), Port: int(to.Port())}
	}
	if c.fd, err = s.socket(family); err != nil {
		return c, true, true, c.why(err)
	}
	err = sysConnect(c.fd, c.to)
	if pending(err) {
		// On loopback the answer came while the call ended.
		err = sysConnect(c.fd, c.to)
	}
	if pending(err) {
		return c, false, true, nil
	}
	if err = c.end(err); err != nil {
		sysClose(c.fd)
	} else {
		s.put(c.fd, family)
	}
	return c, true, true, err
}

// wait waits until it is known whether c could connect, or ctx ends.
func (c *connecting) wait(ctx context.Context) error {
	f := os.NewFile(uintptr(c.fd), "socket") // non-blocking, so that the runtime's poller has it
	defer f.Close()
	raw, err := f.SyscallConn()
	if err != nil {
		return &Error{Code: CodeInternal, Step: "connect", Text: printable(err.Error()), Err: err}
	}
	defer context.AfterFunc(ctx, func() { f.SetWriteDeadline(time.Unix(1, 0)) })()
	var answer error
	err = raw.Write(func(uintptr) bool {
		answer = sysConnect(c.fd, c.to)
		return !pending(answer)
	})
	switch {
	case err == nil:
		return c.end(answer)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return c.why(err)
	}
	return &Error{Code: CodeInternal, Step: "connect", Text: printable(err.Error()), Err: err}
}

// pending reports whether err is the connect(2) of a connection on its way.
func pending(err error) bool {
	return err == syscall.EINPROGRESS || err == syscall.EALREADY || err == syscall.EINTR
}

// end returns what connecting came to, from the last error of connect(2).
func (c *connecting) end(err error) error {
	if err == nil || err == syscall.EISCONN {
		if !c.itself() {
			return nil
		}
		err = syscall.ECONNREFUSED
	}
	return c.why(os.NewSyscallError("connect", err))
}

// itself reports whether c is connected to itself. That happens if no socket
// listens at a local port and the kernel picks it as the port of c.
func (c *connecting) itself() bool {
	own, err := syscall.Getsockname(c.fd)
	if err != nil {
		return false
	}
	switch to := c.to.(type) {
	case *syscall.SockaddrInet4:
		own, ok := own.(*syscall.SockaddrInet4)
		return ok && own.Port == to.Port && own.Addr == to.Addr
	case *syscall.SockaddrInet6:
		own, ok := own.(*syscall.SockaddrInet6)
		return ok && own.Port == to.Port && own.Addr == to.Addr
	}
	return false
}

// why wraps err as package net does.
func (c *connecting) why(err error) error {
	op := &net.OpError{Op: "dial", Net: "tcp", Err: err}
	switch to := c.to.(type) {
	case *syscall.SockaddrInet4:
		op.Addr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.AddrFrom4(to.Addr), uint16(to.Port)))
	case *syscall.SockaddrInet6:
		op.Addr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.AddrFrom16(to.Addr), uint16(to.Port)))
	}
	return op
}
