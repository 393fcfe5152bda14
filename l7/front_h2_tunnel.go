// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/penstock-lb/penstock/l4"
)

// extend makes an extended CONNECT (RFC 8441) the request that HTTP/1 has in its
// place: a GET that asks to change the protocol, with a key of ours.
func (s *h2Exchange) extend() string {
	h, x := &s.head, &s.x
	switch {
	case x.Method != http.MethodConnect:
		return ":protocol without CONNECT"
	case h.scheme == "" || h.path == "" || !h.authority:
		return "extended CONNECT without scheme, path or authority" // section 4
	case h.frame.length > 0:
		return "extended CONNECT with a Content-Length"
	}
	x.Method, x.upgrade, x.ContentLength = http.MethodGet, h.protocol, 0
	var nonce [16]byte
	_, _ = rand.Read(nonce[:]) // it does not fail
	x.wsKey = base64.StdEncoding.EncodeToString(nonce[:])
	x.Header.Set("Sec-WebSocket-Key", x.wsKey)
	x.Header.Set("Sec-WebSocket-Version", "13")
	return ""
}

// acceptKey returns the Sec-WebSocket-Accept that a key asks for (RFC 6455,
// section 4.2.2).
func acceptKey(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// hijack answers an extended CONNECT by 200 and gives the stream away as a
// connection.
func (s *h2Exchange) hijack(r *Reply) (*l4.Conn, []byte, error) {
	if s.x.wsKey == "" {
		return nil, nil, http.ErrNotSupported
	}
	r.Header.Del("Sec-WebSocket-Accept")
	f := s.f
	f.mu.Lock()
	err := s.ended()
	if err == nil {
		s.told = true
		b := f.h2.WriteHead()
		b.Field(":status", "200", false)
		f.fields(b, &r.Header)
		b.End(s.st, false)
	}
	f.mu.Unlock()
	if err != nil {
		return nil, nil, err
	}
	f.flush()
	return l4.NewConn(h2Tunnel{s}), nil, nil
}

// h2Tunnel is a stream as a connection. It ends with the exchange.
type h2Tunnel struct{ s *h2Exchange }

// Read implements [net.Conn].
func (t h2Tunnel) Read(p []byte) (int, error) {
	s, f := t.s, t.s.f
	f.mu.Lock()
	for {
		switch {
		case s.bodyErr != nil:
			err := s.bodyErr
			f.mu.Unlock()
			return 0, err
		case len(s.body.bufs) > 0:
			n := s.take(p)
			update := len(f.h2.Out) > 0
			f.mu.Unlock()
			if update {
				f.flush()
			}
			return n, nil
		case s.err != nil:
			err := s.err
			f.mu.Unlock()
			return 0, err
		case s.bodyEnd:
			f.mu.Unlock()
			return 0, io.EOF
		}
		f.sleepFor(&s.recv, 0)
	}
}

// Write implements [net.Conn].
func (t h2Tunnel) Write(p []byte) (int, error) {
	s, f := t.s, t.s.f
	f.mu.Lock()
	err := f.sendData(&s.h2Sender, p, orDefault(f.srv.StreamTimeout, defaultStreamTimeout), s.ended)
	f.mu.Unlock()
	f.flush()
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// CloseWrite ends what is sent.
func (t h2Tunnel) CloseWrite() error {
	s, f := t.s, t.s.f
	f.mu.Lock()
	err := s.ended()
	if err == nil {
		s.done = true
		f.h2.Finish(s.st)
	}
	f.mu.Unlock()
	f.flush()
	return err
}

// Close ends the stream. What the client still sends is not wanted: the end of
// the exchange resets what is left of it.
func (t h2Tunnel) Close() error {
	s, f := t.s, t.s.f
	f.mu.Lock()
	if !s.done && s.ended() == nil {
		f.h2.Finish(s.st)
	}
	s.done = true
	s.recv.wake()
	s.send.wake()
	f.mu.Unlock()
	f.flush()
	return nil
}

// LocalAddr implements [net.Conn].
func (t h2Tunnel) LocalAddr() net.Addr { return t.s.f.conn.nc.LocalAddr() }

// RemoteAddr implements [net.Conn].
func (t h2Tunnel) RemoteAddr() net.Addr { return t.s.f.conn.nc.RemoteAddr() }

// SetDeadline implements [net.Conn].
func (t h2Tunnel) SetDeadline(at time.Time) error {
	_ = t.SetReadDeadline(at)
	return t.SetWriteDeadline(at)
}

// SetReadDeadline implements [net.Conn].
func (t h2Tunnel) SetReadDeadline(at time.Time) error {
	s := t.s
	return s.deadline(at, &s.readTimer, func() {
		s.bodyErr = os.ErrDeadlineExceeded
		s.recv.wake()
	}, func() { s.bodyErr = nil })
}

// SetWriteDeadline implements [net.Conn]. Behind it the stream is reset.
func (t h2Tunnel) SetWriteDeadline(at time.Time) error { return t.s.setWriteDeadline(at) }

// lost reports whether the client has reset the stream or gone.
func (s *h2Exchange) lost() bool {
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	return s.err != nil && s.byClient
}

func (s *h2Exchange) hijackable() bool { return true }

func (s *h2Exchange) present() bool { return false }
