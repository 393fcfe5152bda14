// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/penstock-lb/penstock/l4"
)

// repBody is the state of the current reply.
type repBody struct {
	left    int64 // bytes not yet written, -1 if not known
	none    bool  // there is no body
	chunked bool
	toClose bool // the body ends with the connection
	begun   bool
	done    bool
}

// room returns the output buffer.
func (c *byteConn) room() *l4.Buffer {
	if c.out == nil {
		c.out = c.srv.pool.Get()
		c.out.B = c.out.B[:0]
	}
	return c.out
}

func (c *byteConn) writeInterim(r *Reply) error {
	if c.x.proto == 0 {
		return nil
	}
	if r.Status == http.StatusContinue && c.x.expect { // a pump may be looking, if not
		c.x.expect = false
	}
	b := c.room()
	b.B = appendStatus(b.B, r.Status)
	b.B = appendFields(b.B, &r.Header)
	b.B = append(b.B, "\r\n"...)
	return c.flush()
}

func (c *byteConn) writeHead(r *Reply) error {
	if r.Local {
		c.endLoan()
	}
	tunnel := c.x.opensTunnel(r.Status) // an empty one: others are hijacked
	if c.endsSoon() || c.unreadable(r) || tunnel {
		c.ends.atLeast(endsClosed)
	}
	rep := &c.rep
	*rep = repBody{begun: true, left: r.ContentLength}
	rep.none = c.x.bodiless(r.Status)
	if !rep.none && rep.left < 0 {
		rep.chunked = c.x.proto > 0 && !r.toClose
		rep.toClose = !rep.chunked
		if rep.toClose {
			c.ends.atLeast(endsClosed)
		}
	}
	b := c.room()
	if r.own != nil {
		b.B = c.appendOwnHead(b.B, r)
		return nil
	}
	b.B = appendStatus(b.B, r.Status)
	b.B = appendFields(b.B, &r.Header)
	if !r.Header.dated() {
		b.B = appendDate(b.B)
	}
	switch {
	case rep.chunked:
		b.B = append(b.B, "Transfer-Encoding: chunked\r\n"...)
	case r.ContentLength >= 0 && r.Status != http.StatusNoContent && !tunnel:
		b.B = appendLength(b.B, r.ContentLength)
	}
	b.B = c.appendConnection(b.B)
	if protocols := r.requires(); protocols != "" && c.x.proto > 0 {
		b.B = append(b.B, "Connection: upgrade\r\nUpgrade: "...)
		b.B = append(b.B, protocols...)
		b.B = append(b.B, "\r\n"...)
	}
	b.B = append(b.B, "\r\n"...)
	return nil
}

// unreadable reports whether it is clear, when the reply begins, that the rest
// of the request body will not be drained.
func (c *byteConn) unreadable(r *Reply) bool {
	if !r.Local && !r.unread || r.reading { // a pump may be reading the body
		return false
	}
	b := &c.req
	return !b.ended() && (c.x.expect || b.failed || b.left > maxUnread)
}

func (c *byteConn) writeBody(p []byte) error {
	rep := &c.rep
	if rep.none || len(p) == 0 {
		return nil
	}
	if rep.left >= 0 {
		if int64(len(p)) > rep.left {
			return errors.New("l7: reply body longer than its Content-Length")
		}
		rep.left -= int64(len(p))
	}
	b := c.room()
	if rep.chunked {
		b.B = appendChunkSize(b.B, len(p))
	}
	if len(b.B)+len(p)+2 <= cap(b.B) {
		b.B = append(b.B, p...)
	} else {
		if err := c.push(true); err != nil {
			return err
		}
		if err := c.send(p, false); err != nil {
			return err
		}
	}
	if rep.chunked {
		b.B = append(b.B, "\r\n"...)
	}
	return nil
}

func (c *byteConn) finish(trailer *Fields) error {
	rep := &c.rep
	if rep.chunked {
		b := c.room()
		b.B = append(b.B, "0\r\n"...)
		if trailer != nil {
			b.B = appendFields(b.B, trailer)
		}
		b.B = append(b.B, "\r\n"...)
	} else if rep.left > 0 && !rep.none {
		c.abort()
		return io.ErrUnexpectedEOF
	}
	rep.done = true
	return nil
}

func (c *byteConn) direct(n int64) directWriter {
	rep := &c.rep
	if rep.none || rep.chunked || rep.left >= 0 && rep.left < n || c.from.tls != nil || c.flush() != nil {
		return nil
	}
	return c
}

func (c *byteConn) conn() *l4.Conn { return c.c }

func (c *byteConn) sending() {
	c.boundSend(time.Now(), orDefault(c.srv.SendTimeout, defaultSendTimeout))
}

func (c *byteConn) sent(n int64) {
	if c.rep.left > 0 {
		c.rep.left -= n
	}
	c.x.Record.BytesOut += n
}

// flush writes the output buffer.
func (c *byteConn) flush() error { return c.push(false) }

// flushLast is flush at the end of an exchange. If the connection ends with it, the end goes
// in one packet with the reply, which saves one on each side. Close alone could do that, but
// it throws away what has not been sent if the client has sent more than was read.
func (c *byteConn) flushLast() error {
	if !c.ends.closes() || c.out == nil || len(c.out.B) == 0 {
		return c.flush()
	}
	if err := c.push(true); err != nil {
		return err
	}
	_ = c.c.CloseWrite() // Close follows in any case
	return nil
}

// push is flush; more says that a send follows at once.
func (c *byteConn) push(more bool) error {
	if c.out == nil || len(c.out.B) == 0 {
		return nil
	}
	err := c.send(c.out.B, more)
	c.out.B = c.out.B[:0]
	return err
}

// send writes p to the client; more says that another send follows at once.
func (c *byteConn) send(p []byte, more bool) error {
	if c.ends == endsBroken {
		return net.ErrClosed
	}
	now := c.x.now
	if now.IsZero() {
		now = time.Now()
	}
	c.x.now = time.Time{} // the write may wait
	limit := orDefault(c.srv.SendTimeout, defaultSendTimeout)
	wait := patience{limit: limit, since: now}
	for {
		if c.opaque { // TLS does not survive a write that times out
			c.boundSend(now, limit)
		} else {
			c.boundSend(now, slice(limit))
		}
		var n int
		var err error
		if more {
			n, err = c.c.WriteMore(p)
		} else {
			n, err = c.c.Write(p)
		}
		if err == nil {
			return nil
		}
		if now = time.Now(); c.nc != c.raw || c.opaque || c.own.write.stands() || !wait.lasts(n, err, now) {
			c.ends.atLeast(endsBroken)
			return err
		}
		p = p[n:]
	}
}

// boundSend bounds the next write. Under TLS each record is bounded by itself.
func (c *byteConn) boundSend(now time.Time, d time.Duration) {
	if c.nc == c.raw {
		c.sendAt.bound(now, d, c.c.SetWriteDeadline, c.own.write.get)
	}
}

// abort cuts the connection, so that an incomplete reply does not look
// complete. If the end of the connection ends the body, it sends a reset.
func (c *byteConn) abort() {
	_ = c.flush()
	c.ends.atLeast(endsBroken)
	if c.rep.toClose || !c.rep.begun {
		l4.Abort(c.c)
	}
}

func (c *byteConn) mustClose() { c.ends.atLeast(endsLate) }

func (c *byteConn) hijack(r *Reply) (*l4.Conn, []byte, error) {
	c.stopPeek()
	c.unwatch() // a client may half-close a tunnel
	b := c.room()
	b.B = appendSwitch(b.B, r, c.x.upgrade)
	if err := c.flush(); err != nil {
		return nil, nil, err
	}
	c.ends.atLeast(endsHanded)
	early := c.in.bytes()
	liftBounds(c.nc)
	_ = c.c.SetDeadline(time.Time{})
	return c.c, early, nil
}

// appendStatus appends a status line with the standard reason phrase, which has
// no meaning (RFC 9112, section 4).
func appendStatus(b []byte, status int) []byte {
	if status == http.StatusOK {
		return append(b, "HTTP/1.1 200 OK\r\n"...)
	}
	b = append(b, "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(status), 10)
	b = append(b, ' ')
	if text := http.StatusText(status); text != "" {
		b = append(b, text...)
	} else {
		b = append(b, "status code "...) // as net/http
		b = strconv.AppendInt(b, int64(status), 10)
	}
	return append(b, "\r\n"...)
}

// appendFields appends field lines, except those that the engine writes.
func appendFields(b []byte, f *Fields) []byte {
	for i := range f.list {
		fd := &f.list[i]
		if fd.kind.owned() {
			continue
		}
		b = append(b, fd.Name...)
		b = append(b, ": "...)
		b = append(b, fd.Value...)
		b = append(b, "\r\n"...)
	}
	return b
}

// appendSwitch appends the head of a 101, or of a 2xx to CONNECT.
func appendSwitch(b []byte, r *Reply, protocol string) []byte {
	b = appendStatus(b, r.Status)
	b = appendFields(b, &r.Header)
	if r.Status != http.StatusSwitchingProtocols {
		return append(b, "\r\n"...)
	}
	b = append(b, "Connection: Upgrade\r\nUpgrade: "...)
	b = append(b, protocol...)
	return append(b, "\r\n\r\n"...)
}

// dated reports whether there is a Date.
func (f *Fields) dated() bool {
	for i := range f.list {
		if f.list[i].kind == kindDate {
			return true
		}
	}
	return false
}

func (c *byteConn) hijackable() bool { return true }

func (c *byteConn) present() bool { return false }
