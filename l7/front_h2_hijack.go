// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"bufio"
	"bytes"
	"errors"
	"net"
	"net/http"
)

// A handler of net/http that accepts a WebSocket hijacks the connection and writes
// the 101 itself. Over HTTP/2 it sees the same: the extended CONNECT looks like the
// GET of HTTP/1, and the 101 that the handler writes becomes the 200 of the stream.

// mayHijack reports whether a handler may hijack the stream.
func (s *h2Exchange) mayHijack() bool { return s.x.wsKey != "" && s.x.upgrade != "" }

func (s *h2Exchange) takeConn(w *ownWriter) (net.Conn, *bufio.ReadWriter, error) {
	switch {
	case !s.mayHijack():
		return nil, nil, http.ErrNotSupported
	case w.status != 0 && w.status != http.StatusSwitchingProtocols:
		return nil, nil, errors.New("l7: Hijack after another reply")
	}
	c := &h2Hijacked{h2Tunnel: s.newTunnel(), s: s, done: make(chan struct{})}
	if w.status != 0 { // as in HTTP/1, WriteHeader was the whole reply
		if err := c.open(fieldsOf(w.frozen)); err != nil {
			return nil, nil, err
		}
	}
	s.taken = c
	return c, bufio.NewReadWriter(bufio.NewReader(c), bufio.NewWriter(c)), nil
}

// awaitTaken waits for the end of a hijacked stream, which may outlive the handler.
func (s *h2Exchange) awaitTaken(broken bool) {
	if broken {
		s.abort()
		_ = s.taken.Close()
	}
	<-s.taken.done
}

// h2Hijacked is a stream in the form of the HTTP/1 connection to which a handler
// writes a 101. Once it is closed and no call is in progress, its exchange may
// serve another request.
type h2Hijacked struct {
	*h2Tunnel
	s    *h2Exchange
	done chan struct{}

	inside int    // calls in progress; guarded by the mu of the link, like closed
	opened bool   // the 101 has been written; owned by the goroutine that writes
	head   []byte // of the 101, while it is not complete
}

const maxSwitchHead = 64 << 10 // bytes

var errNot101 = errors.New("l7: a handler that hijacked a stream must first write the head of a 101 for its client")

func (c *h2Hijacked) enter() bool {
	c.k.mu.Lock()
	defer c.k.mu.Unlock()
	if !c.closed {
		c.inside++
	}
	return !c.closed
}

func (c *h2Hijacked) leave() {
	c.k.mu.Lock()
	defer c.k.mu.Unlock()
	if c.inside--; c.closed && c.inside == 0 {
		close(c.done)
	}
}

// Read implements [net.Conn].
func (c *h2Hijacked) Read(p []byte) (int, error) {
	if !c.enter() {
		return 0, net.ErrClosed
	}
	defer c.leave()
	return c.h2Tunnel.Read(p)
}

// Write implements [net.Conn].
func (c *h2Hijacked) Write(p []byte) (int, error) {
	if !c.enter() {
		return 0, net.ErrClosed
	}
	defer c.leave()
	if c.opened {
		return c.h2Tunnel.Write(p)
	}
	const end = "\r\n\r\n"
	before := len(c.head)
	c.head = append(c.head, p...)
	n := bytes.Index(c.head, []byte(end)) + len(end)
	if n < len(end) && len(c.head) <= maxSwitchHead {
		return len(p), nil
	}
	res, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(c.head)), nil)
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		return 0, errNot101
	}
	if err := c.open(fieldsOf(res.Header)); err != nil {
		return 0, err
	}
	rest := c.head[n:]
	if c.head = nil; len(rest) == 0 {
		return len(p), nil
	}
	m, err := c.h2Tunnel.Write(rest)
	return n - before + m, err
}

// open answers the client as a 101 with those fields would.
func (c *h2Hijacked) open(f Fields) error {
	if f.Get("Sec-WebSocket-Accept") != acceptKey(c.s.x.wsKey) {
		return errNot101
	}
	c.opened = true
	return c.s.openTunnel(&Reply{Status: http.StatusSwitchingProtocols, Header: f})
}

// CloseWrite ends the sending direction.
func (c *h2Hijacked) CloseWrite() error {
	if !c.enter() {
		return net.ErrClosed
	}
	defer c.leave()
	if !c.opened {
		return errNot101
	}
	return c.h2Tunnel.CloseWrite()
}

// Close implements [net.Conn].
func (c *h2Hijacked) Close() error {
	c.k.mu.Lock()
	if !c.closed {
		c.broken = c.broken || !c.s.told // without a reply the stream can only be reset
		if c.h2Tunnel.close(); c.inside == 0 {
			close(c.done)
		}
	}
	c.k.mu.Unlock()
	c.k.flush()
	return nil
}
