// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4"
)

// attempt is the state of forwarding one exchange, over all its tries. For a
// Proxy it delivers the reply downstream; a Transport returns it.
type attempt struct {
	p  *Proxy
	x  *Exchange
	up *Upstream

	req       *l4.Buffer // the request in HTTP/1 form, with its body if that was in memory
	whole     bool       // the body is in req, or there is none
	headLen   int        // length of req without the body
	body      *replay    // a streamed body; nil until it is first read
	stuck     bool       // a read of the body was interrupted: it cannot be read further
	refusable bool       // a server may refuse the request unprocessed
	tries     int
	deadline  time.Time       // of the whole exchange; zero means none
	byCall    bool            // deadline is that of the client's grpc-timeout
	distrust  *tlsError       // of the first server with an invalid certificate; nil if there was none
	method    string          // of the request as sent: it decides the framing of the server's reply
	forceOne  bool            // use HTTP/1, if allowed: the request asks for an upgrade
	extends   bool            // but use HTTP/2 if the server offers extended CONNECT
	login     bool            // it authenticates the connection
	use       usage           // what it needs from connections to servers
	asked     balance.Request // x.Balance before the first try
	lateCtx   lateContext     // of x
	try       try             // the current try, at the end the one with the reply
	trace     *tracer         // nil if no program looks
	mirroring *Mirror         // gets a copy at the end; nil means none
	retry     struct {
		balance.RetryPermit
		ok bool
	}
}

// room returns a buffer for the request. It is held until the reply comes, so it is a
// short one for a short head, unless a body may follow it.
func (t *attempt) room() *l4.Buffer {
	x := t.x
	if 0 < x.ContentLength && x.ContentLength <= headBuffer {
		return t.up.pool.Get()
	}
	n := len(x.Path) + len(x.Query) + shortBuffer/4 // for what is added
	for i := range x.Header.list {
		n += len(x.Header.list[i].Name) + len(x.Header.list[i].Value) + len(": \r\n")
	}
	switch {
	case n > headBuffer:
		return t.up.bulk.Get()
	case n > shortBuffer:
		return t.up.pool.Get()
	}
	return t.up.short.Get()
}

// begin writes the request into its buffer.
func (t *attempt) begin() {
	x, p := t.x, t.p
	t.req = t.room()
	b := appendRequest(t.req.B[:0], x, p)
	t.headLen, t.asked = len(b), x.Balance
	t.use = x.down.session(t.up.Reuse != ReuseAlways)
	t.login = x.Header.logsIn()
	t.forceOne = x.upgrade != "" || x.Method == http.MethodConnect || t.login
	t.extends = x.upgrade != "" && !t.login && isToken(x.upgrade)
	t.method = x.Method
	t.whole = x.ContentLength == 0 && len(x.filters) == 0
	if !t.whole && len(x.filters) == 0 && x.ContentLength > 0 && !x.expect &&
		x.ContentLength <= int64(cap(b)-len(b)) && x.down.bodyReady() && x.down.trailer() == nil {
		n := len(b)
		b = b[:n+int(x.ContentLength)]
		for n < len(b) {
			m, err := x.down.readBody(b[n:])
			if n += m; err != nil {
				break
			}
		}
		t.whole = n == len(b) // on an error it is streamed, which finds the error again
		b = b[:n]
	}
	if n := len(x.buffered); n > 0 && int64(n) == x.ContentLength && n <= cap(b)-len(b) {
		b, t.whole = append(b, x.buffered...), true
	}
	t.req.B = b
	if p.Timeout > 0 {
		t.deadline = x.Record.Start.Add(p.Timeout)
	}
	if x.grpc {
		t.boundByGRPC()
	}
	if p.Mirror != nil {
		p.Mirror.begin(t)
	}
}

func (t *attempt) end() {
	if t.mirroring != nil {
		t.mirroring.finish(t)
	}
	t.up.giveBack(t.req)
	t.giveShare()
}

// stream returns the request body from its beginning.
func (t *attempt) stream() *replay {
	if t.body == nil {
		limit := orDefault(t.p.BodyTimeout, defaultBodyTimeout)
		both := t.p.BodyTimeout == 0 && isGRPC(&t.x.Header)
		if both {
			limit = longer(limit, t.streamLimit())
		}
		t.x.down.boundBody(limit, both)
		if b := t.x.buffered; b != nil { // already in memory
			t.body = &replay{kept: b, limit: max(len(b), 1), err: io.EOF}
			return t.body
		}
		t.body = &replay{src: t.x.guardedBody(), limit: t.keepBytes(), left: t.x.ContentLength, past: t.toEnd(true)}
	}
	return t.body
}

// toEnd reports whether a body of known length is read to its end: HTTP/2 may have a
// trailer behind it, if the server can take one, and a program may have given more
// than it has said.
func (t *attempt) toEnd(trailer bool) bool {
	return trailer && t.x.proto > 1 || t.use.session != nil && t.use.session.program
}

// keepBytes returns how many bytes of the body to keep for another try.
func (t *attempt) keepBytes() int {
	n := 0
	r := &t.p.Retry
	if t.refusable || r.tries() > 1 && r.repeatable(t.x) {
		n = orDefault(r.BodyBytes, defaultBodyBytes)
	}
	if t.mirroring != nil {
		n = max(n, t.mirroring.bodyBytes())
	}
	if t.x.ContentLength > int64(n) {
		return 0
	}
	return n
}

// mayNeedBody reports whether the body may have to be sent again.
func (t *attempt) mayNeedBody() bool {
	return t.body != nil && !t.body.over.Load() && t.body.limit > 0 && (t.refusable || t.tries < t.p.Retry.tries())
}

// rewind makes the body ready to be sent again.
func (t *attempt) rewind() bool {
	if t.body == nil {
		return true
	}
	if t.x.down.rewindBody() {
		t.body, t.stuck = nil, false
		return true
	}
	return !(t.stuck && !t.body.complete()) && t.body.rewind()
}

// answer tries servers until one replies. Then it returns nil, and t.try has
// the reply and its lease.
func (t *attempt) answer() *failure {
	x, p := t.x, t.p
	t.lateCtx = lateContext{x}
	var ctx context.Context = &t.lateCtx
	if !t.deadline.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(x.Context(), t.deadline)
		defer cancel()
	}
	var last *failure
	for {
		lease, err := p.Pool.Acquire(ctx, x.Balance)
		if last != nil && errors.Is(err, balance.ErrNoServer) { // except those already tried
			x.Balance = t.asked
			lease, err = p.Pool.Acquire(ctx, x.Balance)
		}
		if err != nil {
			return t.noServer(err, last)
		}
		t.tries++
		x.Record.Tries = t.tries
		t.try = try{lease: lease}
		if p.Hedge.enabled() && t.hedgeable() {
			last = t.raceTries(ctx)
		} else {
			last = t.open(ctx, &t.try)
		}
		t.note(&t.try)
		if last == nil {
			return nil
		}
		s := t.try.lease.Server()
		t.try.done(balance.Outcome{Class: last.class, Err: last.err, Latency: t.try.outcome.Latency, Status: last.status})
		if last.distrust != nil && t.distrust == nil {
			t.distrust = last.distrust
		}
		if !t.again(last) {
			return last
		}
		x.Balance.Avoid(s)
	}
}

// done ends the lease.
func (l *try) done(o balance.Outcome) {
	lease, seen := l.lease, l.seen
	l.lease, l.seen = balance.Lease{}, nil
	lease.Done(o)
	if seen != nil {
		seen.Outcome = o
		seen.close(l)
	}
}

// abandon ends a reply that will not be relayed.
func (t *attempt) abandon() {
	l := &t.try
	if l.src != nil {
		l.src.stopSending(t, false)
		t.x.down.detach()
		l.src.close()
	}
	l.done(balance.Outcome{Class: balance.ClientAborted})
}

// note copies what is known of a try into the record.
func (t *attempt) note(l *try) {
	r := &t.x.Record
	r.Server, r.Reused = l.lease.Server().Name(), l.reused
	r.Persisted = l.lease.Preferred()
	r.Assigned, r.Connected, r.FirstByte = l.assigned, l.connected, l.firstByte
}

// open does one try, up to the head of the reply.
func (t *attempt) open(ctx context.Context, l *try) *failure {
	x := t.x
	s := l.lease.Server()
	start := x.Record.Start
	now := time.Now()
	l.assigned = reached(now.Sub(start))
	if len(x.observers) > 0 {
		t.show(l)
		now = time.Now()
	}
	if h, ok := s.Value().(http.Handler); ok {
		l.local, l.connected = h, l.assigned
		return nil
	}
	l.deadline = t.deadline
	if d := t.p.TryTimeout; d > 0 && (l.deadline.IsZero() || now.Add(d).Before(l.deadline)) {
		l.deadline = now.Add(d)
	}
	h := t.up.host(s)
	id, err := t.up.identify(x, s)
	if err != nil {
		return t.connectFailure(l, err)
	}
	if id != (identity{}) {
		now = time.Now() // the host's code has run
	}
	fresh := false
	for refusals, leavings := 0, 0; ; {
		t.trace.asks(h.key.addr)
		src, dialed, err := h.get(ctx, id, t, l, fresh)
		if err != nil {
			l.reused = false
			return t.connectFailure(l, err)
		}
		if l.reused = !dialed; t.trace != nil {
			nc, idleAt := src.netConn()
			t.trace.got(nc, !dialed, idleAt)
		}
		if dialed || src.shared() { // it may have waited for another request's dial
			now = time.Now()
		}
		l.connected = reached(now.Sub(start))
		f := t.exchange(l, src, now)
		if f == nil {
			return nil
		}
		switch {
		case f.by != l4.ServerAborted:
			return f
		case f.leaving && leavings < maxLeavings:
			leavings++
		case f.refused && refusals == maxRefusals:
			return f
		case f.refused:
			// This is not a failure: the request is sent again, whatever its method (RFC
			// 9113, section 8.7).
			refusals++
		case f.quiet && !dialed && !fresh:
			// A reused connection that ended without a byte of a reply was most likely
			// closed while we sent. That is not a fault of the server and does not count
			// as a try.
			fresh = true
		default:
			return f
		}
		if !t.repeatable(f) {
			return f
		}
		now = time.Now()
	}
}

// maxRefusals is how often a request is sent again to a server that has refused
// it unprocessed, before that counts as a failed try.
const maxRefusals = 3

// maxLeavings is how often a request is sent again because the server ended a connection as
// it does after some number of requests. Each time it has processed others, so the requests
// that share its connections all get through.
const maxLeavings = 100

// exchange sends the request and waits for the head of the reply.
func (t *attempt) exchange(l *try, src source, sent time.Time) *failure {
	if !t.hold(l, src) {
		src.close()
		return &failure{class: balance.Canceled, by: l4.ClientAborted, phase: l4.PhaseConnect, err: errRaceLost, unsent: true}
	}
	l.src = src // abandon closes it
	if l.seen != nil {
		l.seen.Version = src.version()
	}
	if err := src.roundTrip(t, l, sent); err != nil {
		f := src.end().failure(t.x, t.callLate(src, err))
		t.letGo(l, src)
		return f
	}
	now := time.Now()
	src.headCame(now)
	r := src.reply()
	if l.seen != nil {
		l.seen.Status = r.Status
	}
	l.headAt = now
	l.firstByte = reached(now.Sub(t.x.Record.Start))
	l.outcome = balance.Outcome{Status: r.Status, Latency: now.Sub(sent)}
	if r.Status >= 500 {
		l.outcome.Class = balance.StatusError
	}
	if t.x.grpc {
		grpcHead(r, &l.outcome)
	}
	if l.race == nil { // in a race: when it is over
		if f := t.badStatus(l, src); f != nil {
			return f
		}
	}
	if r.Status == http.StatusSwitchingProtocols && !t.switchAgreed(src) {
		t.letGo(l, src)
		return &failure{class: balance.Protocol, status: http.StatusBadGateway, by: l4.ServerAborted, phase: l4.PhaseHeaders, err: errors.New("l7: server switched to a protocol that was not requested")}
	}
	r.Server = l.lease.Server()
	if l.outcome.Class == balance.OK { // otherwise the body may be a stream, or a tunnel
		l.lease.Works(r.Status)
	}
	return nil
}

// hold registers the source to be interrupted if the client disconnects. False
// means that its try has already lost a race.
func (t *attempt) hold(l *try, src source) bool {
	if l.race != nil {
		return l.race.hold(l, src)
	}
	t.x.down.attach(src)
	return true
}

// letGo ends a try that has no reply to relay.
func (t *attempt) letGo(l *try, src source) {
	src.stopSending(t, t.mayNeedBody() && !src.end().interrupted.Load())
	if l.race != nil {
		l.race.drop(l)
	} else {
		t.x.down.detach()
	}
	src.close()
	l.src = nil
}

// badStatus is retryStatus for a reply of any status.
func (t *attempt) badStatus(l *try, src source) *failure {
	if len(t.p.Retry.Statuses) == 0 || l.outcome.Status < 400 {
		return nil
	}
	return t.retryStatus(l, src)
}

// retryStatus returns a reply as a failure if its status is to be retried.
func (t *attempt) retryStatus(l *try, src source) *failure {
	r := src.reply()
	for _, st := range t.p.Retry.Statuses {
		if st != l.outcome.Status {
			continue
		}
		pushback, ok := grpcPushback(r)
		if !ok {
			return nil
		}
		f := &failure{class: balance.StatusError, status: st, by: l4.ServerAborted, phase: l4.PhaseHeaders, err: errors.New("l7: server replied " + statusLine(st))}
		f.after = max(pushback, retryAfter(r.Header.Get("Retry-After"), time.Now()))
		keep := t.mayNeedBody()
		if t.body != nil && !keep && !t.x.down.rewindable() {
			return nil
		}
		sent := src.stopSending(t, keep) // before the body is used elsewhere
		if !t.mayRepeat(f) || !t.takeShare(f) {
			return nil
		}
		// Draining a short body saves the connection.
		src.expectBody(nil, bodyWait{limit: time.Second, stream: time.Second})
		clean := sent && drain(src)
		if t.x.down.detach() && clean {
			src.release(true)
		} else {
			src.close()
		}
		l.src = nil
		return f
	}
	return nil
}

// retryAfter parses a Retry-After: seconds or a date (RFC 9110, section
// 10.2.3). Anything else is 0.
func retryAfter(v string, now time.Time) time.Duration {
	if v == "" {
		return 0
	}
	if n, ok := parseLength(v); ok {
		return time.Duration(min(n, 1<<31)) * time.Second
	}
	if at, err := http.ParseTime(v); err == nil {
		return max(at.Sub(now), 0)
	}
	return 0
}

// switchAgreed reports whether the client asked for the protocol of a 101.
func (t *attempt) switchAgreed(src source) bool {
	c, asked := src.tunnel(t.method), t.x.upgrade
	if c == nil || asked == "" || c.switchedTo() == "" {
		return false
	}
	if t.x.wsKey != "" && src.reply().Header.Get("Sec-WebSocket-Accept") != acceptKey(t.x.wsKey) {
		return false
	}
	agreed := true // a list means one protocol on top of the other (RFC 9110, section 7.8)
	eachItem(c.switchedTo(), func(item string) { agreed = agreed && hasItem(asked, item) })
	return agreed
}
