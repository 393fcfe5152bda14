// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"encoding/binary"
	"fmt"
	"net/http"
	"time"

	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l7/internal/kept"
)

// ForwardAuth asks a service whether a request may pass, as Traefik's ForwardAuth,
// nginx' auth_request and Envoy's ext_authz over HTTP do. The question is a GET
// without a body: for Target, with the Host of the request, the fields that Fields
// names, and X-Forwarded-Method, -Proto, -Host, -Uri and -For, which say what is
// asked about. A reply of 2xx lets the request pass. One of 3xx or 4xx goes to the
// client as it is, with its redirect, its cookies and its body. Anything else, or none
// in time, is a failure: the client gets 503, unless Open lets it pass.
//
// What the service is told is what the servers get: put a [Normalize] before it,
// and a [TrustForwarded], which says who the client is. In a field that Fields or
// ToRequest names, other spellings ("_" for "-") do not reach the servers.
//
// [Record.Decision] says what was decided, and Record.Err, a [*ForwardAuthError],
// why the service failed.
type ForwardAuth struct {
	// Service answers the question: a Proxy as a rule, whose pool, retries and
	// timeouts count. Handlers before it may change the question: an EditHeader that
	// sets X-Original-URI from X-Forwarded-Uri, for a service that was made for nginx;
	// a Rewrite, for another host.
	Service http.Handler

	Target string // path and query that the service is asked for; "" means "/"

	// Fields are the request fields that the service sees; nil means Authorization
	// and Cookie, empty means none. A list replaces these two and is not added to them.
	Fields []string

	// ToRequest are fields of an allowing reply that the request gets. What the client
	// sent under these names is removed in any case.
	ToRequest []string

	// ToClient are fields of an allowing reply that the reply to the client gets: lines
	// of Set-Cookie are added, others take the place of what the server has said.
	ToClient []string

	UserField string // of an allowing reply, which names the user for Record.User; "" means none

	Timeout time.Duration // of the question as a whole; 0 means 10s, negative means none
	Open    bool          // lets requests pass while the service fails, without fields of its

	// KeepFor is how long an allowing reply counts for further requests; 0 or negative
	// means none: each request is asked about. Requests are alike if all of Fields is, and
	// what Key returns. A reply with Set-Cookie that is passed on is not kept, nor is a
	// refusal. What the service says in Cache-Control does not matter.
	KeepFor time.Duration

	// Key is what a decision depends on beside the Fields, such as ByHost returns;
	// without one a request is asked about. Nil means all that the service is told:
	// method, scheme, host, path and query, and the client.
	Key func(x *Exchange) (key string, ok bool)

	MaxKept   int // replies; 0 means 10000, negative means none
	KeptBytes int // that they take in all; 0 means 16 MiB, negative means none

	BodyBytes int // of a refusal; a longer one is a failure; 0 means 64 KiB, negative means none: a refusal with a body is a failure

	Refuse http.Handler // answers those that the service refuses; nil passes its reply on
	Next   http.Handler

	checked
	kept kept.Table[*allowance]
}

// An allowance is what is used of an allowing reply.
type allowance struct {
	request  [][]string // values by the index in ToRequest
	toClient []Field
	user     string
}

// ServeExchange implements [Handler].
func (h *ForwardAuth) ServeExchange(x *Exchange) {
	h.ownFields(x)
	var room [512]byte
	var key []byte
	keyed := false
	if h.KeepFor > 0 {
		if key, keyed = h.key(x, room[:0]); keyed {
			if a, ok := h.kept.Get(key, x.Record.Start, h.limits()); ok { // spares a reading of the clock, a quarter of what this costs
				h.pass(x, a, "ForwardAuth: allowed, kept")
				return
			}
		}
	}
	q, err := h.ask(x)
	switch {
	case x.Context().Err() != nil:
		x.Drop(endOf(l4.ClientAborted, l4.PhaseRequest))
	case err != nil:
		h.failed(x, q, err)
	case q.reply.Status >= 300:
		h.refuse(x, q)
	default:
		a, size, lasting := h.allowance(&q.reply.Header)
		if keyed && lasting {
			h.kept.Put(key, a, size, time.Now().Add(h.KeepFor), h.limits())
		}
		h.pass(x, a, "ForwardAuth: allowed")
	}
}

// ServeHTTP implements [http.Handler].
func (h *ForwardAuth) ServeHTTP(w http.ResponseWriter, r *http.Request) { ServeHTTP(h, w, r) }

func (h *ForwardAuth) limits() kept.Limits {
	return kept.Limits{Max: orDefault(h.MaxKept, 10_000), Bytes: orDefault(h.KeptBytes, 16<<20)}
}

// fields returns the names of what the service sees.
func (h *ForwardAuth) fields() []string {
	if h.Fields == nil {
		return []string{"Authorization", "Cookie"}
	}
	return h.Fields
}

// ownFields removes what a server could take for a field that the service has
// decided by, but for the lines that the service sees.
func (h *ForwardAuth) ownFields(x *Exchange) {
	for _, name := range h.Fields { // the default has no other spelling, and may be in no trailer
		x.Header.ownField(name)
		for i := range x.Header.list {
			if n := x.Header.list[i].Name; len(n) == len(name) && n != name && alike(n, name) && !equalFold(n, name) {
				x.Header.DelFunc(func(n, _ string) bool { return alike(n, name) && !equalFold(n, name) })
				break
			}
		}
	}
}

// key appends all that a decision depends on, each part with its length.
func (h *ForwardAuth) key(x *Exchange, b []byte) ([]byte, bool) {
	if h.Key != nil {
		k, ok := h.Key(x)
		if !ok {
			return nil, false
		}
		b = appendPart(b, k)
	} else {
		host, proto := x.claimed()
		for _, s := range [...]string{x.Method, proto, x.Host, host, x.Path, x.Query} {
			b = appendPart(b, s)
		}
		at := len(b)
		b = x.Client.AppendTo(append(b, 0))
		b[at] = byte(len(b) - at)
	}
	for _, name := range h.fields() {
		at := len(b)
		b = append(b, 0, 0, 0, 0)
		n := uint32(0)
		for i := range x.Header.list {
			if fd := &x.Header.list[i]; fd.named(name) {
				b = appendPart(b, fd.Value)
				n++
			}
		}
		binary.BigEndian.PutUint32(b[at:], n)
	}
	return b, true
}

func appendPart(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// pass lets the request through with what the service has said.
func (h *ForwardAuth) pass(x *Exchange, a *allowance, decision string) {
	x.Record.Decide(decision)
	for i, name := range h.ToRequest {
		switch values := a.request[i]; len(values) {
		case 0:
			x.Header.Del(name)
		case 1:
			x.Header.Set(name, values[0])
		default:
			x.Header.Del(name)
			for _, v := range values {
				x.Header.Add(name, v)
			}
		}
	}
	if a.user != "" {
		x.Record.User = a.user
	}
	if len(a.toClient) > 0 {
		x.OnReply(a)
	}
	Serve(h.Next, x)
}

// EditReply implements [ReplyEditor].
func (a *allowance) EditReply(_ *Exchange, r *Reply) {
	for i := range a.toClient {
		if fd := &a.toClient[i]; !fd.named("Set-Cookie") {
			r.Header.Del(fd.Name)
		}
	}
	for i := range a.toClient {
		r.Header.Add(a.toClient[i].Name, a.toClient[i].Value)
	}
}

// allowance takes what is used from an allowing reply. Size is what it takes in
// memory; lasting is false if it must not count for another request.
func (h *ForwardAuth) allowance(f *Fields) (a *allowance, size int, lasting bool) {
	a = &allowance{user: f.Get(h.UserField)}
	size, lasting = len(a.user), true
	if len(h.ToRequest) > 0 {
		a.request = make([][]string, len(h.ToRequest))
	}
	for i, name := range h.ToRequest {
		for v := range f.Values(name) {
			a.request[i] = append(a.request[i], v)
			size += 32 + len(v)
		}
		size += 24
	}
	for _, name := range h.ToClient {
		for v := range f.Values(name) {
			a.toClient = append(a.toClient, Field{Name: name, Value: v})
			size += 64 + len(v)
			lasting = lasting && !equalFold(name, "Set-Cookie")
		}
	}
	return a, size, lasting
}

// refuse passes the refusal of the service on.
func (h *ForwardAuth) refuse(x *Exchange, q *question) {
	x.Record.Decide("ForwardAuth: refused")
	x.Record.Termination = endOf(l4.Denied, l4.PhaseRequest)
	switch {
	case h.Refuse != nil:
		Serve(h.Refuse, x)
	case x.grpc:
		x.Error(q.reply.Status, x.Record.Termination)
	default:
		x.Respond(q.reply.Status, &q.reply.Header, string(q.body))
	}
}

// failed goes on, or not, without the service.
func (h *ForwardAuth) failed(x *Exchange, q *question, err error) {
	x.Record.Err = err
	if h.Open {
		h.pass(x, &allowance{request: make([][]string, len(h.ToRequest))}, "ForwardAuth: open, the service failed")
		return
	}
	x.Record.Decide("ForwardAuth: the service failed")
	end := q.x.Record.Termination
	if !end.Cause.AtFault() {
		end.Cause = l4.ServerAborted
	}
	x.Error(http.StatusServiceUnavailable, endOf(end.Cause, l4.PhaseRequest))
}

// Check returns what is wrong with h, its service and its handlers.
func (h *ForwardAuth) Check() error { return checkAll(h) }

func (h *ForwardAuth) check(c *checks) {
	c.Need("ForwardAuth.Service", h.Service, "must be the handler to ask: a Proxy to the service")
	c.in("ForwardAuth.Service", h.Service)
	path, query := splitTarget(h.Target)
	c.prefix("ForwardAuth.Target", path)
	c.If(path == "" && query != "" || !all(query, isTargetByte), "ForwardAuth.Target", h.Target, "must begin with a slash, and be as in a request")
	c.fieldNames("ForwardAuth.Fields", h.Fields)
	c.fieldNames("ForwardAuth.ToRequest", h.ToRequest)
	c.fieldNames("ForwardAuth.ToClient", h.ToClient)
	c.name("ForwardAuth.UserField", h.UserField, true)
	c.optional("ForwardAuth.Refuse", h.Refuse)
	c.next("ForwardAuth.Next", h.Next)
}

// fieldNames adds a mistake for each name of a list that is not one of a field which
// handlers may read and set.
func (c *checks) fieldNames(field string, names []string) {
	for i, name := range names {
		at := fmt.Sprintf("%s[%d]", field, i)
		c.name(at, name, false)
		c.If(kindOf(name).owned(), at, name, "must not be a field of the connection or of framing: no handler sees it")
	}
}
