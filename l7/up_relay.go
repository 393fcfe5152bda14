// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"bytes"
	"cmp"
	"context"
	"io"
	"net/http"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4"
)

// deliver relays the reply to the client.
func (t *attempt) deliver() {
	l := &t.try
	if l.local != nil {
		t.serveLocal(l)
		return
	}
	r := l.src.reply()
	if v := t.p.Via; v != "" {
		r.Header.Add("Via", l.src.version()+" "+v)
	}
	if c := l.src.tunnel(t.method); c != nil {
		t.tunnel(l.src, c)
		return
	}
	l.src.expectBody(t.x, t.bodyWait())
	t.relay(l.src)
}

// serveLocal calls a member of the pool that is a handler of this process.
func (t *attempt) serveLocal(l *try) {
	if b := t.readBody(); b != nil {
		t.x.SetBody(b, t.x.ContentLength)
	}
	t.x.OnReply(answeredBy{l})
	if l.seen != nil {
		for name, value := range l.seen.Header.All() {
			t.x.Header.Set(name, value)
		}
	}
	Serve(l.local, t.x)
	l.outcome = balance.Outcome{Status: t.x.Record.Status}
	if t.x.Record.Status >= 500 {
		l.outcome.Class = balance.StatusError
	}
}

// answeredBy sets the server of a reply that a member of this process makes,
// for reply editors, and reports the first byte to the pool.
type answeredBy struct{ try *try }

func (a answeredBy) EditReply(_ *Exchange, r *Reply) {
	r.Server = a.try.lease.Server()
	if r.Status < 500 {
		a.try.lease.Works(r.Status)
	}
}

// readBody returns the request body from its beginning if part of it has been
// read, and nil if none has.
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
	x, l := t.x, &t.try
	r := src.reply()
	x.down.boundReply(orDefault(t.p.BodyTimeout, defaultBodyTimeout))
	if !t.whole {
		t.endEarly(src)
	}
	if t.method == http.MethodHead && x.asked.method != http.MethodHead && bodyAllowed(r.Status) {
		r.ContentLength = 0 // the reply to a HEAD has no body, but the client expects one
	}
	var held *ahead
	if t.holds(src) {
		if held = t.holdReply(src); held == nil {
			return // it is answered
		}
		defer held.give()
	}
	waited := len(x.editors) > 0 || l.raced || held != nil // the host's code may have waited
	err := x.prepare(r)
	if err == nil {
		err = x.down.writeHead(r)
	} else { // a reply of our own depends on how far the body has been read
		src.stopSending(t, false)
		err = x.instead(r, err)
	}
	if !waited {
		x.now = l.headAt // nothing has waited since
	}
	switch {
	case isReplaced(err): // and so answered
		whole := src.stopSending(t, false)
		untouched := x.down.detach()
		src.expectBody(nil, bodyWait{})
		src.release(untouched && whole && src.received() && drain(src)) // without a wait
		return
	case err != nil:
		err = &clientError{err}
	case held != nil:
		err = t.relayAhead(src, held)
	case len(r.filters) > 0:
		err = t.relayFiltered(src, &sourceBody{src: src})
	default:
		err = t.relayBody(src)
	}
	if err == nil {
		// An HTTP/1 client may wait for the head before it continues. In HTTP/2 it
		// does not, and flushing would send the head without the end of the stream.
		if err = x.down.finish(x.behind(r.Server, src.trailers())); err == nil && t.body != nil && x.proto < 2 {
			err = x.down.flush()
		}
		if err != nil {
			err = &clientError{err}
		}
	}
	whole := src.stopSending(t, false)
	untouched := x.down.detach()
	if err == nil {
		src.judge(&t.try.outcome)
		src.release(untouched && whole && src.ended())
		return
	}
	err = t.callLate(src, err)
	if x.replied && !t.grpcCut(src, err) {
		x.down.abort()
	}
	t.cut(src, err)
	src.close()
}

// drain discards the body of a reply that is not relayed, unless it is long, and reports
// whether that was all: the connection can be used again then.
func drain(src source) bool {
	for n := 0; !src.ended() && n < maxUnread; {
		p, err := src.next()
		if n += len(p); err != nil {
			break
		}
	}
	return src.ended()
}

// endEarly prepares for a reply that comes before the request body has been sent. If it
// is clear that the client's connection ends behind it, its head says so (RFC 9112,
// section 9.6). It is not as long as server and client may go on, each in its direction,
// and a body that a handler has set in place of the client's says nothing of the client.
func (t *attempt) endEarly(src source) {
	if t.body == nil { // the client was not asked for its body
		t.x.down.mustClose()
		return
	}
	sending := src.sending()
	src.reply().unread = !sending
	if sending && (src.closes() || src.received()) && t.x.asked.body && t.x.buffered == nil {
		t.x.down.mustClose()
	}
}

// cut records why a reply that had begun ended early.
func (t *attempt) cut(src source, err error) {
	x, o := t.x, &t.try.outcome
	class, by := src.end().blame(err)
	err = src.end().cutError(err)
	if by == l4.ServerTimeout {
		err = t.lateBody(time.Time{}, isStream(&src.reply().Header), err)
	}
	o.Class, o.Err = class, err
	if by == l4.ClientTimeout {
		err = t.lateWrite(err)
	}
	end := endOf(by, l4.PhaseData)
	if end.Cause == l4.ClientAborted && x.down.replyLate() {
		end.Cause = l4.ClientTimeout
		err = t.lateWrite(err)
	}
	x.Record.Termination, x.Record.Err = end, err
}

// relayBody relays the body as it comes.
func (t *attempt) relayBody(src source) error {
	x := t.x
	for tried := false; ; {
		var err error
		if !tried {
			if tried, err = src.splice(x.down); err != nil {
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

// relayFiltered relays the body through filters. If they leave bytes unread,
// the connection is closed.
func (t *attempt) relayFiltered(src source, from io.Reader) error {
	body := src.reply().filter(from)
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
	held []byte // the rest of the piece that next returned last
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

// tunnel relays between both connections after a 101, or a 2xx to CONNECT.
func (t *attempt) tunnel(src source, server serverTunnel) {
	x, r := t.x, src.reply()
	if !x.down.hijackable() {
		x.down.detach()
		src.close()
		t.try.outcome.Class = balance.ClientAborted
		x.Record.Err = errNoHijack
		x.Error(http.StatusBadGateway, endOf(l4.Internal, l4.PhaseHeaders))
		return
	}
	if status := r.Status; len(x.editors) > 0 {
		if err := x.edit(r); err != nil {
			x.down.detach()
			src.close()
			x.refuseReply(err)
			return
		}
		r.Status = status // a tunnel follows, whatever an editor has set
	}
	if r.Status == http.StatusSwitchingProtocols {
		x.upgrade = server.switchedTo() // one of those that the client asked for
	}
	x.replied, x.Record.Status = true, r.Status
	client, early, err := x.down.hijack(r)
	x.down.detach()
	if err != nil {
		src.close()
		x.Record.Termination, x.Record.Err = endOf(l4.ClientAborted, l4.PhaseData), err
		t.try.outcome.Class = balance.ClientAborted
		return
	}
	defer src.close()
	defer client.Close()
	t.join(server, client, early)
}

// join relays an upgraded connection, beginning with the bytes that were read ahead.
func (t *attempt) join(tunnel serverTunnel, client *l4.Conn, early []byte) {
	x, server := t.x, tunnel.conn()
	_ = server.SetDeadline(time.Time{})
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(x.Context()))
	defer cancel(nil)
	told := make(chan struct{})
	untold := context.AfterFunc(x.Context(), func() {
		defer close(told)
		cause := context.Cause(x.Context())
		if x.down.endedByHandler() {
			cause = &endedError{cause}
		}
		cancel(cause)
	})
	defer func() {
		if !untold() {
			<-told // it uses x
		}
	}()
	tunnel.onCut(func(reason string) { cancel(&cutError{reason}) })
	limit := t.streamLimit()
	probe(server)
	x.down.probe()
	var err error
	stop := context.AfterFunc(ctx, func() {
		_ = server.SetWriteDeadline(past)
		_ = client.SetWriteDeadline(past)
	})
	bound := func(c *l4.Conn) {
		_ = c.SetWriteDeadline(deadlineIn(time.Now(), limit))
		if ctx.Err() != nil { // seen here, or the deadline of stop is in force
			_ = c.SetWriteDeadline(past)
		}
	}
	if len(early) > 0 {
		bound(server)
		_, err = server.Write(early)
		x.Record.BytesIn += int64(len(early))
	}
	gone := tunnel.takeEarly(func(p []byte) error {
		if err != nil {
			return err
		}
		bound(client)
		x.Record.BytesOut += int64(len(p))
		_, err := client.Write(p)
		return err
	})
	if err = cmp.Or(err, gone); err != nil && ctx.Err() == nil {
		x.Record.Termination, x.Record.Err = endOf(l4.ServerAborted, l4.PhaseData), err
		return
	}
	stop()
	_ = server.SetWriteDeadline(time.Time{})
	_ = client.SetWriteDeadline(time.Time{})
	name, _ := t.streamName("", -1)
	relayTunnel(ctx, x, client, server, name, limit)
}
