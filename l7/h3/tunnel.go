// SPDX-License-Identifier: Apache-2.0

package h3

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
)

// A tunnel is a stream that a CONNECT has opened (RFC 9114, section 4.4, and RFC 9220),
// as the connection that a handler hijacks. What opens it looks like HTTP/1 to the
// handler: it writes the head of a 101, or of a 2xx to CONNECT, and the client gets the
// HEADERS that correspond to it.
type tunnel struct {
	upgrade bool // an extended CONNECT
	plain   bool // a CONNECT
	taken   bool // a handler has hijacked the stream

	w      *writer
	head   []byte // while it is not complete
	opened bool
	done   chan struct{} // closed by Close
	cancel func()        // ends the context of the request

	writing sync.Mutex // held during a write

	mu     sync.Mutex
	broken bool // Close resets the stream
	fin    bool // our direction has ended
	closed bool
}

const maxSwitchHead = 64 << 10 // bytes

var errNoTunnel = errors.New("h3: the handler that has hijacked a stream must first write the head of a 101, or of a 2xx to CONNECT")

// context returns that of the request. The context of a QUIC stream also ends when we end
// our direction, after which a client may still send.
func (t *tunnel) context(conn, stream context.Context) context.Context {
	ctx, cancel := context.WithCancel(conn)
	context.AfterFunc(stream, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if !t.fin {
			cancel()
		}
	})
	t.cancel = cancel
	return ctx
}

func (t *tunnel) take(w *writer) (net.Conn, *bufio.ReadWriter, error) {
	switch {
	case t.taken:
		return nil, nil, http.ErrHijacked
	case w.status != 0:
		return nil, nil, errors.New("h3: Hijack after the reply")
	}
	t.taken, t.w, t.done = true, w, make(chan struct{})
	c := tunnelConn{t}
	return c, bufio.NewReadWriter(bufio.NewReader(c), bufio.NewWriter(c)), nil
}

// tunnelConn is the tunnel as a connection.
type tunnelConn struct{ *tunnel }

// Read implements [net.Conn].
func (t tunnelConn) Read(p []byte) (int, error) {
	b := &t.w.s.body
	if len(p) == 0 {
		return 0, nil
	}
	for b.left == 0 {
		kind, n, err := b.s.in.frame()
		if err == nil && kind != frameData {
			if kind == frameHeaders {
				err = ofConn(codeFrameUnexpected, "HEADERS in a tunnel") // RFC 9114, section 4.4
			} else if f := unexpected(kind); f != nil {
				err = f
			} else if err = b.s.c.glitch(glitchUnknown); err == nil {
				err = b.s.in.discard(n)
				n = 0
			}
		}
		if err != nil {
			return 0, b.s.failed(err)
		}
		b.left = int64(n)
	}
	n, err := b.s.in.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	if err != nil {
		err = b.s.failed(whole(err))
	}
	return n, err
}

// Write implements [net.Conn].
func (t tunnelConn) Write(p []byte) (int, error) {
	t.writing.Lock()
	defer t.writing.Unlock()
	if t.opened {
		return t.data(p)
	}
	const end = "\r\n\r\n"
	before := len(t.head)
	t.head = append(t.head, p...)
	n := bytes.Index(t.head, []byte(end)) + len(end)
	if n < len(end) {
		if len(t.head) > maxSwitchHead {
			return 0, errNoTunnel
		}
		return len(p), nil
	}
	if err := t.open(t.head[:n]); err != nil {
		return 0, err
	}
	rest := t.head[n:]
	if t.head = nil; len(rest) == 0 {
		return len(p), nil
	}
	m, err := t.data(rest)
	return n - before + m, err
}

// open sends the HEADERS for the head of HTTP/1 that the handler has written.
func (t *tunnel) open(head []byte) error {
	r := &http.Request{Method: http.MethodConnect}
	res, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(head)), r)
	if err != nil {
		return errNoTunnel
	}
	status := res.StatusCode
	switch {
	case t.upgrade && status == http.StatusSwitchingProtocols:
		status = http.StatusOK
		res.Header.Del("Sec-Websocket-Accept")
	case t.plain && status/100 == 2:
	default:
		return errNoTunnel
	}
	t.opened = true
	w := t.w
	w.encode(status, res.Header)
	return w.send(w.takeBlock(nil))
}

// data sends p as a DATA frame.
func (t *tunnel) data(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	var frame [16]byte
	if err := t.w.send(appendFrame(frame[:0], frameData, uint64(len(p)))); err != nil {
		return 0, err
	}
	if err := t.w.send(p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// CloseWrite ends our direction, after a write in progress.
func (t tunnelConn) CloseWrite() error {
	t.writing.Lock()
	defer t.writing.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case !t.opened:
		return errNoTunnel
	case t.fin || t.closed:
		return net.ErrClosed
	}
	t.fin = true
	return t.w.s.str.Close()
}

// SetLinger with 0 makes Close reset the stream, as in [net.TCPConn].
func (t tunnelConn) SetLinger(sec int) error {
	t.mu.Lock()
	t.broken = sec == 0
	t.mu.Unlock()
	return nil
}

// Close ends the stream, and a read or write in progress.
func (t tunnelConn) Close() error {
	idle := t.writing.TryLock()
	if idle {
		defer t.writing.Unlock()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil
	}
	t.closed = true
	str, end := t.w.s.str, codeNoError
	switch {
	case !idle || t.broken || !t.opened || t.w.err != nil:
		end = codeConnect // RFC 9114, section 4.4
		str.CancelWrite(quic.StreamErrorCode(end))
	case !t.fin:
		_ = str.Close()
	}
	str.CancelRead(quic.StreamErrorCode(end))
	close(t.done)
	return nil
}

// LocalAddr implements [net.Conn].
func (t tunnelConn) LocalAddr() net.Addr { return t.w.s.c.qc.LocalAddr() }

// RemoteAddr implements [net.Conn].
func (t tunnelConn) RemoteAddr() net.Addr { return t.w.s.c.qc.RemoteAddr() }

// SetDeadline implements [net.Conn].
func (t tunnelConn) SetDeadline(at time.Time) error {
	return errors.Join(t.SetReadDeadline(at), t.SetWriteDeadline(at))
}

// SetReadDeadline implements [net.Conn].
func (t tunnelConn) SetReadDeadline(at time.Time) error { return t.w.SetReadDeadline(at) }

// SetWriteDeadline implements [net.Conn]. What it cuts cannot be continued.
func (t tunnelConn) SetWriteDeadline(at time.Time) error { return t.w.SetWriteDeadline(at) }
