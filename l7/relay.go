// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4"
)

// deliver passes the reply on to the client.
func (t *attempt) deliver() {
	l := &t.leg
	if l.local != nil {
		t.serveLocal(l)
		return
	}
	r := l.src.reply()
	if v := t.p.Via; v != "" {
		r.Header.Add("Via", viaVersion(l.src)+v)
	}
	if c, ok := l.src.(*upConn); ok && c.tunnels(t.method) {
		t.tunnel(c)
		return
	}
	l.src.expectBody(t.x, t.bodyWait())
	t.relay(l.src)
}

// viaVersion names the protocol of a reply for Via.
func viaVersion(src source) string {
	if _, ok := src.(*upConn); ok {
		return "1.1 "
	}
	return "2.0 "
}

// serveLocal serves by a member of the pool that is a handler of this process.
func (t *attempt) serveLocal(l *leg) {
	if b := t.readBody(); b != nil {
		t.x.SetBody(b, t.x.ContentLength)
	}
	t.x.OnReply(answeredBy{l})
	Serve(l.local, t.x)
	l.outcome = balance.Outcome{Status: t.x.Record.Status}
	if t.x.Record.Status >= 500 {
		l.outcome.Class = balance.StatusError
	}
}

// answeredBy tells reply editors which member of this process answered, as
// they are told of others, and the pool that it does.
type answeredBy struct{ leg *leg }

func (a answeredBy) EditReply(_ *Exchange, r *Reply) {
	r.Server = a.leg.lease.Server()
	if r.Status < 500 {
		a.leg.lease.Works(r.Status)
	}
}

// readBody returns the request body from its beginning if some of it has been
// read, nil if none has.
func (t *attempt) readBody() io.Reader {
	switch {
	case t.body != nil:
		return t.body
	case len(t.req.B) > t.headLen:
		return bytes.NewReader(bytes.Clone(t.req.B[t.headLen:]))
	}
	return nil
}

// relay sends the reply to the client.
func (t *attempt) relay(src source) {
	x, l := t.x, &t.leg
	r := src.reply()
	if s, ok := x.down.(*standard); ok {
		s.boundWrites(orDefault(t.p.BodyTimeout, defaultBodyTimeout))
	}
	if t.body == nil && !t.whole {
		x.down.mustClose() // nobody asked the client for its body
	}
	if t.method == http.MethodHead && x.asked.method != http.MethodHead && bodyAllowed(r.Status) {
		r.ContentLength = 0 // of a body that was not asked for
	}
	waited := len(x.editors) > 0 || l.raced // the host's code may wait for what it likes
	err := x.writeHead(r)
	if !waited {
		x.now = l.headAt // nothing has waited since
	}
	switch {
	case isUnsendable(err): // and answered
		src.stopSending(t, false)
		x.down.detach()
		src.close()
		return
	case err != nil:
		err = &clientError{err}
	case len(r.filters) > 0:
		err = t.relayFiltered(src)
	default:
		err = t.relayBody(src)
	}
	if err == nil {
		// The client may wait for it before it goes on. With HTTP/2 it does not,
		// and the end of the stream could not go out with the head any more.
		if err = x.down.finish(src.trailers()); err == nil && t.body != nil && x.proto1x < 2 {
			err = x.down.flush()
		}
		if err != nil {
			err = &clientError{err}
		}
	}
	whole := src.stopSending(t, false)
	untouched := x.down.detach()
	if err == nil {
		if s, ok := src.(*h2Stream); ok {
			s.grpcOutcome(&t.leg.outcome)
		}
		src.release(untouched && whole && src.ended())
		return
	}
	if x.replied && !t.grpcCut(src, err) {
		x.down.abort()
	}
	t.cut(src, err)
	src.close()
}

// cut notes how a reply that had begun ended before its end.
func (t *attempt) cut(src source, err error) {
	x := t.x
	end := endOf(l4.ServerAborted, l4.PhaseData)
	o := &t.leg.outcome
	o.Class, o.Err = balance.Reset, err
	var ce *clientError
	var br *badReply
	var pe *panicError
	if c, ok := src.(*upConn); ok && c.pump != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		if perr := c.pump.clientError(); perr != nil { // which is what ended the wait
			err = &clientError{perr}
		}
	}
	f := src.end()
	switch {
	case errors.As(err, &pe):
		end.Cause, o.Class = l4.Internal, balance.ClientAborted
	case f.cutReason.Load() != nil:
		end.Cause = l4.ServerDown
	case f.interrupted.Load() || errors.As(err, &ce):
		end.Cause = l4.ClientAborted
		if errors.Is(err, os.ErrDeadlineExceeded) && !f.interrupted.Load() {
			end.Cause = l4.ClientTimeout
			err = t.lateWrite(err)
		}
		o.Class = balance.ClientAborted
	case errors.Is(err, os.ErrDeadlineExceeded):
		end.Cause = l4.ServerTimeout
		err = t.lateBody(time.Time{}, isStream(&src.reply().Header), err)
		o.Err = err
		o.Class = balance.Timeout
	case errors.As(err, &br):
		o.Class = balance.Protocol
	}
	if s, ok := x.down.(*standard); ok && end.Cause == l4.ClientAborted && s.writes.over() {
		end.Cause = l4.ClientTimeout
		err = t.lateWrite(errors.Join(os.ErrDeadlineExceeded, err))
	}
	x.Record.Termination, x.Record.Err = end, err
}

// relayBody passes the body on as it comes.
func (t *attempt) relayBody(src source) error {
	x := t.x
	c, _ := src.(*upConn)
	for direct := c != nil && c.left >= spliceMin; ; {
		if direct && !c.behind() {
			direct = false
			if err := t.relayDirect(c); err != nil {
				return err
			}
		}
		data, err := src.next()
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
			c.awaitBody(c.idleAt)
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

// relayFiltered passes the body on through filters. What they leave unread
// costs the connection.
func (t *attempt) relayFiltered(src source) error {
	body := src.reply().filter(&sourceBody{src: src})
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
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// sourceBody is the body of a source as a Reader.
type sourceBody struct {
	src  source
	held []byte // of the piece that next returned last
}

func (b *sourceBody) Read(p []byte) (int, error) {
	if len(b.held) == 0 {
		var err error
		if b.held, err = b.src.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, b.held)
	b.held = b.held[n:]
	return n, nil
}

// tunnel gives both connections to a relay after a 101, or a 2xx to CONNECT.
func (t *attempt) tunnel(c *upConn) {
	x := t.x
	if s, ok := x.down.(*standard); ok && !hijackable(s.w) {
		x.down.detach()
		c.close()
		t.leg.outcome.Class = balance.ClientAborted
		x.Record.Err = errNoHijack
		x.Error(http.StatusBadGateway, endOf(l4.Internal, l4.PhaseHeaders))
		return
	}
	if status := c.rep.Status; len(x.editors) > 0 {
		x.edit(&c.rep)
		c.rep.Status = status // what follows is a tunnel whatever an editor calls it
	}
	if c.rep.Status == http.StatusSwitchingProtocols {
		x.upgrade = c.protocol // of those that the client asked for
	}
	x.replied, x.Record.Status = true, c.rep.Status
	client, early, err := x.down.hijack(&c.rep)
	x.down.detach()
	if err != nil {
		c.close()
		x.Record.Termination, x.Record.Err = endOf(l4.ClientAborted, l4.PhaseData), err
		t.leg.outcome.Class = balance.ClientAborted
		return
	}
	defer c.close()
	defer client.Close()
	t.splice(c, client, early)
}

// splice relays an upgraded connection, what was read ahead first.
func (t *attempt) splice(c *upConn, client *l4.Conn, early []byte) {
	x := t.x
	_ = c.c.SetDeadline(time.Time{})
	limit := t.streamLimit()
	probe(c.c)
	probeClient(x)
	var err error
	if len(early) > 0 {
		_ = c.c.SetWriteDeadline(deadline(time.Now(), limit))
		_, err = c.c.Write(early)
		x.Record.BytesIn += int64(len(early))
	}
	if err == nil && c.in != nil {
		_ = client.SetWriteDeadline(deadline(time.Now(), limit))
		_, err = client.Write(c.in.B[c.pos:])
		x.Record.BytesOut += int64(len(c.in.B) - c.pos)
	}
	c.releaseInput()
	if err != nil {
		x.Record.Termination, x.Record.Err = endOf(l4.ServerAborted, l4.PhaseData), err
		return
	}
	_ = c.c.SetWriteDeadline(time.Time{})
	_ = client.SetWriteDeadline(time.Time{})
	name, _ := t.streamName("", -1)
	relayTunnel(x, client, c.c, name, limit)
}

// tunnels reports whether the connection is a tunnel now.
func (c *upConn) tunnels(method string) bool {
	return c.rep.Status == http.StatusSwitchingProtocols || method == http.MethodConnect && c.rep.Status/100 == 2
}
