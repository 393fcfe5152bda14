// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"bytes"
	"errors"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/penstock-lb/penstock/l4"
)

// next waits for a request and reads its head. If more is false the connection
// has ended, and the client has had its last reply; or the connection is still
// idle, which means that it has to be settled.
func (c *byteConn) next() (more, idle bool) {
	if c.in.empty() {
		if more, idle = c.waitRequest(); !more {
			return false, idle
		}
	}
	growStackHTTP1(0) // unless start has
	now := time.Now()
	if c.work == nil {
		c.takeWork()
	}
	c.x.reset(&c.from)
	c.x.Record.Start = now
	for scan := (headScan{}); ; {
		for b := c.in.bytes(); len(b) > 1 && b[0] == '\r' && b[1] == '\n'; b = c.in.bytes() {
			c.in.use(2) // an empty line before a request is ignored (RFC 9112, section 2.2)
			scan = headScan{}
		}
		n, err := headEnd(c.in.bytes(), scan.at)
		if n > 0 && err == nil {
			if n > headBuffer {
				l4.TakeTurn() // so long a head takes a while to parse and to send
			}
			return c.parse(n), false
		}
		if head := c.in.bytes(); err == nil && (len(head) != 1 || head[0] != '\r') { // a single CR may begin an empty line
			err = scan.hopeless(head)
		}
		if err != nil {
			return c.refuse(err), false
		}
		if !c.moreHead(now) {
			return false, false
		}
	}
}

// waitRequest waits for the first bytes of a request, holding no buffer.
func (c *byteConn) waitRequest() (more, idle bool) {
	limit := orDefault(c.srv.IdleTimeout, defaultIdleTimeout)
	now := time.Now() // sending the last reply may have taken a while
	c.readAt.bound(now, limit, c.c.SetReadDeadline, nil)
	c.goIdle()
	if c.leaves() { // seen here, or Shutdown sees that it is idle
		c.goBusy()
		return false, false
	}
	err := c.in.read(c.c, &c.srv.pool)
	interrupted := c.goBusy()
	if err != nil {
		return false, interrupted && errors.Is(err, os.ErrDeadlineExceeded) && !c.settled && !c.leaves()
	}
	c.settled = false
	return true, false
}

// moreHead reads more of an incomplete head.
func (c *byteConn) moreHead(start time.Time) bool {
	have := len(c.in.bytes())
	if limit := orDefault(c.srv.MaxHeaderBytes, defaultMaxHeader); limit > 0 && have >= limit {
		return c.refuse(c.tooLong(limit))
	}
	if d := orDefault(c.srv.ReadHeaderTimeout, defaultHeaderTimeout); d > 0 {
		c.readAt.boundAt(start.Add(d), c.c.SetReadDeadline, nil)
	}
	if have > 0 {
		c.c.AckNow()
	}
	err := c.in.fill(c.c, &c.srv.buffers)
	switch {
	case err == nil:
		return true
	case errors.Is(err, os.ErrDeadlineExceeded) && !c.gone.Load():
		c.x.begin(FrontByte)
		c.x.Record.Err = timedOut("Server.ReadHeaderTimeout", orDefault(c.srv.ReadHeaderTimeout, defaultHeaderTimeout), err)
		c.ends.atLeast(endsLate)
		c.x.Error(http.StatusRequestTimeout, endOf(l4.ClientTimeout, l4.PhaseRequest))
	case have > 0:
		c.x.begin(FrontByte)
		c.x.Record.Err, c.x.Record.Termination = err, endOf(l4.ClientAborted, l4.PhaseRequest)
	default:
		return false
	}
	_ = c.flushLast()
	c.srv.ended(&c.x)
	return false
}

// tooLong returns the error for a head that is longer than limit: 414 if the
// request line alone is too long, else 431.
func (c *byteConn) tooLong(limit int) *headError {
	if bytes.IndexByte(c.in.bytes()[:limit], '\n') < 0 {
		return &headError{http.StatusRequestURITooLong, "request line too long"}
	}
	return &headError{http.StatusRequestHeaderFieldsTooLarge, "head too long"}
}

// consumed releases the input buffer once all of it has been used.
func (c *byteConn) consumed() { c.in.consumed(&c.srv.buffers) }

const h2Preface = "PRI * HTTP/2.0\r\n\r\n"

// parse parses the head, n bytes long, at the beginning of the input.
func (c *byteConn) parse(n int) bool {
	raw := c.in.bytes()[:n]
	if limit := orDefault(c.srv.MaxHeaderBytes, defaultMaxHeader); limit > 0 && n > limit {
		return c.refuse(c.tooLong(limit))
	}
	if c.served == 0 && string(raw) == h2Preface && c.srv.mayPreface(c.from.tls != nil) {
		c.startHTTP2()
		return false
	}
	if http1, _, _ := c.srv.speaks(); !http1 {
		return false
	}
	head := sameOr(c.req.head, raw) // all strings of the exchange are parts of it
	if err := parseRequest(&c.x, &c.frame, head, orDefault(c.srv.MaxFields, defaultMaxFields)); err != nil {
		if c.served == 0 && namesNoVersion(head) && c.srv.mayPreface(c.from.tls != nil) {
			return c.refusePreface(err)
		}
		return c.refuse(err)
	}
	if limit := orDefault(c.srv.MaxBodyBytes, 0); limit > 0 && c.x.ContentLength > limit {
		return c.refuse(&headError{http.StatusRequestEntityTooLarge, "body too long"})
	}
	c.in.use(n)
	c.req = reqBody{head: head, left: c.x.ContentLength, chunk: chunkDecoder{trailer: c.req.chunk.trailer[:0]}}
	c.consumed()
	c.x.begin(FrontByte)
	c.rep = repBody{}
	if c.served++; c.served == 1 {
		c.leaving.begun.Store(true)
	}
	f := &c.frame
	if f.close || c.x.proto == 0 && !f.keepAlive || c.srv.endsBehind(int(c.served)) || c.endsSoon() {
		c.ends.atLeast(endsClosed)
	}
	return true
}

// namesNoVersion reports whether the request line of a head has three words, and the
// last is not the name and version of a protocol, as "HTTP/1.1" is. Then nothing says
// that it is a request of HTTP/1.
func namesNoVersion(head string) bool {
	line, _, _ := cutLine(head)
	words := strings.Split(line, " ")
	return len(words) == 3 && !strings.Contains(words[2], "/")
}

// refusePreface ends a connection that may begin with HTTP/2, and begins with neither
// a request nor its preface (RFC 9113, section 3.4). Its client does not read HTTP/1.
func (c *byteConn) refusePreface(err *headError) bool {
	c.x.begin(FrontByte)
	c.x.Record.Err = err
	c.x.Record.Termination = endOf(l4.Denied, l4.PhaseRequest)
	c.srv.ended(&c.x)
	return false
}

// refuse answers a malformed request and ends the connection, since the bytes
// after it cannot be trusted to be a request.
func (c *byteConn) refuse(err *headError) bool {
	c.x.begin(FrontByte)
	c.x.Record.Err = err
	c.ends.atLeast(endsLate)
	c.rep = repBody{}
	if c.x.proto == 0 {
		c.x.proto = 1
	}
	c.x.editors = c.x.editors[:0]
	c.x.Error(err.status, endOf(l4.Denied, l4.PhaseRequest))
	_ = c.flushLast()
	c.srv.ended(&c.x)
	return false
}
