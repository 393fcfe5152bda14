// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4"
)

// run does one try on server s. A failure means that the client has got
// nothing yet.
func (t *attempt) run(s *balance.Server) *failure {
	if h, ok := s.Value().(http.Handler); ok {
		return t.runLocal(h)
	}
	x := t.x
	h := t.up.host(s)
	for fresh := false; ; fresh = true {
		now := time.Now()
		x.Record.Assigned = now.Sub(x.Record.Start)
		var c *upConn
		if !fresh {
			c = h.take(t.whole && !x.expect)
		}
		if x.Record.Reused = c != nil; c == nil {
			var err error
			if c, err = h.dial(x.Context()); err != nil {
				return t.connectFailure(err)
			}
			now = time.Now()
		}
		x.Record.Connected = now.Sub(x.Record.Start)
		f := t.exchange(c, s, now)
		if f == nil {
			return nil
		}
		// A reused connection that ended without a byte of a reply was most
		// likely closed as we sent. That is nobody's fault and no try.
		if !c.reused || !f.quiet || f.by != l4.ServerAborted || !t.repeatable(f) {
			return f
		}
	}
}

// runLocal serves by a member of the pool that is a handler of this process.
func (t *attempt) runLocal(h http.Handler) *failure {
	x := t.x
	x.Record.Connected = time.Since(x.Record.Start)
	Serve(h, x)
	t.outcome = balance.Outcome{Status: x.Record.Status}
	if x.Record.Status >= 500 {
		t.outcome.Class = balance.StatusError
	}
	return nil
}

// exchange sends the request over c and relays the reply.
func (t *attempt) exchange(c *upConn, s *balance.Server, sent time.Time) *failure {
	x := t.x
	c.requests++
	c.gotHead = false
	x.down.attach(c)
	pump, err := t.sendRequest(c, sent)
	if err == nil {
		err = t.readHead(c, &pump, sent)
	}
	if err != nil {
		unsent := pump == nil && (c.c.BytesWritten() == 0 || errors.Is(err, l4.ErrNotQuiet))
		f := t.fail(c, pump, err)
		f.unsent = unsent
		pump.stop(x)
		x.down.detach()
		c.close()
		return f
	}
	now := time.Now()
	x.now, c.idleAt = now, now
	x.Record.FirstByte = now.Sub(x.Record.Start)
	t.outcome = balance.Outcome{Status: c.rep.Status, Latency: now.Sub(sent)}
	if c.rep.Status >= 500 {
		t.outcome.Class = balance.StatusError
		if f := t.retryStatus(c, pump); f != nil {
			return f
		}
	}
	c.rep.Server = s
	c.bodyLimit = orDefault(t.p.BodyTimeout, defaultBodyTimeout)
	if c.rep.Status == http.StatusSwitchingProtocols {
		return t.tunnel(c, pump)
	}
	t.relay(c, pump)
	return nil
}

// retryStatus makes a failure of a reply whose status is to be retried for.
func (t *attempt) retryStatus(c *upConn, pump *pump) *failure {
	for _, st := range t.p.Retry.Statuses {
		if st == c.rep.Status && pump == nil {
			f := &failure{class: balance.StatusError, status: st, by: l4.ServerAborted, phase: l4.PhaseHeaders, err: errors.New("l7: server replied " + statusLine(st))}
			if t.p.again(t.x, t, t.x.Record.Tries, f) {
				t.x.down.detach()
				c.close()
				return f
			}
		}
	}
	return nil
}

// sendRequest writes the request. What has to be waited for of its body is
// sent by a pump meanwhile.
func (t *attempt) sendRequest(c *upConn, now time.Time) (*pump, error) {
	limit := orDefault(t.p.BodyTimeout, defaultBodyTimeout)
	rest := t.req.B
	if t.whole && !t.x.expect && c.reused {
		c.wait(now, orDefault(t.p.HeaderTimeout, defaultHeaderLimit))
		n, err := c.ask(rest)
		if err != nil || n == len(rest) {
			return nil, err
		}
		rest = rest[n:]
	}
	if err := c.send(rest, now, limit); err != nil {
		// The server may have replied and closed without reading.
		if !errors.Is(err, os.ErrDeadlineExceeded) && t.readEarly(c, now) {
			return nil, nil
		}
		return nil, err
	}
	if t.whole || t.x.expect {
		return nil, nil
	}
	return t.startPump(c), nil
}

// readEarly reports whether a reply is there although the request could not
// be written.
func (t *attempt) readEarly(c *upConn, now time.Time) bool {
	c.wait(now, time.Second)
	return c.fill(&t.up.pool) == nil
}

// readHead reads heads up to that of the final reply, and passes interim ones
// on.
func (t *attempt) readHead(c *upConn, pump **pump, now time.Time) error {
	x := t.x
	limit := orDefault(t.p.HeaderTimeout, defaultHeaderLimit)
	waiting := x.expect
	for interim := 0; ; {
		if waiting {
			_ = c.c.SetReadDeadline(now.Add(expectWait))
			c.readAt.at = past
		} else {
			c.wait(now, limit)
		}
		err := c.readHead(x.Method)
		switch {
		case waiting && errors.Is(err, os.ErrDeadlineExceeded) && !c.lost() && !c.gotHead:
			// The server does not say: it gets the body.
			waiting = false
			*pump = t.startPump(c)
			now = time.Now()
			continue
		case err != nil:
			return err
		case c.rep.Status >= 200 || c.rep.Status == http.StatusSwitchingProtocols:
			return nil
		}
		if interim++; interim > maxInterim {
			return &badReply{errors.New("too many interim replies")}
		}
		if err := x.down.writeInterim(&c.rep); err != nil {
			return &clientError{err}
		}
		if waiting && c.rep.Status == http.StatusContinue {
			waiting = false
			x.expect = false
			*pump = t.startPump(c)
		}
		now = time.Now()
	}
}

// expectWait is how long a server may take to say 100 Continue before the
// body is sent anyway (RFC 9110, section 10.1.1).
const expectWait = time.Second

// clientError marks an error on the client's side of an exchange.
type clientError struct{ error }

func (e *clientError) Unwrap() error { return e.error }

// fail classifies an error of an exchange whose reply has not begun.
func (t *attempt) fail(c *upConn, p *pump, err error) *failure {
	f := &failure{class: balance.Reset, status: http.StatusBadGateway, by: l4.ServerAborted, phase: l4.PhaseHeaders, err: err, quiet: !c.gotHead}
	var ce *clientError
	var br *badReply
	var he *headError
	if p != nil {
		if perr := p.clientError(); perr != nil {
			err = &clientError{perr}
			f.err = perr
		}
	}
	switch {
	case c.cutReason.Load() != nil:
		f.by, f.status = l4.ServerDown, http.StatusServiceUnavailable
		f.err = errors.New("l7: server taken away: " + *c.cutReason.Load())
	case c.interrupted.Load():
		f.class, f.by, f.status = balance.ClientAborted, l4.ClientAborted, 0
	case errors.As(err, &ce):
		f.class, f.by, f.phase, f.status = balance.ClientAborted, l4.ClientAborted, l4.PhaseRequest, 0
		switch {
		case errors.As(err, &he):
			f.status, f.by = he.status, l4.Denied
		case errors.Is(err, os.ErrDeadlineExceeded):
			f.status, f.by = http.StatusRequestTimeout, l4.ClientTimeout
		}
	case errors.Is(err, os.ErrDeadlineExceeded):
		f.class, f.by, f.status = balance.Timeout, l4.ServerTimeout, http.StatusGatewayTimeout
	case errors.As(err, &br):
		f.class = balance.Protocol
	case c.reused && !c.gotHead:
		f.class = balance.Stale
	}
	return f
}

// relay sends the reply to the client.
func (t *attempt) relay(c *upConn, pump *pump) {
	x := t.x
	r := &c.rep
	if pump == nil && !t.whole {
		x.down.mustClose() // nobody asked the client for its body
	}
	err := x.writeHead(r)
	if err != nil {
		err = &clientError{err}
	} else if len(r.filters) > 0 {
		err = t.relayFiltered(c)
	} else {
		err = t.relayBody(c)
	}
	if err == nil {
		trailer := c.trailer
		if err = x.down.finish(trailer); err == nil && pump != nil {
			err = x.down.flush() // the client may wait for it before it goes on
		}
		if err != nil {
			err = &clientError{err}
		}
	}
	whole := pump.stop(x)
	untouched := x.down.detach()
	switch {
	case err == nil:
		c.release(untouched && c.keep && whole && !c.behind())
		return
	case !x.replied:
	default:
		x.down.abort()
	}
	t.cut(c, err)
	c.close()
}

// cut notes how a reply that had begun ended before its end.
func (t *attempt) cut(c *upConn, err error) {
	x := t.x
	end := endOf(l4.ServerAborted, l4.PhaseData)
	t.outcome.Class, t.outcome.Err = balance.Reset, err
	var ce *clientError
	var br *badReply
	switch {
	case c.cutReason.Load() != nil:
		end.Cause = l4.ServerDown
	case c.interrupted.Load() || errors.As(err, &ce):
		end.Cause = l4.ClientAborted
		if errors.Is(err, os.ErrDeadlineExceeded) && !c.interrupted.Load() {
			end.Cause = l4.ClientTimeout
		}
		t.outcome.Class = balance.ClientAborted
	case errors.Is(err, os.ErrDeadlineExceeded):
		end.Cause = l4.ServerTimeout
		t.outcome.Class = balance.Timeout
	case errors.As(err, &br):
		t.outcome.Class = balance.Protocol
	}
	x.Record.Termination, x.Record.Err = end, err
}

// relayBody passes the body on as it comes.
func (t *attempt) relayBody(c *upConn) error {
	x := t.x
	c.x = x
	defer func() { c.x = nil }()
	for direct := c.left >= spliceMin; ; {
		if direct && !c.behind() {
			direct = false
			if err := t.relayDirect(c); err != nil {
				return err
			}
		}
		data, err := c.next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			_ = x.down.flush()
			return err
		}
		if err = x.writeBody(data); err != nil {
			return &clientError{err}
		}
	}
}

// spliceMin is from how many bytes on a body is worth a pipe.
const spliceMin = 512 << 10

// relayDirect moves a long body inside the kernel, if both connections allow.
func (t *attempt) relayDirect(c *upConn) error {
	down := t.x.down
	dst := down.direct(c.left)
	if dst == nil {
		return nil
	}
	if c.in != nil {
		c.consumed()
	}
	reading := false
	n, err := l4.Transfer(dst, c.c, c.left, func(side *l4.Conn) {
		if reading = side == c.c; reading {
			c.idleAt = time.Now()
			c.wait(c.idleAt, c.bodyLimit)
		} else {
			down.sending()
		}
	})
	c.left -= n
	down.sent(n)
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		return nil
	case err != nil && !reading:
		return &clientError{err}
	}
	return err
}

// relayFiltered passes the body on through filters.
func (t *attempt) relayFiltered(c *upConn) error {
	t.x.now = time.Time{} // filters may wait for what they like
	body := c.rep.filter((*upBody)(c))
	b := t.up.pool.Get()
	defer t.up.pool.Put(b)
	for {
		n, err := body.Read(b.B[:cap(b.B)])
		if n > 0 {
			if werr := t.x.writeBody(b.B[:n]); werr != nil {
				return &clientError{werr}
			}
			if werr := t.x.down.flush(); werr != nil {
				return &clientError{werr}
			}
		}
		if err == io.EOF {
			return t.drainBody(c)
		}
		if err != nil {
			return err
		}
	}
}

// drainBody leaves a connection whose body was not read to its end unusable.
func (t *attempt) drainBody(c *upConn) error {
	if !c.ended() {
		c.keep = false
	}
	return nil
}

// upBody is the body of a reply as a Reader.
type upBody upConn

func (b *upBody) Read(p []byte) (int, error) {
	c := (*upConn)(b)
	if len(c.held) == 0 {
		var err error
		if c.held, err = c.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, c.held)
	c.held = c.held[n:]
	return n, nil
}

// tunnel gives both connections to a relay after a 101.
func (t *attempt) tunnel(c *upConn, pump *pump) *failure {
	x := t.x
	if x.upgrade == "" || !upgradeAgreed(x.upgrade, c.protocol) {
		f := &failure{class: balance.Protocol, status: http.StatusBadGateway, by: l4.ServerAborted, phase: l4.PhaseHeaders, err: errors.New("l7: server changed to a protocol that was not asked for")}
		pump.stop(x)
		x.down.detach()
		c.close()
		return f
	}
	x.edit(&c.rep)
	client, early, err := x.down.hijack(&c.rep)
	x.down.detach()
	if err != nil {
		c.close()
		x.Record.Termination, x.Record.Err = endOf(l4.ClientAborted, l4.PhaseData), err
		t.outcome.Class = balance.ClientAborted
		return nil
	}
	defer c.close()
	defer client.Close()
	t.splice(c, client, early)
	return nil
}

// splice relays an upgraded connection, what was read ahead first.
func (t *attempt) splice(c *upConn, client *l4.Conn, early []byte) {
	x := t.x
	_ = c.c.SetDeadline(time.Time{})
	var err error
	if len(early) > 0 {
		_, err = c.c.Write(early)
	}
	if err == nil && c.in != nil {
		_, err = client.Write(c.in.B[c.pos:])
		x.Record.ReplyBytes += int64(len(c.in.B) - c.pos)
	}
	c.releaseInput()
	if err != nil {
		x.Record.Termination, x.Record.Err = endOf(l4.ServerAborted, l4.PhaseData), err
		return
	}
	relayTunnel(x, client, c.c, orDefault(t.p.TunnelTimeout, defaultTunnelTimeout))
}

// upgradeAgreed reports whether the protocol that a server changed to is one
// of those the client asked for.
func upgradeAgreed(asked, got string) bool {
	return got != "" && (equalFold(asked, got) || strings.Contains(asked, ",") && hasItem(asked, got))
}
