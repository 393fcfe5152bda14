// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4"
)

// A Proxy forwards exchanges to the servers of a pool. It is a native
// [Handler]: on the byte front it relays bytes, under any [http.Server] it
// works on (w, r), over HTTP/2 as well.
//
// What belongs to one connection is not forwarded (RFC 9110, section 7.6.1),
// path and query pass byte for byte, and a reply that is not valid HTTP becomes
// a 502. A failed connect is tried again on another server.
//
// The fields must not change once the proxy serves. Several proxies with
// different fields may share a Pool and an Upstream: that is how a route gets
// timeouts of its own.
type Proxy struct {
	Pool     *balance.Pool
	Upstream *Upstream // connections to the servers; nil means one of its own

	Retry   Retry
	Forward Forward // how the server is told who the client is

	// Upgrades are the protocols that a client may change to; nil means
	// "websocket" only, empty means none. Other requests to change are
	// forwarded as if they had not asked.
	Upgrades []string
	// Connect allows CONNECT, which opens a tunnel to a server of the pool.
	Connect bool

	HeaderTimeout time.Duration // until the head of a reply, from the end of the request; 0 means 30s, negative none
	BodyTimeout   time.Duration // of a body, either way, that the server does not move on; 0 means 30s, negative none
	TunnelTimeout time.Duration // of an upgraded connection with no byte either way; 0 means 1h, negative none

	once     sync.Once
	upstream *Upstream
}

// Retry says when a request that failed is tried again on another server. A
// retry also needs the pool's retry budget, unless no connection could be made
// (balance.ConnectFailed), and a request that can be repeated:
// one of which nothing has reached a server, or whose method is idempotent
// (RFC 9110, section 9.2.2) and whose body, if any, is still at hand.
type Retry struct {
	Tries int // in all, the first one included; 0 means 2, negative or 1 means no retries

	// On lists the failures to retry; nil means those that prove that nothing
	// reached the server, and connections that ended without a reply.
	On []balance.Class
	// Statuses are replies to retry for; they are passed on once there are no
	// tries left.
	Statuses []int
}

// defaultTries is one retry: the limits of the others range from none to
// three.
const defaultTries = 2

// ServeHTTP implements [http.Handler].
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) { ServeHTTP(p, w, r) }

// ServeExchange implements [Handler].
func (p *Proxy) ServeExchange(x *Exchange) {
	p.once.Do(p.init)
	if !p.admit(x) {
		return
	}
	x.Record.Pool = p.Pool.Name
	t := attempt{p: p, x: x, up: p.upstream}
	t.req = t.up.pool.Get()
	t.begin()
	defer t.end()
	for try := 1; ; try++ {
		lease, err := p.Pool.Acquire(x.Context(), x.Balance)
		if err != nil {
			p.noServer(x, &t, err)
			return
		}
		s := lease.Server()
		x.Record.Server = s.Name()
		x.Record.Tries = try
		fail := t.run(s)
		if fail == nil {
			lease.Done(t.outcome)
			return
		}
		lease.Done(balance.Outcome{Class: fail.class, Err: fail.err, Latency: t.outcome.Latency, Status: fail.status})
		if !p.again(x, &t, try, fail) {
			t.failed(fail)
			return
		}
		x.Balance.Avoid(s)
	}
}

func (p *Proxy) init() {
	if p.upstream = p.Upstream; p.upstream == nil {
		p.upstream = new(Upstream)
	}
	p.upstream.init()
}

// admit answers what is not forwarded.
func (p *Proxy) admit(x *Exchange) bool {
	switch x.Method {
	case http.MethodConnect:
		if !p.Connect || x.proto1x != 1 {
			return p.refuse(x, http.StatusMethodNotAllowed)
		}
	case http.MethodTrace:
		return p.refuse(x, http.StatusMethodNotAllowed)
	case http.MethodOptions:
		if v, ok := x.Header.Lookup("Max-Forwards"); ok {
			return p.countForwards(x, v)
		}
	}
	if x.upgrade != "" && !p.upgradable(x.upgrade) {
		x.upgrade = ""
	}
	return true
}

func (p *Proxy) refuse(x *Exchange, status int) bool {
	x.down.mustClose()
	x.Error(status, endOf(l4.Denied, l4.PhaseRequest))
	return false
}

// countForwards implements Max-Forwards (RFC 9110, section 7.6.2).
func (p *Proxy) countForwards(x *Exchange, v string) bool {
	n, ok := parseLength(v)
	if !ok {
		return true // not a number: not ours to judge
	}
	if n == 0 {
		h := MakeFields("Allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")
		x.Respond(http.StatusOK, &h, "")
		return false
	}
	x.Header.Set("Max-Forwards", formatInt(n-1))
	return true
}

func (p *Proxy) upgradable(protocol string) bool {
	if p.Upgrades == nil {
		return equalFold(protocol, "websocket")
	}
	for _, u := range p.Upgrades {
		if equalFold(protocol, u) {
			return true
		}
	}
	return false
}

// noServer answers when the pool gave no server.
func (p *Proxy) noServer(x *Exchange, t *attempt, err error) {
	x.Record.Err = errors.Join(err, x.Record.Err)
	end := endOf(l4.ServerAborted, l4.PhaseConnect)
	switch {
	case x.Context().Err() != nil:
		t.clientLeft(l4.PhaseQueue)
		return
	case errors.Is(err, balance.ErrQueueFull):
		end = endOf(l4.Resource, l4.PhaseQueue)
	case errors.Is(err, balance.ErrQueueTimeout):
		end = endOf(l4.ServerTimeout, l4.PhaseQueue)
	}
	x.Error(http.StatusServiceUnavailable, end)
}

// again decides whether a failed try is repeated elsewhere.
func (p *Proxy) again(x *Exchange, t *attempt, try int, f *failure) bool {
	tries := p.Retry.Tries
	if tries == 0 {
		tries = defaultTries
	}
	if try >= tries || f.by == l4.ClientAborted || f.by == l4.Killed || !t.repeatable(f) || x.Context().Err() != nil {
		return false
	}
	if p.Retry.On != nil && !f.unsent {
		ok := false
		for _, c := range p.Retry.On {
			ok = ok || c == f.class
		}
		if !ok {
			return false
		}
	}
	// A refused connection cost no server any work, so trying elsewhere does not
	// multiply load: it is not the budget's business, which would be used up at
	// once when a server dies under load.
	if !t.retry.ok && f.class != balance.ConnectFailed {
		r, ok := p.Pool.TryRetry()
		if !ok {
			return false
		}
		t.retry.Retry, t.retry.ok = r, true
	}
	return true
}

// A failure is a try that gave the client nothing.
type failure struct {
	class  balance.Class
	status int // what the client is told
	by     l4.Cause
	phase  l4.Phase
	err    error
	unsent bool // nothing of the request reached the server
	quiet  bool // the connection ended before a byte of a reply
}

// attempt is the state of forwarding one exchange, over all its tries.
type attempt struct {
	p  *Proxy
	x  *Exchange
	up *Upstream

	req      *l4.Buffer // the request as it is sent, with its body if that was at hand
	whole    bool       // the body is in req, or there is none
	streamed bool       // some of the body has gone to a server
	outcome  balance.Outcome
	retry    struct {
		balance.Retry
		ok bool
	}
}

// begin puts the request into its buffer.
func (t *attempt) begin() {
	x := t.x
	b := appendRequest(t.req.B[:0], x, t.p)
	t.whole = x.ContentLength == 0 && len(x.filters) == 0
	if !t.whole && len(x.filters) == 0 && x.ContentLength > 0 && !x.expect &&
		x.ContentLength <= int64(cap(b)-len(b)) && x.down.bodyReady() {
		n := len(b)
		b = b[:n+int(x.ContentLength)]
		for n < len(b) {
			m, err := x.down.readBody(b[n:])
			if n += m; err != nil {
				break
			}
		}
		b = b[:n]
		t.whole = true
	}
	t.req.B = b
}

func (t *attempt) end() {
	t.up.pool.Put(t.req)
	if t.retry.ok {
		t.retry.Done()
	}
}

// repeatable reports whether the request can be sent again after f.
func (t *attempt) repeatable(f *failure) bool {
	if t.streamed {
		return false
	}
	return f.unsent || idempotent(t.x.Method)
}

func idempotent(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodPut, http.MethodDelete:
		return true
	}
	return false
}

// failed answers for the last failure.
func (t *attempt) failed(f *failure) {
	x := t.x
	x.Record.Err = errors.Join(x.Record.Err, f.err)
	if f.by == l4.ClientAborted && f.status == 0 {
		t.clientLeft(f.phase)
		return
	}
	if f.by == l4.ClientAborted || f.by == l4.ClientTimeout || f.by == l4.Denied {
		x.down.mustClose()
	}
	x.Error(f.status, endOf(f.by, f.phase))
}

// statusClientClosed is nginx's number for a client that left before its
// reply. It is never sent.
const statusClientClosed = 499

func (t *attempt) clientLeft(phase l4.Phase) {
	t.x.Record.Status = statusClientClosed
	t.x.Drop(endOf(l4.ClientAborted, phase))
}

// connectFailure classifies a failed dial.
func (t *attempt) connectFailure(err error) *failure {
	f := &failure{class: balance.ConnectFailed, status: http.StatusBadGateway, by: l4.ServerAborted, phase: l4.PhaseConnect, err: err, unsent: true}
	var te *tlsError
	switch {
	case t.x.Context().Err() != nil:
		f.class, f.by, f.status = balance.Canceled, l4.ClientAborted, 0
	case errors.Is(err, errConnectTimeout), errors.Is(err, context.DeadlineExceeded):
		f.class, f.by, f.status = balance.ConnectTimeout, l4.ServerTimeout, http.StatusGatewayTimeout
	case errors.As(err, &te):
		f.class = balance.TLSFailed
	}
	return f
}
