// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"crypto/sha1"
	"encoding/base64"
	"net"
	"os"
	"time"

	"github.com/penstock-lb/penstock/l7/internal/h2"
)

// acceptKey returns the Sec-WebSocket-Accept for a key (RFC 6455, section
// 4.2.2).
func acceptKey(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// An h2Tunnel is a stream, of either side, as a connection (RFC 9113, section 8.5,
// and RFC 8441). END_STREAM ends one direction, and RST_STREAM corresponds to a TCP
// reset.
type h2Tunnel struct {
	k      *h2Link
	sender *h2Sender
	recv   *wait
	end    h2TunnelEnd
	nc     net.Conn      // below the link
	limit  time.Duration // of a write while the peer's window is closed; 0 means none

	// Guarded by the mu of k:
	readTimer, writeTimer *time.Timer
	late                  bool // the read deadline has passed
	broken                bool // Close is to reset the stream
	closed                bool // and the stream may be in use by another exchange
}

// An h2TunnelEnd has the methods that differ between the two sides. The lock of
// the link is held.
type h2TunnelEnd interface {
	// pull returns received bytes, an error at the end, and neither if there are
	// none yet.
	pull(p []byte) (int, error)
	// unwanted returns why nothing more can be sent, or nil.
	unwanted() error
	// sent is called when END_STREAM or RST_STREAM has been sent.
	sent()
}

// Read implements [net.Conn].
func (t *h2Tunnel) Read(p []byte) (int, error) {
	k := t.k
	k.mu.Lock()
	for {
		n, err := 0, error(nil)
		switch {
		case t.closed:
			err = net.ErrClosed
		case t.late:
			err = os.ErrDeadlineExceeded
		default:
			n, err = t.end.pull(p)
		}
		if n > 0 || err != nil || len(p) == 0 {
			update := len(k.h2.Out) > 0
			k.mu.Unlock()
			if update {
				k.flush()
			}
			return n, err
		}
		k.sleepFor(t.recv, 0)
	}
}

// Write implements [net.Conn].
func (t *h2Tunnel) Write(p []byte) (int, error) {
	k := t.k
	k.mu.Lock()
	err := t.over()
	if err == nil {
		err = k.sendData(t.sender, p, t.limit, t.over)
	}
	k.mu.Unlock()
	k.flush()
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// over returns why nothing more can be sent, or nil. The lock is held.
func (t *h2Tunnel) over() error {
	if t.closed {
		return net.ErrClosed
	}
	return t.end.unwanted()
}

// CloseWrite ends the sending direction.
func (t *h2Tunnel) CloseWrite() error {
	k := t.k
	k.mu.Lock()
	err := t.over()
	if err == nil {
		k.h2.Finish(t.sender.st)
		t.end.sent()
	}
	k.mu.Unlock()
	k.flush()
	return err
}

// SetLinger with 0 makes Close reset the stream, as in [net.TCPConn].
func (t *h2Tunnel) SetLinger(sec int) error {
	t.k.mu.Lock()
	t.broken = sec == 0
	t.k.mu.Unlock()
	return nil
}

// Close ends the stream. What the peer still sends is discarded: the end of the
// exchange resets the stream if it is still open.
func (t *h2Tunnel) Close() error {
	k := t.k
	k.mu.Lock()
	t.close()
	k.mu.Unlock()
	k.flush()
	return nil
}

// close is Close with the lock held.
func (t *h2Tunnel) close() {
	if t.closed {
		return
	}
	for _, timer := range [...]**time.Timer{&t.readTimer, &t.writeTimer} {
		if *timer != nil {
			(*timer).Stop()
			*timer = nil
		}
	}
	switch {
	case t.broken:
		t.k.h2.Reset(t.sender.st, h2.Cancel)
	case t.over() == nil:
		t.k.h2.Finish(t.sender.st)
	}
	t.end.sent()
	t.closed = true
	t.recv.wake()
	t.sender.send.wake()
}

// LocalAddr implements [net.Conn].
func (t *h2Tunnel) LocalAddr() net.Addr { return t.nc.LocalAddr() }

// RemoteAddr implements [net.Conn].
func (t *h2Tunnel) RemoteAddr() net.Addr { return t.nc.RemoteAddr() }

// SetDeadline implements [net.Conn].
func (t *h2Tunnel) SetDeadline(at time.Time) error {
	_ = t.SetReadDeadline(at)
	return t.SetWriteDeadline(at)
}

// SetReadDeadline implements [net.Conn].
func (t *h2Tunnel) SetReadDeadline(at time.Time) error {
	t.k.deadline(at, &t.readTimer, func() {
		if t.closed {
			return
		}
		t.late = true
		t.recv.wake()
	}, func() { t.late = false })
	return nil
}

// SetWriteDeadline implements [net.Conn]. When it has passed, the stream is reset.
func (t *h2Tunnel) SetWriteDeadline(at time.Time) error {
	t.k.deadline(at, &t.writeTimer, func() {
		if t.closed {
			return
		}
		t.k.h2.Reset(t.sender.st, h2.Cancel)
		t.recv.wake()
		t.sender.send.wake()
	}, nil)
	return nil
}

// deadline schedules late to run at t, with the link locked. Zero t cancels it.
func (k *h2Link) deadline(t time.Time, timer **time.Timer, late, undo func()) {
	k.mu.Lock()
	if *timer != nil {
		(*timer).Stop()
		*timer = nil
	}
	if undo != nil {
		undo()
	}
	switch d := time.Until(t); {
	case t.IsZero():
	case d <= 0:
		late()
	default:
		var mine *time.Timer
		mine = time.AfterFunc(d, func() {
			k.mu.Lock()
			if *timer == mine { // the timer still belongs to this stream
				late()
			}
			k.mu.Unlock()
			k.flush()
		})
		*timer = mine
	}
	k.mu.Unlock()
}
