// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4"
)

// A Proxy forwards exchanges to the servers of a pool. It is a native
// [Handler]: on the byte front it relays bytes, under any [http.Server] it
// works on (w, r), over HTTP/2 as well.
//
// Connection-specific fields are not forwarded (RFC 9110, section 7.6.1), path
// and query pass byte for byte, and a reply that is not valid HTTP becomes a
// 502. A failed connect is tried again on another server. A reply is relayed as
// it comes: received bytes are sent before the next read waits, so server-sent
// events need no setting, and gRPC only an Upstream whose Protocols allow HTTP/2.
//
// A gRPC call ends at its grpc-timeout, if that is before Timeout. Replies of the
// gateway itself, and calls that it has to cut, end with a grpc-status. A
// grpc-status that reports a failure of the server counts against it as a 5xx
// would. Calls are balanced one by one.
//
// If the Value of a server of the pool is an [http.Handler], it is called in this
// process.
//
// Timeout and TryTimeout are exact. HeaderTimeout, BodyTimeout and StreamTimeout are
// coarse, which saves a system call per request: each may take up to a half longer than
// set, most often a quarter, and never less.
//
// A proxy without an Upstream makes one, with connections of its own, so make it once and
// not for each request.
//
// The fields must not change once the proxy serves. Several proxies with
// different fields may share a Pool and an Upstream, which gives each route its
// own timeouts.
type Proxy struct {
	Pool     *balance.Pool
	Upstream *Upstream // connections to the servers; nil means one of its own

	Retry   Retry
	Hedge   Hedge   // zero means none
	Mirror  *Mirror // a copy of requests for other servers; nil means none
	Forward Forward // the fields that tell the server about the client

	// Via is the name that the proxy gives itself in the Via fields of requests
	// and replies (RFC 9110, section 7.6.3). Empty means no Via: the RFC requires
	// one, but it reveals the gateway to both sides, and none of the big proxies
	// sends it by default.
	Via string

	// Upgrades are the protocols to which a client may upgrade, as it names them, with
	// their version if it does ("TLS/1.3"); nil means "websocket" only, empty means none. A list replaces that, and must
	// name "websocket" too if it is to go on. Other requests for an upgrade are forwarded without it.
	// A 426 of a server goes on with the protocols that it requires, whichever they are.
	// In HTTP/2 an upgrade is an extended CONNECT (RFC 8441): clients of a [Server]
	// may send it, and servers that offer it in their SETTINGS receive it, whichever
	// version the client uses.
	Upgrades []string
	// Connect allows CONNECT over HTTP/1.1, and over HTTP/2 under a [Server] without
	// net/http middleware around (RFC 9113, section 8.5). It is forwarded to a server
	// of the pool, which is a proxy itself, and a 2xx opens a tunnel; on a side with
	// HTTP/2 the tunnel is a stream. By default CONNECT is answered 405. A Host that is
	// not the target is answered 400, but for a port 80 or 443 that it leaves out.
	Connect bool

	Timeout       time.Duration // of the whole exchange, from the head of the request to the end of the reply, including the queue and retries, but not of a tunnel; 0 or negative means none
	TryTimeout    time.Duration // of one try, from the choice of the server to the head of its reply; 0 or negative means none beyond the connect timeout and HeaderTimeout. A try that ends by it is repeated only if Retry.Classes names balance.Timeout
	HeaderTimeout time.Duration // until the head of a reply, from the end of the request; 0 means 60s, or StreamTimeout if that asks for a stream and StreamTimeout is longer; negative means none
	BodyTimeout   time.Duration // of each wait for the server in a body, in either direction; 0 means 60s, or StreamTimeout if that is a stream and StreamTimeout is longer; negative means none. Under an http.Server it also bounds each wait for the client in a request body, where 0 means 30s

	// StreamTimeout is how long a stream may be quiet in both directions. Streams
	// are server-sent events (replies of text/event-stream, and requests that
	// accept only that) and gRPC (content types that begin with application/grpc),
	// if the host has set no HeaderTimeout or BodyTimeout, and upgraded
	// connections and tunnels of CONNECT. A dead peer is detected sooner: by TCP
	// keep-alive, which streams turn on, and by PING in HTTP/2. 0 means 1h,
	// negative means none.
	StreamTimeout time.Duration

	checked
	// Logger gets one line for each request that failed because of a server or the
	// gateway, or whose reply was refused (Reply.Refuse), if there is no OnDone: under a [Server] without one and under an
	// [http.Server] of the host's. There are at most ten lines a second; the next
	// one says how many were left out. Nil means the Logger of the Server, or
	// slog.Default().
	Logger *slog.Logger

	Seed uint64 // for the random waits between tries; 0 means at random

	chance    chance
	failures  failureLog
	of        string // the type that has these fields; "" means Proxy
	once      sync.Once
	upstream  *Upstream
	latencies *latencies // for Hedge; nil if it has no Quantile
}

// ServeHTTP implements [http.Handler].
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) { ServeHTTP(p, w, r) }

// ServeExchange implements [Handler].
func (p *Proxy) ServeExchange(x *Exchange) {
	p.forward(x)
	p.tell(x)
}

func (p *Proxy) forward(x *Exchange) {
	p.once.Do(p.init)
	if !p.admit(x) {
		return
	}
	if bad := x.unsendable(); bad != nil {
		x.refuse(bad)
		return
	}
	x.Record.Pool = p.Pool.Name
	t := p.newAttempt(x)
	t.begin()
	defer p.putAttempt(t)
	if f := t.answer(); f != nil {
		t.failed(f)
		return
	}
	t.deliver()
	if t.try.lease.Server() != nil { // unless a reply was held back: then it is done
		t.try.done(t.try.outcome)
	}
}

func (p *Proxy) init() {
	if p.upstream = p.Upstream; p.upstream == nil {
		p.upstream = new(Upstream)
	}
	p.upstream.init()
	if q := p.Hedge.Quantile; q > 0 {
		p.latencies = &latencies{q: q}
	}
}

// newAttempt and putAttempt reuse attempts, so that an exchange does not allocate
// one.
func (p *Proxy) newAttempt(x *Exchange) *attempt {
	t, _ := p.upstream.attempts.Get().(*attempt)
	if t == nil {
		t = new(attempt)
	}
	t.p, t.x, t.up = p, x, p.upstream
	return t
}

func (p *Proxy) putAttempt(t *attempt) {
	if t.try.lease.Server() != nil {
		t.abandon() // a handler, an editor or a filter has panicked
	}
	t.end()
	*t = attempt{}
	p.upstream.attempts.Put(t)
}

// admit answers requests that are not forwarded, and reports whether x is.
func (p *Proxy) admit(x *Exchange) bool {
	switch x.Method {
	case http.MethodConnect:
		if !p.Connect || x.proto != 1 && !(x.proto > 1 && x.down.hijackable()) {
			return p.refuse(x, http.StatusMethodNotAllowed)
		}
	case http.MethodTrace:
		return p.refuse(x, http.StatusMethodNotAllowed)
	case http.MethodOptions:
		if v, ok := x.Header.Lookup("Max-Forwards"); ok {
			return p.countForwards(x, v)
		}
	}
	if x.upgrade != "" {
		if x.upgrade = p.upgrades(x.upgrade); x.upgrade == "" && x.wsKey != "" {
			return p.refuse(x, http.StatusNotImplemented) // RFC 8441: it cannot be sent without the protocol
		}
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
		return true // not a number: ignored
	}
	if n == 0 {
		h := MakeFields("Allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")
		x.Respond(http.StatusOK, &h, "")
		return false
	}
	x.Header.Set("Max-Forwards", formatInt(n-1))
	return true
}

// upgrades returns the protocols of a list to which the client may upgrade, in
// its order.
func (p *Proxy) upgrades(list string) string {
	if p.upgradable(list) { // the usual case: a single protocol
		return list
	}
	var allowed []string
	eachItem(list, func(item string) {
		if p.upgradable(item) {
			allowed = append(allowed, item)
		}
	})
	return strings.Join(allowed, ", ")
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
