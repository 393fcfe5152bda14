// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

// A Conn is the one connection type of this module: a net.Conn that can read ahead, wait
// for data without holding a buffer, count its bytes, half-close, and report whether its
// peer has disconnected. It works over any net.Conn. Over a *net.TCPConn or a stream
// *net.UnixConn on Linux it reads and writes without telling the scheduler, since a call
// on a non-blocking socket cannot block its thread.
//
// One goroutine may read (Read, ReadBuffer, Peek, Discard, WriteTo) and one may
// write (Write, ReadFrom, CloseWrite) at a time: this is less than net.Conn
// promises, but lets reads and writes work without allocations. Close, the
// deadlines and all other methods may be called at any time by any goroutine.
// Deadlines hold for all reads and writes as in net.Conn.
type Conn struct {
	nc  net.Conn
	raw syscall.RawConn // of nc, if it is one that may be read and written directly; else nil
	tls *tlsReader      // if nc is a *tls.Conn, else nil

	ahead []byte  // read ahead and not yet consumed; nil when empty, so that an idle Conn holds nothing
	in    *input  // of reads through raw; nil until needed
	out   *output // of writes through raw; nil until needed

	yields       yields
	flags        connFlags
	bytesRead    atomic.Int64
	bytesWritten atomic.Int64
	noted        atomic.Pointer[noted]     // nil if nothing is
	closing      atomic.Pointer[closeHook] // the last that OnClose added
	draining     atomic.Pointer[closeHook] // of AfterDraining
	parker       atomic.Pointer[Parker]    // that has a slot for c, or nil
	parked       parked
	member       member
}

// minAhead is the least room that a read ahead is given: enough for the
// first bytes of most protocols in one read.
const minAhead = 1 << 10

// NewConn returns c as a Conn; a *Conn is returned as it is. From then on c must be read
// and written through the Conn only, until NetConn gives it back.
func NewConn(c net.Conn) *Conn {
	if c, ok := c.(*Conn); ok {
		return c
	}
	conn := &Conn{nc: c}
	if t, ok := c.(*tls.Conn); ok {
		conn.tls = newTLSReader(t)
	} else {
		conn.openRaw()
	}
	return conn
}

// NetConn returns the bare connection. A caller that reads from it must take the bytes in
// Buffered first, since they have already been read from it. The caller must still close
// the Conn, and not the bare connection: its owner may rely on that.
func (c *Conn) NetConn() net.Conn { return c.nc }

// TLS returns the TLS state of the bare connection, or nil if it has none.
func (c *Conn) TLS() *tls.ConnectionState {
	t, ok := c.nc.(interface{ ConnectionState() tls.ConnectionState })
	if !ok {
		return nil
	}
	state := t.ConnectionState()
	return &state
}

// Peek returns the next n bytes without consuming them, and waits for them if necessary.
// The slice is valid until the next read. If there are fewer, it returns those with the
// error that says why: io.EOF, a deadline, a reset. It buffers at most the largest n ever
// passed, and frees that memory once the bytes are consumed.
func (c *Conn) Peek(n int) ([]byte, error) {
	for len(c.ahead) < n {
		if err := c.fill(n); err != nil {
			return c.ahead, err
		}
	}
	return c.ahead[:max(n, 0)], nil
}

// fill reads once and appends at least one byte to those read ahead.
func (c *Conn) fill(n int) error {
	if cap(c.ahead)-len(c.ahead) == 0 || cap(c.ahead) < n {
		grown := make([]byte, len(c.ahead), max(n, 2*len(c.ahead), minAhead))
		copy(grown, c.ahead)
		c.ahead = grown
	}
	m, err := c.readBare(c.ahead[len(c.ahead):cap(c.ahead)])
	c.ahead = c.ahead[:len(c.ahead)+m]
	if m > 0 {
		return nil // a lasting error comes again
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

// Buffered returns the bytes read ahead and not consumed. The slice is valid
// until the next read or Discard.
func (c *Conn) Buffered() []byte { return c.ahead }

// Discard consumes n bytes of Buffered, or all of them if there are fewer.
func (c *Conn) Discard(n int) {
	if n >= len(c.ahead) {
		c.ahead = nil
		return
	}
	c.ahead = c.ahead[max(n, 0):]
}

// Read reads as net.Conn does; bytes read ahead come first.
func (c *Conn) Read(p []byte) (int, error) {
	if len(c.ahead) > 0 {
		n := copy(p, c.ahead)
		c.Discard(n)
		if c.flags.has(shakesHands) {
			return n, c.awaitTurn()
		}
		return n, nil
	}
	return c.readBare(p)
}

// ReadBuffer waits until there is something to read without holding a buffer, then
// borrows one from p and reads into it once: the length of the buffer's B is the number
// of bytes read, at least one. The caller returns the buffer to p. On error it returns
// nil and borrows none. Bytes read ahead come first.
//
// Waiting takes no buffer for TCP and Unix sockets on Linux and for a *tls.Conn over
// anything. Other connections cannot report that they are readable; for them the buffer
// is borrowed before the wait.
//
// It is for package l7: see "Machinery" in the package documentation.
func (c *Conn) ReadBuffer(p *BufferPool) (*Buffer, error) {
	switch {
	case len(c.ahead) > 0:
		b := p.Get()
		n := copy(b.B, c.ahead)
		c.Discard(n)
		b.B = b.B[:n]
		return b, nil
	case c.raw != nil:
		return c.readRawBuffer(p)
	case c.tls != nil:
		return c.readTLSBuffer(p)
	}
	b := p.Get()
	n, err := c.readBare(b.B)
	if n == 0 {
		p.Put(b)
		if err == nil {
			err = io.ErrNoProgress
		}
		return nil, err
	}
	b.B = b.B[:n] // a lasting error comes again
	return b, nil
}

// TryReadBuffer is ReadBuffer without the wait: b and err are nil if there is nothing to
// read yet, or if that cannot be determined. It can for plain sockets on Linux; of a
// *tls.Conn it returns what that holds already, and does not look at the socket. It
// ignores deadlines.
//
// It is for package l7: see "Machinery" in the package documentation.
func (c *Conn) TryReadBuffer(p *BufferPool) (b *Buffer, err error) {
	if len(c.ahead) > 0 {
		return c.ReadBuffer(p)
	}
	switch {
	case c.raw != nil:
		return c.tryReadRaw(p)
	case c.tls != nil:
		return c.tryReadTLS(p)
	}
	return nil, nil
}

// readBare reads from the bare connection and ignores what was read ahead.
func (c *Conn) readBare(p []byte) (n int, err error) {
	if c.raw != nil {
		if c.flags.has(noReads | shakesHands) {
			return c.readInTLS(p)
		}
		n, _, err = c.readRaw(p)
		return n, err
	}
	n, err = c.nc.Read(p)
	c.tookIn(n, err)
	return n, err
}

// readInTLS is readRaw for TLS above c, in a handshake or while it is not to read.
func (c *Conn) readInTLS(p []byte) (n int, err error) {
	if c.flags.has(noReads) {
		return 0, os.ErrDeadlineExceeded // as it is a timeout, it does not break the *tls.Conn
	}
	return c.readInHandshake(p)
}

// tookIn accounts for a read.
func (c *Conn) tookIn(n int, err error) {
	if n > 0 {
		c.bytesRead.Add(int64(n))
	}
	if err == io.EOF {
		c.flags.set(readEOF)
	}
	if err != nil && !isTimeout(err) {
		c.flags.set(peerGone)
	}
}

// Write writes all of p, as net.Conn does.
func (c *Conn) Write(p []byte) (n int, err error) {
	switch {
	case c.raw != nil:
		return c.writeRaw(p, false)
	case c.tls != nil && len(p) > maxRecord:
		return c.writeRecords(p)
	}
	return c.writeBare(p)
}

func (c *Conn) writeBare(p []byte) (n int, err error) {
	n, err = c.nc.Write(p)
	if n > 0 {
		c.bytesWritten.Add(int64(n))
	}
	return n, err
}

// WriteMore is Write for data that another Write follows at once: both may then be sent
// in one packet.
//
// It is for package l7: see "Machinery" in the package documentation.
func (c *Conn) WriteMore(p []byte) (n int, err error) {
	switch {
	case c.raw != nil:
		return c.writeRaw(p, true)
	case c.tls != nil:
		return c.writeMoreTLS(p)
	}
	return c.Write(p)
}

// ReadFrom writes what it reads from r until io.EOF, by sendfile or splice where the bare
// connection can.
func (c *Conn) ReadFrom(r io.Reader) (n int64, err error) {
	if src, ok := r.(*Conn); ok {
		return src.WriteTo(c)
	}
	rf, ok := c.nc.(io.ReaderFrom)
	if !ok {
		return io.Copy(onlyWriter{c}, r)
	}
	n, err = rf.ReadFrom(r)
	c.bytesWritten.Add(n)
	return n, err
}

// WriteTo writes what it reads to w until io.EOF: first the bytes read ahead.
func (c *Conn) WriteTo(w io.Writer) (n int64, err error) {
	for len(c.ahead) > 0 {
		m, err := w.Write(c.ahead)
		c.Discard(m)
		n += int64(m)
		if err != nil {
			return n, err
		}
	}
	dst, ok := w.(*Conn)
	if !ok || c.raw == nil || dst.raw == nil {
		m, err := io.Copy(onlyWriter{w}, onlyReader{c})
		return n + m, err
	}
	m, err := io.Copy(dst.nc, c.nc)
	c.bytesRead.Add(m)
	dst.bytesWritten.Add(m)
	if err == nil {
		c.flags.set(peerGone) // io.EOF was read
	}
	return n + m, err
}

// onlyReader and onlyWriter hide ReadFrom and WriteTo, by which io.Copy would call its
// caller again.
type (
	onlyReader struct{ io.Reader }
	onlyWriter struct{ io.Writer }
)

// CloseWrite ends the stream to the peer and leaves the other direction open: FIN for
// TCP, close_notify for TLS. The error is errors.ErrUnsupported if the bare connection
// cannot.
func (c *Conn) CloseWrite() error {
	cw, ok := c.nc.(interface{ CloseWrite() error })
	if !ok {
		return errors.ErrUnsupported
	}
	return cw.CloseWrite()
}

// Close closes the bare connection. Calls after the first do nothing.
func (c *Conn) Close() error {
	if c.flags.set(isClosed) {
		return nil
	}
	ready := c.unparkClosed()
	defer c.afterClose(ready) // also if the bare connection, which may be the host's, panics
	return c.nc.Close()
}

func (c *Conn) afterClose(ready func()) {
	if ready != nil {
		go ready()
	}
	c.runCloseHooks()
	c.release()
}

// BytesRead returns the number of bytes read from the bare connection through c,
// including those read ahead and those spliced.
func (c *Conn) BytesRead() int64 { return c.bytesRead.Load() }

// BytesWritten returns the number of bytes written.
func (c *Conn) BytesWritten() int64 { return c.bytesWritten.Load() }

// Parkable reports whether a Parker can wait for events on c.
//
// It is for package l7: see "Machinery" in the package documentation.
func (c *Conn) Parkable() bool { return c.raw != nil }

// AckNow has the kernel acknowledge what has come, which it delays by 40 ms if there is nothing
// to send: a peer without TCP_NODELAY does not send the rest before. It needs Linux, and a
// socket at c or below its TLS.
//
// It is for package l7: see "Machinery" in the package documentation.
func (c *Conn) AckNow() {
	switch {
	case c.raw != nil:
		ackNow(c.raw)
	case c.tls != nil && c.tls.under != nil:
		ackNow(c.tls.under.raw)
	}
}

// PeerGone reports whether a read or the Parker has seen that the peer ended its stream
// or the connection.
func (c *Conn) PeerGone() bool { return c.flags.has(peerGone) }

// LocalAddr returns the address that the client connected to: that of an accepted PROXY
// header if it has one (see [AcceptProxy]), else the bare connection's.
func (c *Conn) LocalAddr() net.Addr {
	if h := c.proxied(); h != nil && h.Destination != nil {
		return h.Destination
	}
	return quietAddr(c.nc.LocalAddr)
}

// RemoteAddr returns the address of the client: that of an accepted PROXY header if it
// has one, else the bare connection's.
func (c *Conn) RemoteAddr() net.Addr {
	if h := c.proxied(); h != nil && h.Source != nil {
		return h.Source
	}
	return quietAddr(c.nc.RemoteAddr)
}

// RemoteAddrPort returns RemoteAddr as an address and a port, IPv4 as such; it is not valid if
// that has none. For a connection of a [ListenConfig] on Linux it allocates nothing.
//
// It is for package l7: see "Machinery" in the package documentation.
func (c *Conn) RemoteAddrPort() netip.AddrPort {
	if h := c.proxied(); h == nil || h.Source == nil {
		if s, ok := c.nc.(interface{ RemoteAddrPort() netip.AddrPort }); ok {
			a := s.RemoteAddrPort()
			return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
		}
	}
	var of netip.AddrPort
	switch a := c.RemoteAddr().(type) {
	case nil:
	case *net.TCPAddr:
		of = a.AddrPort()
	default:
		of, _ = netip.ParseAddrPort(a.String())
	}
	return netip.AddrPortFrom(of.Addr().Unmap(), of.Port())
}

// quietAddr returns an address of a connection that may be the host's. It is nil, not known,
// if the method panics: addresses are asked for where a panic is logged, too.
func quietAddr(address func() net.Addr) net.Addr {
	defer func() { _ = recover() }()
	return address()
}

// SetDeadline sets both deadlines, as in net.Conn.
func (c *Conn) SetDeadline(t time.Time) error {
	if c.tls == nil {
		return c.nc.SetDeadline(t)
	}
	if err := c.nc.SetWriteDeadline(t); err != nil {
		return err
	}
	return c.SetReadDeadline(t)
}

// SetReadDeadline sets the deadline of reads, as in net.Conn.
func (c *Conn) SetReadDeadline(t time.Time) error {
	if c.tls != nil {
		return c.tls.setReadDeadline(t)
	}
	return c.nc.SetReadDeadline(t)
}

// SetWriteDeadline sets the deadline of writes, as in net.Conn.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.nc.SetWriteDeadline(t) }

// SyscallConn gives access to the descriptor of the bare connection, for socket options;
// the error is errors.ErrUnsupported if it has none. A read from the descriptor does not
// return what is in Buffered.
func (c *Conn) SyscallConn() (syscall.RawConn, error) {
	if sc, ok := c.nc.(syscall.Conn); ok {
		return sc.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}

// isTimeout reports whether err is a deadline that has passed.
func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}
