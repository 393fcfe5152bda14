// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptrace"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4"
)

// A Transport is an [http.RoundTripper] over the servers of a pool. It does for
// a program that calls other services what a [Proxy] does for the clients of a
// gateway. Pool and Upstream may be those of a proxy.
//
// The pool decides which server a request goes to, and Upstream whether that is
// in plain text or over TLS; host and scheme of the URL only say what the
// request claims. A request is retried as [Retry] says; a body is kept for that up
// to Retry.BodyBytes, or got anew from Request.GetBody. The lease of the server
// is given back when the body of the reply has been read to its end, or closed.
// The hooks of [net/http/httptrace] are called, PutIdleConn as with HTTP/1 only. Request.Close tells the
// server that the connection ends with the reply. A reply of 101 has a
// Body that is an [io.ReadWriteCloser].
//
// A server that fails, or replies early, ends the sending of the body by its Close, which
// has to end a Read in progress: RoundTrip, and Close of the reply's body, wait for that. A
// body that an HTTP/1 server has received is left behind instead, also in an
// httputil.ReverseProxy: its client may be silent for long.
//
// The host of a URL has to be ASCII. At most 16 interim replies come before a reply.
// With Expect: 100-continue, a body that the server has replied without is not sent, and
// the connection ends.
//
// Unlike [http.Transport] it adds neither User-Agent nor Accept-Encoding to a request,
// so a compressed body stays compressed, and it uses no proxy.
//
// An error is a [*TransportError]. A Read of the reply's body returns the context's error and its
// cause if that has ended it, and a [*TimeoutError] if a limit has. A panic of the program's code
// (a dialer, a policy, a hook) is logged and returned as an error too. The fields must not change
// once the transport is used; RoundTrip may be called by several goroutines at once.
type Transport struct {
	Pool     *balance.Pool
	Upstream *Upstream // connections to the servers; nil means one of its own

	Retry Retry
	Hedge Hedge // zero means none

	// Balance returns hints for the choice of a server, such as a hash key or a
	// preferred server. Nil means none.
	Balance func(*http.Request) balance.Request

	// [Proxy] says more on these.
	Timeout       time.Duration // of the whole exchange; 0 or negative means none
	TryTimeout    time.Duration // of one try, until the head of its reply; 0 or negative means none beyond the connect timeout and HeaderTimeout
	HeaderTimeout time.Duration // until the head of a reply; 0 means 60s, or StreamTimeout for a stream if that is longer; negative means none
	BodyTimeout   time.Duration // of each wait for the server in a body; 0 means 60s, or StreamTimeout for a stream if that is longer; negative means none
	StreamTimeout time.Duration // of a stream that is quiet in both directions, and of each Read and Write of a Body after 101; 0 means 1h, negative means none

	Seed uint64 // for the random waits between tries; 0 means at random

	OnDone func(*Record) // called when the reply's body has ended, or the request has failed; must not block or keep the record

	once    sync.Once
	wrong   error // what Check found
	proxy   Proxy // does the work
	session session
}

// A TransportError is the error of a request that got no reply.
type TransportError struct {
	Server      string         // name of the server tried last; "" if none was
	Tries       int            // requests begun
	Class       balance.Class  // of the last failure
	Termination l4.Termination // cause and phase of the end
	Err         error          // matches balance.ErrNoServer, ErrQueueFull, the context's error, ...
}

func (e *TransportError) Error() string {
	if e.Server == "" {
		return fmt.Sprintf("l7: no reply: %v", e.Err)
	}
	return fmt.Sprintf("l7: no reply from %s after %d tries (%v): %v", e.Server, e.Tries, e.Class, e.Err)
}

var _ net.Error = (*TransportError)(nil)

func (e *TransportError) Unwrap() error { return e.Err }

// Timeout reports whether a time limit was the reason, as in [net.Error].
func (e *TransportError) Timeout() bool {
	return e.Termination.Cause == l4.ServerTimeout || e.Termination.Cause == l4.ClientTimeout || errors.Is(e.Err, context.DeadlineExceeded)
}

// Temporary returns the same as Timeout. With it the error is a [net.Error].
func (e *TransportError) Temporary() bool { return e.Timeout() }

func (t *Transport) init() {
	t.wrong = t.Check()
	t.session.program = true
	t.proxy = Proxy{
		of: "Transport", Pool: t.Pool, Upstream: t.Upstream, Retry: t.Retry, Hedge: t.Hedge, Forward: ForwardNone,
		Timeout: t.Timeout, TryTimeout: t.TryTimeout, HeaderTimeout: t.HeaderTimeout, BodyTimeout: t.BodyTimeout, StreamTimeout: t.StreamTimeout,
		Seed: t.Seed,
	}
	t.proxy.once.Do(t.proxy.init)
}

// CloseIdleConnections closes the connections that no request uses, for
// [http.Client.CloseIdleConnections]. It affects all users of Upstream.
func (t *Transport) CloseIdleConnections() {
	t.once.Do(t.init)
	t.proxy.upstream.CloseIdle()
}

// RoundTrip implements [http.RoundTripper].
func (t *Transport) RoundTrip(req *http.Request) (_ *http.Response, err error) {
	t.once.Do(t.init)
	c := &caller{t: t, req: req, ctx: req.Context(), body: detached(req.Body)}
	defer func() {
		if p := recover(); p != nil {
			err = c.panicked(p)
		}
	}()
	if err = t.wrong; err == nil {
		err = c.ctx.Err()
	}
	if err == nil {
		err = c.parse()
	}
	if err != nil {
		c.closeBody()
		return nil, err
	}
	x := &c.x
	x.Record.Start = time.Now()
	x.begin(FrontTransport)
	x.Record.Pool = t.Pool.Name
	c.attempt = attempt{p: &t.proxy, x: x, up: t.proxy.upstream}
	if t.Balance != nil {
		x.Balance = t.Balance(req)
	}
	if bad := x.unsendable(); bad != nil {
		c.closeBody()
		return nil, bad
	}
	if trace := httptrace.ContextClientTrace(c.ctx); trace != nil {
		c.attempt.trace = &tracer{ClientTrace: *trace}
	}
	c.followCancel()
	c.attempt.begin()
	if c.longer() {
		return nil, c.failed(new(sourceEnd).failure(x, &clientError{errBodyTooLong}))
	}
	if f := c.attempt.answer(); f != nil {
		return nil, c.failed(f)
	}
	if h := c.attempt.try.local; h != nil {
		return c.serveLocal(h)
	}
	return c.response(), nil
}

// parse fills the exchange with the request.
func (c *caller) parse() error {
	req, x := c.req, &c.x
	switch {
	case req.URL == nil:
		return errors.New("l7: request without URL")
	case req.URL.Scheme != "http" && req.URL.Scheme != "https":
		return fmt.Errorf("l7: scheme %q is not HTTP", req.URL.Scheme)
	case req.Method == http.MethodConnect:
		return errors.New("l7: CONNECT is not for a Transport")
	}
	x.down = c
	x.Method, x.Scheme, x.proto = cmpOr(req.Method, http.MethodGet), req.URL.Scheme, 1
	if !isToken(x.Method) {
		return fmt.Errorf("l7: invalid method %q", req.Method)
	}
	if err := x.setTarget(req.URL.RequestURI()); err != nil {
		return err
	}
	if x.Host = cmpOr(req.Host, req.URL.Host); !validHost(x.Host) {
		return fmt.Errorf("l7: malformed host %q", x.Host)
	}
	x.ContentLength = req.ContentLength
	switch {
	case req.Body == nil || req.Body == http.NoBody:
		x.ContentLength = 0
	case req.ContentLength == 0:
		x.ContentLength = -1
	}
	return c.parseHeader()
}

// parseHeader lists the fields sorted by name.
func (c *caller) parseHeader() error {
	req, x := c.req, &c.x
	f := framing{length: -1}
	if err := checkTrailer(req.Trailer); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(req.Header)) {
		if err := checkField("header", name, req.Header[name]); err != nil {
			return err
		}
		k := kindOf(name)
		for _, v := range req.Header[name] {
			fd := Field{Name: name, Value: trimOWS(v), kind: k, checked: true}
			if k == kindContentLength || k == kindTransferEncoding || k == kindHost {
				continue // the Request has fields for them
			}
			if err := checkAnnounced(fd); err != nil {
				return err
			}
			if k == kindOther || k == kindForwarded {
				fd.kind = kindOther // set by the program
				x.Header.list = append(x.Header.list, fd)
			} else if err := f.field(&x.Header, fd); err != nil {
				return err
			}
		}
	}
	if f.upgrade && x.ContentLength == 0 {
		x.upgrade = f.protocol.join()
	}
	c.noKeep = req.Close || f.close
	x.lastOne = c.noKeep
	x.trailers, c.trails = f.trailers, len(req.Trailer) > 0 && x.ContentLength != 0
	x.expect = f.expect && x.ContentLength != 0
	if c.trails && !x.Header.Has("Trailer") { // left out over HTTP/1 if the length is known
		x.Header.list = append(x.Header.list, Field{Name: "Trailer", Value: strings.Join(slices.Sorted(maps.Keys(req.Trailer)), ", "), kind: kindTrailer})
	}
	return nil
}

// checkField returns an error for a field of a part that must not be sent.
func checkField(part, name string, values []string) error {
	if !isToken(name) {
		return fmt.Errorf("l7: invalid %s field name %q", part, name)
	}
	for _, v := range values {
		if !validValue(v) {
			return fmt.Errorf("l7: invalid %s field value for %q", part, name)
		}
	}
	return nil
}

// checkTrailer is checkField for a trailer and its names.
func checkTrailer(h http.Header) error {
	for _, name := range slices.Sorted(maps.Keys(h)) {
		if err := checkField("trailer", name, h[name]); err != nil {
			return err
		}
		if forbiddenTrailer(name) {
			return fmt.Errorf("l7: field %q must not be in a trailer", name)
		}
	}
	return nil
}

// checkAnnounced is checkTrailer for names that the program announces by itself.
func checkAnnounced(f Field) (err error) {
	if f.kind == kindTrailer {
		eachItem(f.Value, func(name string) { err = cmp.Or(err, checkTrailer(http.Header{name: nil})) })
	}
	return err
}

// failed ends a request without a reply.
func (c *caller) failed(f *failure) error {
	r := &c.x.Record
	r.Termination, r.Err = endOf(f.by, f.phase), f.err
	err := &TransportError{Server: r.Server, Tries: r.Tries, Class: f.class, Termination: r.Termination, Err: f.err}
	if ended := c.ended(); ended != nil {
		err.Err = ended
	}
	c.settle()
	return err
}

// panicked ends a request in which the program's code panicked: a picker, a
// dialer, a TLS callback.
func (c *caller) panicked(p any) error {
	err := error(recovered(c.logger(), p, "Transport", "path", c.x.Path))
	if c.attempt.x == nil { // it had not begun
		c.closeBody()
		return err
	}
	if c.attempt.try.lease.Server() != nil {
		c.attempt.abandon()
	}
	f := &failure{phase: l4.PhaseRequest, err: err}
	f.panicked()
	return c.failed(f)
}

// settle ends the request: it closes the body, releases the buffers and completes the
// record.
func (c *caller) settle() {
	c.closeBody()
	c.attempt.end()
	c.x.end(c.t.OnDone)
	if c.stop != nil {
		c.stop()
	}
}

// response makes the response of the reply.
func (c *caller) response() *http.Response {
	src, req := c.attempt.try.src, c.req
	r := src.reply()
	resp := &http.Response{
		StatusCode: r.Status, Status: statusLine(r.Status), Request: req, TLS: src.tlsState(),
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: make(http.Header, len(r.Header.list)), ContentLength: r.ContentLength, Close: src.closes(),
	}
	if src.version() == "2.0" {
		resp.Proto, resp.ProtoMajor, resp.ProtoMinor = "HTTP/2.0", 2, 0
	}
	if !bodyAllowed(r.Status) && req.Method != http.MethodHead {
		resp.ContentLength = 0 // a Response of another length cannot be written, as a proxy does
	}
	c.x.Record.Status = r.Status
	for i := range r.Header.list {
		if fd := &r.Header.list[i]; fd.kind == kindTrailer {
			eachItem(fd.Value, func(name string) {
				if isToken(name) && !forbiddenTrailer(name) {
					if resp.Trailer == nil {
						resp.Trailer = make(http.Header)
					}
					resp.Trailer[http.CanonicalHeaderKey(name)] = nil
				}
			})
		}
	}
	addFields(resp.Header, &r.Header)
	delete(resp.Header, "Trailer") // its names are in resp.Trailer
	if protocols := r.requires(); protocols != "" {
		resp.Header.Set("Connection", "Upgrade")
		resp.Header.Set("Upgrade", protocols)
	}
	if r.ContentLength >= 0 {
		resp.Header.Set("Content-Length", formatInt(r.ContentLength))
	}
	if u := src.tunnel(req.Method); u != nil {
		resp.Header.Set("Connection", "Upgrade")
		resp.Header.Set("Upgrade", u.switchedTo())
		resp.Body = newTunnelBody(c, u)
		return resp
	}
	if r.ContentLength < 0 && !src.ended() && src.chunked() {
		resp.TransferEncoding = []string{"chunked"}
	}
	src.expectBody(nil, c.attempt.bodyWait())
	b := &replyBody{c: c, resp: resp, turn: make(chan struct{}, 1)}
	resp.Body = b
	if src.ended() { // no body: the trailer is known, too
		b.end(nil)
		resp.Body = http.NoBody
	}
	return resp
}

// Check returns what is wrong with t, its pool and its upstream.
// [Transport.RoundTrip] calls it at the first request.
func (t *Transport) Check() error { return checkAll(t) }

func (t *Transport) check(c *checks) {
	c.Need("Transport.Pool", t.Pool, "must be the pool of servers")
	c.in("Transport.Pool", t.Pool)
	c.in("Transport.Upstream", t.Upstream)
	c.in("Transport.Retry", t.Retry)
	c.in("Transport.Hedge", t.Hedge)
}
