// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

// A sock is a net.Conn over a stream socket of its own, made by ListenConfig or by a
// Proxy that dials. Unlike a *net.TCPConn it postpones work until that is needed: it
// joins the runtime's poller at the first read or write that has to wait, and looks up
// its addresses when they are read. A wired relay needs neither, nor does a connection of
// one HTTP request, which saves six system calls and half of the memory of a connection.
type sock struct {
	mu      sync.Mutex // held while fd is used
	fd      int
	closed  bool
	linger  bool            // Close may have to wait
	file    *os.File        // once in the poller
	poll    syscall.RawConn // of file
	readBy  time.Time       // deadlines until then
	writeBy time.Time
	unix    bool
	to      syscall.Sockaddr // nil if not dialled
	remote  net.Addr         // nil if to be looked up
	local   net.Addr
}

// pollable adds s to the poller.
func (s *sock) pollable() (*os.File, syscall.RawConn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, nil, net.ErrClosed
	}
	s.join()
	return s.file, s.poll, nil
}

// join is pollable with s.mu held.
func (s *sock) join() {
	if s.file != nil {
		return
	}
	s.file = os.NewFile(uintptr(s.fd), "socket") // non-blocking, so that it joins
	s.poll, _ = s.file.SyscallConn()
	if !s.readBy.IsZero() {
		s.file.SetReadDeadline(s.readBy)
	}
	if !s.writeBy.IsZero() {
		s.file.SetWriteDeadline(s.writeBy)
	}
}

// Control, Read and Write of rawSock are those of a syscall.RawConn.
type rawSock struct{ s *sock }

func (r rawSock) Control(f func(fd uintptr)) error {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	if r.s.closed {
		return net.ErrClosed
	}
	f(uintptr(r.s.fd))
	return nil
}

func (r rawSock) Read(f func(fd uintptr) (done bool)) error {
	_, poll, err := r.s.pollable()
	if err != nil {
		return err
	}
	return r.s.why(poll.Read(f))
}

func (r rawSock) Write(f func(fd uintptr) (done bool)) error {
	_, poll, err := r.s.pollable()
	if err != nil {
		return err
	}
	return r.s.why(poll.Write(f))
}

// A quickSock is the rawSock of a Conn. Operations that can complete at once
// bypass the poller, until one has had to wait. Its functions must not call
// anything of the sock.
type quickSock struct{ rawSock }

func (q quickSock) Read(f func(fd uintptr) (done bool)) error {
	poll, done, err := q.s.try(f, &q.s.readBy)
	if done || err != nil {
		return err
	}
	return q.s.why(poll.Read(f))
}

func (q quickSock) Write(f func(fd uintptr) (done bool)) error {
	poll, done, err := q.s.try(f, &q.s.writeBy)
	if done || err != nil {
		return err
	}
	return q.s.why(poll.Write(f))
}

// try runs f unless s is in the poller, where it comes to if f says wait.
func (s *sock) try(f func(fd uintptr) bool, by *time.Time) (poll syscall.RawConn, done bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return nil, false, net.ErrClosed
	case s.file != nil:
	case (by.IsZero() || time.Now().Before(*by)) && f(uintptr(s.fd)):
		return nil, true, nil
	default:
		s.join()
	}
	return s.poll, false, nil
}

// why returns err as a connection has it: files have other words for closed.
func (s *sock) why(err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	s.mu.Lock()
	closed := s.closed
	s.mu.Unlock()
	if closed {
		return net.ErrClosed
	}
	if p, ok := err.(*os.PathError); ok {
		return p.Err
	}
	return err
}

// SyscallConn returns the socket's RawConn.
func (s *sock) SyscallConn() (syscall.RawConn, error) { return rawSock{s}, nil }

func (s *sock) Read(p []byte) (n int, err error) {
	f, _, err := s.pollable()
	if err == nil {
		n, err = f.Read(p)
	}
	if err == io.EOF {
		return n, err
	}
	return n, s.opError("read", err)
}

func (s *sock) Write(p []byte) (n int, err error) {
	f, _, err := s.pollable()
	if err == nil {
		n, err = f.Write(p)
	}
	return n, s.opError("write", err)
}

func (s *sock) opError(op string, err error) error {
	if err == nil {
		return nil
	}
	return &net.OpError{Op: op, Net: s.network(), Source: s.LocalAddr(), Addr: s.RemoteAddr(), Err: s.why(err)}
}

// Close closes the socket; an operation that waits ends with net.ErrClosed.
func (s *sock) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return s.opError("close", net.ErrClosed)
	}
	s.closed = true
	file := s.file
	switch {
	case file != nil:
	case s.linger:
		syscall.Close(s.fd)
	default:
		sysClose(s.fd)
	}
	s.mu.Unlock()
	if file != nil {
		file.Close()
	}
	return nil
}

// CloseWrite sends FIN.
func (s *sock) CloseWrite() error {
	return s.set("shutdown", func(fd int) error { return sysShutdown(fd, syscall.SHUT_WR) })
}

// SetLinger is that of *net.TCPConn.
func (s *sock) SetLinger(sec int) error {
	l := syscall.Linger{Linger: int32(max(sec, 0))}
	if sec >= 0 {
		l.Onoff = 1
	}
	return s.set("setsockopt", func(fd int) error {
		s.linger = sec > 0
		return syscall.SetsockoptLinger(fd, syscall.SOL_SOCKET, syscall.SO_LINGER, &l)
	})
}

// SetNoDelay is that of *net.TCPConn; true is what a new sock has.
func (s *sock) SetNoDelay(on bool) error {
	v := 0
	if on {
		v = 1
	}
	return s.set("setsockopt", func(fd int) error {
		return syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, v)
	})
}

// set runs f with the descriptor.
func (s *sock) set(call string, f func(fd int) error) error {
	var failed error
	err := rawSock{s}.Control(func(fd uintptr) { failed = f(int(fd)) })
	if err == nil && failed != nil {
		err = os.NewSyscallError(call, failed)
	}
	return s.opError("set", err)
}

func (s *sock) SetDeadline(t time.Time) error {
	return errors.Join(s.SetReadDeadline(t), s.SetWriteDeadline(t))
}

func (s *sock) SetReadDeadline(t time.Time) error {
	return s.deadline(t, &s.readBy, (*os.File).SetReadDeadline)
}

func (s *sock) SetWriteDeadline(t time.Time) error {
	return s.deadline(t, &s.writeBy, (*os.File).SetWriteDeadline)
}

// deadline stores t, or sets it if a goroutine may be waiting.
func (s *sock) deadline(t time.Time, by *time.Time, set func(*os.File, time.Time) error) error {
	s.mu.Lock()
	file, closed := s.file, s.closed
	*by = t
	s.mu.Unlock()
	if closed {
		return s.opError("set", net.ErrClosed)
	} else if file != nil {
		return s.opError("set", set(file, t))
	}
	return nil
}

func (s *sock) network() string {
	if s.unix {
		return "unix"
	}
	return "tcp"
}

func (s *sock) LocalAddr() net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.local == nil && !s.closed {
		if sa, err := syscall.Getsockname(s.fd); err == nil {
			s.local = s.addr(sa)
		}
	}
	return s.known(s.local)
}

func (s *sock) RemoteAddr() net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.remote == nil && s.to != nil { // which a socket that was reset forgets
		s.remote = s.addr(s.to)
	} else if s.remote == nil && !s.closed {
		if sa, err := syscall.Getpeername(s.fd); err == nil {
			s.remote = s.addr(sa)
		}
	}
	return s.known(s.remote)
}

// known returns an address even where there is none (any more).
func (s *sock) known(a net.Addr) net.Addr {
	switch {
	case a != nil:
		return a
	case s.unix:
		return &net.UnixAddr{Net: "unix"}
	}
	return &net.TCPAddr{}
}

func (s *sock) addr(sa syscall.Sockaddr) net.Addr {
	if u, ok := sa.(*syscall.SockaddrUnix); ok {
		return &net.UnixAddr{Name: u.Name, Net: "unix"}
	}
	return tcpAddr(sa)
}

// tcpAddr returns nil for an address that is not of TCP.
func tcpAddr(sa syscall.Sockaddr) net.Addr {
	switch sa := sa.(type) {
	case *syscall.SockaddrInet4:
		return net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)))
	case *syscall.SockaddrInet6:
		a := &net.TCPAddr{IP: sa.Addr[:], Port: sa.Port}
		if sa.ZoneId != 0 {
			if i, err := net.InterfaceByIndex(int(sa.ZoneId)); err == nil {
				a.Zone = i.Name
			}
		}
		return a
	}
	return nil
}

// sockaddr returns what connect(2) takes for network and addr; ok is false if
// that has a name to be looked up, or a zone.
func sockaddr(network, addr string) (sa syscall.Sockaddr, family int, ok bool) {
	if network == "unix" {
		return &syscall.SockaddrUnix{Name: addr}, syscall.AF_UNIX, len(addr) < 108 && addr != "" && addr[0] == '/'
	}
	to, err := netip.ParseAddrPort(addr)
	if err != nil || to.Addr().Zone() != "" || to.Addr().IsUnspecified() || to.Port() == 0 {
		return nil, 0, false
	}
	if ip := to.Addr().Unmap(); ip.Is4() {
		return &syscall.SockaddrInet4{Addr: ip.As4(), Port: int(to.Port())}, syscall.AF_INET, true
	}
	return &syscall.SockaddrInet6{Addr: to.Addr().As16(), Port: int(to.Port())}, syscall.AF_INET6, true
}

// dialSock begins to connect; done is true if that has succeeded already, as
// it does on Unix sockets. ok is false if the address has to go the long way.
func dialSock(network, addr string) (s *sock, done, ok bool, err error) {
	sa, family, ok := sockaddr(network, addr)
	if !ok {
		return nil, false, false, nil
	}
	fd, err := sysSocket(family)
	if err != nil {
		return nil, false, true, os.NewSyscallError("socket", err)
	}
	s = &sock{fd: fd, unix: family == syscall.AF_UNIX, to: sa}
	if !s.unix {
		syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1)
	}
	err = sysConnect(fd, sa)
	switch err {
	case nil:
		return s, true, true, nil
	case syscall.EINPROGRESS, syscall.EINTR:
		return s, false, true, nil
	case syscall.EAGAIN: // a Unix socket whose backlog is full: Go's way waits
		syscall.Close(fd)
		return nil, false, false, nil
	}
	syscall.Close(fd)
	return nil, false, true, os.NewSyscallError("connect", err)
}

// failure returns what connecting ended with.
func (s *sock) failure() (failed error) {
	err := rawSock{s}.Control(func(fd uintptr) {
		errno, err := syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_ERROR)
		switch {
		case err != nil:
			failed = os.NewSyscallError("getsockopt", err)
		case errno != 0:
			failed = os.NewSyscallError("connect", syscall.Errno(errno))
		}
	})
	if err != nil {
		return err
	}
	return failed
}

// selfConnected reports whether s is connected to itself. That happens if no
// socket listens at a local port and the kernel picks it as the port of s.
func (s *sock) selfConnected() bool {
	switch to := s.to.(type) {
	case *syscall.SockaddrInet4:
		if to.Addr[0] != 127 || to.Port < 1024 {
			return false
		}
		local, err := syscall.Getsockname(s.fd)
		l, ok := local.(*syscall.SockaddrInet4)
		return err == nil && ok && l.Port == to.Port && l.Addr == to.Addr
	case *syscall.SockaddrInet6:
		if !netip.AddrFrom16(to.Addr).IsLoopback() || to.Port < 1024 {
			return false
		}
		local, err := syscall.Getsockname(s.fd)
		l, ok := local.(*syscall.SockaddrInet6)
		return err == nil && ok && l.Port == to.Port && l.Addr == to.Addr
	}
	return false
}
