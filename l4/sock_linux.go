// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// A sock is a net.Conn over a stream socket of its own, made by ListenConfig, by a Proxy that
// dials, or by Adopt. Unlike a *net.TCPConn it postpones work until that is needed: it joins
// a poller at the first read or write that has to wait, and looks up its addresses when they
// are read. A wired relay needs neither, nor does a connection of one HTTP request, which
// saves six system calls and half of the memory of a connection. Its poller is one of this
// package (see polled), which saves a read that finds nothing in each wait.
type sock struct {
	mu      sync.Mutex // held while fd is used
	fd      int32
	closed  bool
	linger  bool                  // Close may have to wait
	unix    bool                  // else it is of TCP
	dialled bool                  // else it is accepted
	waits   atomic.Pointer[waits] // while in a poller, until closed; set with mu held
	readBy  instant               // deadlines
	writeBy instant               //
	remote  netip.AddrPort        // of TCP; not valid if it is to be looked up
	path    *net.UnixAddr         // the remote address of a Unix socket; nil if it is to be looked up
	local   net.Addr              // nil if it is to be looked up
}

// waits is what a sock has that has had to wait: a poller of this package, or else the
// runtime's.
type waits struct {
	polled *polled
	file   *os.File
	raw    syscall.RawConn
}

// joined counts the socks that have waits. A poller of this package is itself waited on
// through the runtime's, which pays if it often tells of several socks at once. The first
// few go to the runtime's.
var joined atomic.Int32

const few = 4

// join adds s, whose mu is held, to a poller.
func (s *sock) join() *waits {
	if w := s.waits.Load(); w != nil {
		return w
	}
	w := new(waits)
	if joined.Add(1) > few {
		w.polled = openPolled(s)
	}
	if w.polled == nil {
		w.file = os.NewFile(uintptr(s.fd), "socket") // non-blocking, so that it joins
		w.raw, _ = w.file.SyscallConn()
		if s.readBy != 0 {
			w.file.SetReadDeadline(s.readBy.time())
		}
		if s.writeBy != 0 {
			w.file.SetWriteDeadline(s.writeBy.time())
		}
	}
	s.waits.Store(w)
	return w
}

// leave takes s out of its poller, if that is one of this package and nothing is under way:
// something else waits for s from now on.
func (s *sock) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w := s.waits.Load(); w != nil && w.polled != nil && w.polled.leave() {
		s.waits.Store(nil)
		joined.Add(-1)
	}
}

// try runs f, which must not call anything of s, unless s is in a poller, where it comes to if
// f says wait, or is nil. If w is nil it has been done, or err says why not.
func (s *sock) try(f func(fd uintptr) bool, by *instant) (w *waits, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, net.ErrClosed
	}
	if s.waits.Load() == nil && f != nil && !by.passed() && f(uintptr(s.fd)) {
		return nil, nil
	}
	return s.join(), nil
}

// An operation says what a function given to do does.
type operation struct {
	writes bool    // else it reads
	host   bool    // it is the host's, and may call the sock
	in     *intake // what it reads into; nil if it writes, or is the host's
	idle   bool    // it is not to be called before there may be something to read
}

// do runs f until it returns true. As long as nothing has to be waited for, no poller is
// asked, unless f is the host's. If w is not nil, s is in the runtime's poller, and the caller
// has to go that way.
func (s *sock) do(f func(fd uintptr) bool, op operation) (w *waits, err error) {
	first, by := f, &s.readBy
	if op.host {
		first = nil
	}
	if op.writes {
		by = &s.writeBy
	}
	for w = s.waits.Load(); ; w = nil {
		if w == nil {
			if w, err = s.try(first, by); w == nil {
				return nil, err
			}
		}
		if w.polled == nil {
			return w, nil
		}
		if err = w.polled.run(f, op); err != errLeft {
			return nil, err
		}
	}
}

// polled returns nil if s is not in a poller of this package.
func (s *sock) polled() *polled {
	if w := s.waits.Load(); w != nil {
		return w.polled
	}
	return nil
}

// rawSock is the syscall.RawConn of a sock. Functions of Control must not call anything of the
// sock.
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
	w, err := r.s.do(f, operation{host: true})
	if w == nil {
		return err
	}
	return r.s.why(w.raw.Read(f))
}

func (r rawSock) Write(f func(fd uintptr) (done bool)) error {
	w, err := r.s.do(f, operation{host: true, writes: true})
	if w == nil {
		return err
	}
	return r.s.why(w.raw.Write(f))
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

func (s *sock) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	in := &intake{p: p}
	w, err := s.do(in.read, operation{in: in, idle: true})
	if w != nil {
		err = s.why(w.raw.Read(in.read))
	}
	if err == nil {
		err = in.err
	}
	if err == io.EOF {
		return 0, err
	}
	return in.n, s.opError("read", err)
}

func (s *sock) Write(p []byte) (int, error) {
	out := &outgo{p: p}
	w, err := s.do(out.write, operation{writes: true})
	if w != nil {
		err = s.why(w.raw.Write(out.write))
	}
	if err == nil {
		err = out.err
	}
	return len(p) - len(out.p), s.opError("write", err)
}

func (s *sock) opError(op string, err error) error {
	if err == nil {
		return nil
	}
	if errno, ok := err.(syscall.Errno); ok {
		err = os.NewSyscallError(op, errno)
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
	w := s.waits.Swap(nil) // what begins from now on finds that s is closed, not a poller
	switch {
	case w != nil:
	case s.linger:
		syscall.Close(int(s.fd))
	default:
		sysClose(int(s.fd))
	}
	s.mu.Unlock()
	if w == nil {
		return nil
	}
	joined.Add(-1)
	if w.polled != nil {
		w.polled.shut()
	} else {
		w.file.Close()
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

func (s *sock) SetReadDeadline(t time.Time) error  { return s.deadline(t, &s.readBy, true) }
func (s *sock) SetWriteDeadline(t time.Time) error { return s.deadline(t, &s.writeBy, false) }

// deadline stores t, and sets it if a goroutine may be waiting.
func (s *sock) deadline(t time.Time, by *instant, reads bool) error {
	s.mu.Lock()
	w, closed := s.waits.Load(), s.closed
	*by = instantOf(t)
	if w != nil && w.polled != nil {
		w.polled.side(!reads).deadline(*by)
	}
	s.mu.Unlock()
	switch {
	case closed:
		return s.opError("set", net.ErrClosed)
	case w == nil || w.polled != nil:
		return nil
	case reads:
		return s.opError("set", w.file.SetReadDeadline(t))
	}
	return s.opError("set", w.file.SetWriteDeadline(t))
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
		if sa, err := syscall.Getsockname(int(s.fd)); err == nil {
			s.local = sockAddr(sa)
		}
	}
	switch {
	case s.local != nil:
		return s.local
	case s.unix:
		return &net.UnixAddr{Net: "unix"}
	}
	return &net.TCPAddr{}
}

// RemoteAddr returns an address even where there is none (any more).
func (s *sock) RemoteAddr() net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lookUp()
	switch {
	case s.path != nil:
		return s.path
	case s.unix:
		return &net.UnixAddr{Net: "unix"}
	case s.remote.IsValid():
		return net.TCPAddrFromAddrPort(s.remote)
	}
	return &net.TCPAddr{}
}

// RemoteAddrPort is RemoteAddr of TCP, and takes no memory. It is not valid where
// there is none (any more).
func (s *sock) RemoteAddrPort() netip.AddrPort {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lookUp()
	return s.remote
}

// lookUp finds out the remote address, if it is not known; s.mu is held. That of a sock
// that has been dialled is: a socket that was reset forgets it.
func (s *sock) lookUp() {
	if s.remote.IsValid() || s.path != nil || s.closed {
		return
	}
	sa, err := syscall.Getpeername(int(s.fd))
	if err != nil {
		return
	}
	switch a := sockAddr(sa).(type) {
	case *net.UnixAddr:
		s.path = a
	case *net.TCPAddr:
		s.remote = a.AddrPort()
	}
}

// sockAddr returns nil for an address that is of neither TCP nor a Unix socket.
func sockAddr(sa syscall.Sockaddr) net.Addr {
	switch sa := sa.(type) {
	case *syscall.SockaddrUnix:
		return &net.UnixAddr{Name: sa.Name, Net: "unix"}
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

// target returns what connect(2) takes for an address of TCP; ok is false if that has a
// name to be looked up, or a zone.
func target(addr string) (to netip.AddrPort, ok bool) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil || to.Addr().Zone() != "" || to.Addr().IsUnspecified() || to.Port() == 0 {
		return to, false
	}
	return netip.AddrPortFrom(to.Addr().Unmap(), to.Port()), true
}

// remoteOf returns the address that dialSock connects to; nil if it does not.
func remoteOf(network, addr string) net.Addr {
	if network == "unix" {
		return &net.UnixAddr{Name: addr, Net: "unix"}
	}
	if to, ok := target(addr); ok {
		return net.TCPAddrFromAddrPort(to)
	}
	return nil
}

// dialSock begins to connect; done is true if that has succeeded already, as
// it does on Unix sockets. ok is false if the address has to go the long way.
func dialSock(network, addr string) (s *sock, done, ok bool, err error) {
	s = &sock{dialled: true}
	family := syscall.AF_INET6
	if network == "unix" {
		family, s.unix = syscall.AF_UNIX, true
		s.path, ok = &net.UnixAddr{Name: addr, Net: "unix"}, len(addr) < 108 && addr != "" && addr[0] == '/'
	} else if s.remote, ok = target(addr); s.remote.Addr().Is4() {
		family = syscall.AF_INET
	}
	if !ok {
		return nil, false, false, nil
	}
	fd, err := sysSocket(family)
	if err != nil {
		return nil, false, true, os.NewSyscallError("socket", err)
	}
	s.fd = int32(fd)
	if s.unix {
		err = syscall.Connect(fd, &syscall.SockaddrUnix{Name: addr})
	} else {
		syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1)
		err = sysConnect(fd, s.remote)
	}
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
// socket listens at a port of this machine and the kernel picks it as the port of s.
func (s *sock) selfConnected() bool {
	if !s.remote.IsValid() {
		return false // a Unix socket
	}
	local, err := sysGetsockname(int(s.fd))
	return err == nil && local == s.remote
}
