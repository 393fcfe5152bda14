// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4"
)

// roundTrip implements source: it writes the request, and reads heads up to
// that of the final reply.
func (c *upConn) roundTrip(t *attempt, l *try, now time.Time) error {
	c.requests++
	c.private = c.private || t.login // before the server knows
	c.gotHead, c.pump, c.trace = false, nil, t.trace
	now, err := c.sendRequest(t, l, now)
	if err == nil {
		if err = c.awaitHead(t, l, now); err == nil {
			return nil
		}
		switch {
		case c.lost():
		case err == errStuck:
			err = t.lateBody(l.deadline, wantsStream(t.x), err)
		default:
			err = t.lateHead(l, err)
		}
	} else if !c.lost() {
		err = t.lateBody(l.deadline, false, err)
	}
	if c.pump != nil {
		if perr := c.pump.clientError(); perr != nil {
			return &clientError{perr}
		}
	} else if c.c.BytesWritten() == 0 || errors.Is(err, l4.ErrNotQuiet) {
		return &unsentError{error: err}
	}
	return err
}

// sendRequest writes the request, and returns the time from which the head is
// awaited. A pump sends the part of the body that is not in memory.
func (c *upConn) sendRequest(t *attempt, l *try, now time.Time) (time.Time, error) {
	rest, _ := t.request(l)
	if t.whole && !t.x.expect && c.reused && t.trace == nil && c.quiet.bare() {
		c.boundRequest(rest, now, t.bodyTimeout(), l.deadline)
		c.waitHead(now, t.headerTimeout(), l.deadline)
		n, err := c.ask(rest, !t.p.Retry.surelyRepeatable(t.x))
		if n == len(rest) && errors.Is(err, os.ErrDeadlineExceeded) && !c.lost() {
			return now, nil // awaitHead knows whether the head may take longer
		}
		if err != nil || n == len(rest) {
			return now, err
		}
		rest = rest[n:]
	}
	err := c.send(rest, now, t.bodyTimeout(), l.deadline)
	now = time.Now() // that may have been a wait
	t.wrote(l, err)
	if err != nil {
		// The server may have replied and closed without reading.
		if !errors.Is(err, os.ErrDeadlineExceeded) && c.readEarly(now) {
			err = nil
		}
		return now, err
	}
	if !t.whole && !t.x.expect {
		c.startPump(t)
	}
	return now, nil
}

var errStuck = fmt.Errorf("l7: the server takes no more of the body: %w", os.ErrDeadlineExceeded)

// readEarly reads a reply that came although the request could not be written,
// and reports whether there is one.
func (c *upConn) readEarly(now time.Time) bool {
	c.wait(now, time.Second)
	return c.fill() == nil
}

// awaitHead reads heads up to that of the final reply, and relays interim ones.
func (c *upConn) awaitHead(t *attempt, l *try, now time.Time) error {
	x := t.x
	limit := t.headerTimeout()
	waiting := x.expect // with the body, for a 100
	left, begun, patient := limit, now, false
	for interim := 0; ; {
		if waiting {
			c.readAt.boundAt(now.Add(expectWait), c.c.SetReadDeadline, c.readInstead)
		} else {
			c.waitHead(now, c.pump.look(left), l.deadline)
		}
		err := c.readHead(t.method)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded) && !c.lost():
			now = time.Now()
			if c.pump != nil && c.pump.stuck.Load() {
				return errStuck
			}
			if waiting && !c.gotHead { // no 100 in time: send the body
				waiting = false
				if err := x.down.goOn(); err != nil {
					return &clientError{err}
				}
				c.startPump(t)
				continue
			}
			if !l.deadline.IsZero() && !now.Before(l.deadline) {
				return err
			}
			if !patient {
				patient = true // checked late, since most requests never need it
				if more := t.headLimit(); more != limit {
					probe(c.c)
					x.down.probe()
					limit = more
				}
			}
			if left = c.pump.headTime(now, begun, limit); left < 0 {
				return err
			}
			continue
		case err != nil:
			return err
		}
		t.trace.answers()
		if c.rep.Status >= 200 || c.rep.Status == http.StatusSwitchingProtocols {
			return nil
		}
		if interim++; interim > maxInterim {
			return &badReply{errors.New("too many interim replies")}
		}
		if l.race == nil {
			if err := x.writeInterim(&c.rep); err != nil {
				return &clientError{err}
			}
		}
		if waiting && c.rep.Status == http.StatusContinue {
			waiting = false
			x.expect = false
			c.startPump(t)
		}
		now = time.Now()
		begun = now
	}
}

// expectWait is how long to wait for a 100 (Continue) before the body is sent
// anyway (RFC 9110, section 10.1.1).
const expectWait = time.Second

// defaultHeadersTimeout is how long a server may take to reply.
const defaultHeadersTimeout = 60 * time.Second

// defaultReplyTimeout is how long a body may make no progress because of the server.
const defaultReplyTimeout = 60 * time.Second

func (c *upConn) end() *sourceEnd        { return &c.sourceEnd }
func (c *upConn) reply() *Reply          { return &c.rep }
func (c *upConn) version() string        { return "1.1" }
func (c *upConn) shared() bool           { return false }
func (c *upConn) chunked() bool          { return c.left == -1 }
func (c *upConn) closes() bool           { return !c.keep }
func (c *upConn) headCame(now time.Time) { c.idleAt = now }
func (c *upConn) judge(*balance.Outcome) {}

func (c *upConn) trailers() *Fields { return c.trailer }

func (c *upConn) netConn() (net.Conn, time.Time) { return c.c.NetConn(), c.idleAt }

func (c *upConn) tlsState() *tls.ConnectionState { return c.c.TLS() }

func (c *upConn) expectBody(x *Exchange, w bodyWait) { c.x, c.bodyWait = x, w }

// received implements source.
func (c *upConn) received() bool {
	switch rest := c.in.bytes(); {
	case c.ended():
		return true
	case c.left == untilClose:
		return false
	case c.left > 0:
		return int64(len(rest)) >= c.left
	default:
		d := c.chunk // a copy: next reads the same bytes
		for len(rest) > 0 && d.state != chunkDone {
			_, used, bad := d.decode(rest)
			if rest = rest[used:]; bad != nil {
				return false
			}
		}
		return d.state == chunkDone
	}
}

// awaitBody bounds a wait for the body. It checks only now whether the reply is
// a stream, since most replies come complete with their head.
func (c *upConn) awaitBody(now time.Time) {
	if w := &c.bodyWait; w.stream != w.limit {
		if isStream(&c.rep.Header) {
			w.limit = w.stream
			probe(c.c)
			if c.x != nil {
				c.x.down.probe()
			}
		}
		w.stream = w.limit
	}
	c.waitBody(now, c.bodyWait.limit)
}

func (c *upConn) waitBody(now time.Time, limit time.Duration) {
	end := c.bodyWait.end
	switch {
	case !endsFirst(now, limit, end):
		c.wait(now, limit)
	case !c.readAt.at.Equal(end):
		c.readAt.boundAt(end, c.c.SetReadDeadline, c.readInstead)
	}
}
