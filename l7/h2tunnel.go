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

// acceptKey returns the Sec-WebSocket-Accept that a key asks for (RFC 6455,
// section 4.2.2).
func acceptKey(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// An h2Tunnel is a stream of either side as a connection (RFC 9113, section 8.5,
// and RFC 8441). END_STREAM is the end of one direction, RST_STREAM what a reset is
// to TCP.
type h2Tunnel struct {
	k      *h2Link
	sender *h2Sender
	recv   *wait
	end    h2TunnelEnd
	nc     net.Conn      // below the link
	limit  time.Duration // of a write that the peer opens no window for; 0 means none

	// Guarded by the mu of k:
	readTimer, writeTimer *time.Timer
	late                  bool // the read deadline is over
	broken                bool // Close is to reset the stream
	closed                bool // and the stream may be another's
}

// An h2TunnelEnd is what the two sides do in their own way. The lock of the link
// is held.
type h2TunnelEnd interface {
	// pull returns what has come, an error at the end, and neither if there is
	// nothing yet.
	pull(p []byte) (int, error)
	// unwanted says why nothing can be sent any more, or nil.
	unwanted() error
	// sent notes that END_STREAM or RST_STREAM has been sent.
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

// over says why nothing can be sent any more, or nil. The lock is held.
func (t *h2Tunnel) over() error {
	if t.closed {
		return net.ErrClosed
	}
	return t.end.unwanted()
}

// CloseWrite ends what is sent.
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

// SetLinger has Close reset the stream if sec is 0, as that of [net.TCPConn] does.
func (t *h2Tunnel) SetLinger(sec int) error {
	t.k.mu.Lock()
	t.broken = sec == 0
	t.k.mu.Unlock()
	return nil
}

// Close ends the stream. What the peer still sends is not wanted: the end of the
// exchange resets what is left of it.
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

// SetWriteDeadline implements [net.Conn]. Behind it the stream is reset.
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

// deadline has late run at t, with the link locked. Zero t undoes that.
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
			if *timer == mine { // the stream is still the one that asked
				late()
			}
			k.mu.Unlock()
			k.flush()
		})
		*timer = mine
	}
	k.mu.Unlock()
}
