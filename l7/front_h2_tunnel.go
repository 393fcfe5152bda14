// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"crypto/rand"
	"encoding/base64"
	"io"
	"net"
	"net/http"

	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l7/internal/h2"
)

// extend turns an extended CONNECT (RFC 8441) into the HTTP/1 request that it
// corresponds to: a GET that asks for an upgrade, with a key that we make.
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
	h.frame.length = -1 // Envoy sends a length of 0, which does not bound the DATA of a tunnel
	x.Method, x.upgrade, x.ContentLength = http.MethodGet, h.protocol, 0
	var nonce [16]byte
	_, _ = rand.Read(nonce[:]) // never fails
	x.wsKey = base64.StdEncoding.EncodeToString(nonce[:])
	x.Header.Set("Sec-WebSocket-Key", x.wsKey)
	x.Header.Set("Sec-WebSocket-Version", "13")
	return ""
}

// hijack answers CONNECT, extended or not, with 2xx and returns the stream as a
// connection.
func (s *h2Exchange) hijack(r *Reply) (*l4.Conn, []byte, error) {
	if s.x.wsKey == "" && s.x.Method != http.MethodConnect {
		return nil, nil, http.ErrNotSupported
	}
	if err := s.openTunnel(r); err != nil {
		return nil, nil, err
	}
	return l4.NewConn(s.newTunnel()), nil, nil
}

// openTunnel sends the head of a 2xx to CONNECT, or the 200 that stands for a 101.
func (s *h2Exchange) openTunnel(r *Reply) error {
	status := r.Status
	if s.x.wsKey != "" {
		status = http.StatusOK
		r.Header.Del("Sec-WebSocket-Accept")
	}
	f := s.f
	f.mu.Lock()
	err := s.ended()
	if err == nil {
		s.told = true
		b := f.h2.WriteHead()
		b.Field(":status", statusCode(status), false)
		f.fields(b, &r.Header)
		b.End(s.st, false)
	}
	f.mu.Unlock()
	f.flush()
	return err
}

func (s *h2Exchange) newTunnel() *h2Tunnel {
	limit := orDefault(s.f.srv.StreamTimeout, defaultStreamTimeout)
	return &h2Tunnel{k: &s.f.h2Link, sender: &s.h2Sender, recv: &s.recv, end: s, nc: s.f.conn.nc, limit: limit}
}

// The methods below implement h2TunnelEnd.

func (s *h2Exchange) pull(p []byte) (int, error) {
	switch n := s.take(p); {
	case n > 0:
		return n, nil
	case s.err != nil:
		return 0, s.err
	case s.bodyEnd:
		return 0, io.EOF
	case s.st.State() == h2.Closed: // by a deadline
		return 0, net.ErrClosed
	}
	return 0, nil
}

func (s *h2Exchange) unwanted() error { return s.ended() }
func (s *h2Exchange) sent()           { s.done = true }

// lost reports whether the client has reset the stream or disconnected.
func (s *h2Exchange) lost() bool {
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	return s.err != nil && s.byClient
}

func (s *h2Exchange) endedByHandler() bool { return false }
func (s *h2Exchange) hijackable() bool     { return true }

func (s *h2Exchange) present() bool { return false }
