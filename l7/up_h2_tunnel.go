// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"io"
	"net"
	"net/http"
	"time"

	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l7/internal/h2"
)

// ask decides whether an upgrade is sent as an extended CONNECT, which it is if
// the server offers it. That is in the server's SETTINGS, so ask waits for them
// (RFC 8441, section 3).
func (s *h2Stream) ask(t *attempt, l *try) error {
	if !t.extends {
		return nil
	}
	c := s.conn
	w := h2Wait{host: c.host}
	defer w.end()
	if err := c.awaitSettings(t.x.Context(), &w, l); err != nil {
		return &unsentError{error: err}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	p, _ := c.h2.Peer()
	s.asks = p.Connect
	return nil
}

// tunnels reports whether a 2xx opens a tunnel.
func (s *h2Stream) tunnels() bool { return s.asks || s.method == http.MethodConnect }

// opened turns the reply to an extended CONNECT into the 101 of HTTP/1, and the
// stream into a connection.
func (s *h2Stream) opened(t *attempt) {
	c := s.conn
	nc := &h2Tunnel{k: &c.h2Link, sender: &s.h2Sender, recv: &s.recv, end: s, nc: c.nc, limit: t.streamLimit()}
	s.pipe = &h2ServerTunnel{s: s, nc: nc, c: l4.NewConn(nc)}
	if !s.asks {
		return
	}
	s.rep.Status, s.pipe.protocol = http.StatusSwitchingProtocols, t.x.upgrade
	if s.key != "" {
		s.rep.Header.Set("Sec-WebSocket-Accept", acceptKey(s.key))
	}
}

// tunnel implements replyReader.
func (s *h2Stream) tunnel(string) serverTunnel {
	if s.pipe == nil { // a nil pointer would make a serverTunnel that is not nil
		return nil
	}
	return s.pipe
}

// The methods below implement h2TunnelEnd.

func (s *h2Stream) pull(p []byte) (n int, err error) {
	for n < len(p) {
		m := copy(p[n:], s.inbox.first())
		if m == 0 {
			break
		}
		n += m
		s.inbox.skip(m, &s.conn.host.up.pool)
	}
	switch err = s.fault(); {
	case n > 0:
		s.conn.h2.Consume(s.st, int64(n))
		return n, nil
	case err != nil:
		return 0, err
	case s.all:
		return 0, io.EOF
	case s.st.State() == h2.Closed: // by a deadline
		return 0, net.ErrClosed
	}
	return 0, nil
}

func (s *h2Stream) sent() {}

// An h2ServerTunnel is a stream to a server after a 2xx to CONNECT.
type h2ServerTunnel struct {
	s        *h2Stream
	nc       *h2Tunnel
	c        *l4.Conn // over it
	protocol string
}

// The methods below implement serverTunnel.

func (u *h2ServerTunnel) conn() *l4.Conn                       { return u.c }
func (u *h2ServerTunnel) switchedTo() string                   { return u.protocol }
func (u *h2ServerTunnel) open()                                {}
func (u *h2ServerTunnel) takeEarly(func(p []byte) error) error { return nil }

func (u *h2ServerTunnel) onCut(f func(reason string)) {
	c := u.s.conn
	c.mu.Lock()
	u.s.onCut = f
	c.mu.Unlock()
	if r := c.reason.Load(); r != nil { // seen here, or cut sees onCut
		f(*r)
	}
}

// tunnels returns the funcs that tell tunnels of a cut. One whose server has ended its
// direction does not notice the end of the connection by itself.
func (c *h2Conn) tunnels() (list []func(reason string)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.h2.Streams(func(st *h2.Stream) {
		if f := st.Owner.(*h2Stream).onCut; f != nil {
			list = append(list, f)
		}
	})
	return list
}

func (u *h2ServerTunnel) read(p []byte, limit time.Duration) (int, error) {
	_ = u.c.SetReadDeadline(deadlineIn(time.Now(), limit))
	return u.c.Read(p)
}

func (u *h2ServerTunnel) write(p []byte, limit time.Duration) error {
	_, err := u.c.Write(p)
	return err
}

func (u *h2ServerTunnel) leave() {
	_ = u.nc.Close()
	u.s.close()
}
