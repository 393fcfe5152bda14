// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4"
)

// An Exchange is one request and its reply on their way through the handlers.
// It is the same for both fronts: the byte front of [Server], where it is a
// view of the bytes the client sent, and any [http.Server], where it wraps
// (w, r). A handler that has ServeExchange is native: it costs nothing extra
// on the byte front.
//
// The exported fields are the request as it will be forwarded; a handler
// changes them before it calls the next one. The reply is changed through
// [Exchange.OnReply]. Both are checked before they are sent: where a handler has
// written what is not of the grammar (a line end, a space in a path, a method
// that is no token, a status below 200), the client gets 500, and the error of
// the record says which value it was. The framing of the reply follows the
// method that the client sent, not Method.
//
// An Exchange belongs to the goroutine that serves it and must not be kept
// once ServeExchange has returned; its strings may be.
type Exchange struct {
	Method string
	Scheme string // "http" or "https", as the client spoke
	Host   string // host or host:port, valid by RFC 9112, section 3.2; never empty in HTTP/1.1
	Path   string // as on the wire, never decoded or cleaned; "*" for OPTIONS *
	Query  string // as on the wire with its leading "?", or empty
	Header Fields

	// ContentLength is the length of the request body in bytes: 0 means there
	// is none, -1 that it is not known before it has been read.
	ContentLength int64

	Remote netip.AddrPort // the other end of the connection, or of what a PROXY header says; zero if that is no IP address
	Local  netip.AddrPort // our end
	Client netip.Addr     // who is behind it: Remote's address, unless a trusted proxy named another
	TLS    *tls.ConnectionState

	// Balance is what the handlers know about the choice of a server: a hash
	// key, a preferred server, a class in the queue.
	Balance balance.Request

	// ErrorPage makes the header and body of error replies; nil means a line of
	// text. It is not asked for calls of gRPC. A middleware sets it for what is inside it. It may panic: the reply is
	// a line of text then.
	ErrorPage func(x *Exchange, status int) (header *Fields, body string)

	// Record holds what is known of the exchange so far.
	Record Record

	asked    asked
	proto    int8 // minor version of HTTP/1, or 2 for HTTP/2
	upgrade  string
	wsKey    string // of an extended CONNECT: the key of ours that the server has to answer
	trailers bool   // TE: trailers
	lastOne  bool   // over its connection to the server, which is told
	expect   bool   // Expect: 100-continue, not answered yet

	now      time.Time // the clock as read when something last waited; zero if it has to be read again
	down     downstream
	editors  []ReplyEditor
	filters  []BodyFilter
	values   []value
	buffered []byte // the whole body of the request, if that is at hand; nil if it is not
	lent     *lent  // of the bodies of requests that were made of it; nil if there are none

	proxied *l4.ProxyHeader // that was accepted on the connection; nil if none was

	last    Handler // that Serve has called last
	cookie  Handler // whose cookie has chosen Balance.Prefer; nil if none has
	hedged  string  // the server that was slower than the one that answers
	grpc    bool    // it is a call of gRPC
	trusted bool    // the forwarding fields of the request are to be believed
	rfc7239 bool    // and they are Forwarded, not X-Forwarded
	replied bool    // the head of a final reply has been written
}

// An interrupter is work for a client that has to end when the client goes
// away. Interrupt may be called at any time, by any goroutine, and does not
// wait.
type interrupter interface{ interrupt() }

// Context ends when the client is gone, the server is cut, or, on the
// standard front, when the request's context does.
func (x *Exchange) Context() context.Context { return x.down.context() }

// Proto returns the version the client spoke, as major and minor.
func (x *Exchange) Proto() (major, minor int) {
	if x.proto > 1 {
		return int(x.proto), 0
	}
	return 1, int(x.proto)
}

// ProxyHeader returns the PROXY header that an [l4.AcceptProxy] has taken off the
// client's connection, with what it tells beyond the addresses, which Remote and Local
// are: a unique id, the client's TLS, and so on. It is nil if there was none, or if the
// connection is one of an http.Server of the host's. It must not be changed.
func (x *Exchange) ProxyHeader() *l4.ProxyHeader { return x.proxied }

// protoName returns the version the client spoke, as a status line has it.
func (x *Exchange) protoName() string {
	switch x.proto {
	case 0:
		return "HTTP/1.0"
	case 1:
		return "HTTP/1.1"
	case 2:
		return "HTTP/2.0"
	}
	return "HTTP/3.0"
}

// Upgrade returns the protocol that the client asks to change to
// ("websocket"), or "".
func (x *Exchange) Upgrade() string { return x.upgrade }

// Request returns the request as net/http knows it, with the exchange's edits.
// It is built at each call and is costly beside the rest of an exchange on the
// byte front; its Body is the request's body, to be read once.
func (x *Exchange) Request() *http.Request {
	r := x.down.request()
	if len(x.filters) > 0 {
		// They are the host's, and may answer the exchange as they are read: what
		// is lent is what they read.
		in := &http.Request{Body: io.NopCloser(bodyReader{x})}
		x.lend(in)
		x.applyTo(r, in.Body)
		return r
	}
	x.applyTo(r, nil)
	x.lend(r)
	return r
}

// Body returns the request body, filtered by what [Exchange.FilterBody] added.
// Reading it uses it up: it is not forwarded any more.
func (x *Exchange) Body() io.Reader {
	return x.filtered(bodyReader{x})
}

// filtered returns body behind the filters.
func (x *Exchange) filtered(body io.Reader) io.Reader {
	for _, f := range x.filters {
		body = f(body)
	}
	return body
}

// SetBody replaces the request body by one of length bytes, -1 meaning as long
// as it turns out to be. What is left of the original body is discarded.
func (x *Exchange) SetBody(body io.Reader, length int64) {
	x.buffered = nil
	x.filters = append(x.filters[:0], func(io.Reader) io.Reader { return body })
	x.ContentLength = length
}

// setBuffered is SetBody for a body that is there, all of it, and can be sent
// any number of times. A trailer can go on only behind chunks.
func (x *Exchange) setBuffered(body []byte) {
	length := int64(len(body))
	if f := x.down.trailer(); f != nil && f.Len() > 0 {
		length = -1
	}
	x.SetBody(bytes.NewReader(body), length)
	x.buffered, x.expect = body, false
}

// A BodyFilter changes a body as it streams by.
type BodyFilter func(io.Reader) io.Reader

// FilterBody has f change the request body on its way to the server. The
// length of the body is unknown from then on.
func (x *Exchange) FilterBody(f BodyFilter) {
	x.buffered = nil
	x.filters = append(x.filters, f)
	if x.ContentLength != 0 {
		x.ContentLength = -1
	}
}

// bodyReader reads the request body as the client sent it.
type bodyReader struct{ x *Exchange }

func (b bodyReader) Read(p []byte) (int, error) { return b.x.down.readBody(p) }

// OnReply has e edit the head of the final reply, wherever that comes from: a
// server, a local answer, or a foreign handler. The editor registered last
// runs first, as middleware nests. It also sees error replies.
func (x *Exchange) OnReply(e ReplyEditor) { x.editors = append(x.editors, e) }

// Replied reports whether the head of the final reply has been sent.
func (x *Exchange) Replied() bool { return x.replied }

// Respond answers the request locally. A nil or empty body is sent as length
// 0; the body is not sent for HEAD. Header may be nil. Of two answers to one
// exchange the first wins.
func (x *Exchange) Respond(status int, header *Fields, body string) {
	if x.replied {
		return
	}
	r := Reply{Status: status, ContentLength: int64(len(body)), Local: true}
	if header != nil {
		if r.Header = *header; len(x.editors) > 0 {
			r.Header = header.Clone() // it may be a constant of the host's
		}
	}
	if status == http.StatusNotModified && body == "" {
		r.ContentLength = -1 // what GET would have got is not known
	}
	if x.Record.Termination.Cause == l4.Normal {
		x.Record.Termination = endOf(l4.Local, l4.PhaseRequest)
	}
	if x.writeHead(&r) != nil {
		return
	}
	if !x.bodiless(r.Status) {
		if len(r.filters) > 0 {
			if x.copyBody(r.filter(strings.NewReader(body))) != nil {
				x.down.abort()
				return
			}
		} else {
			_ = x.writeBody(unsafeBytes(body))
		}
	}
	_ = x.down.finish(nil)
}

// Error answers with an error page: what ErrorPage makes, or the status and
// its text as a line of plain text. A call of gRPC gets 200 and the status of
// gRPC that its client would make of it, without a page. End says who caused it,
// and when, for the record. It does nothing once there is a reply.
func (x *Exchange) Error(status int, end l4.Termination) {
	if x.replied {
		return
	}
	x.Record.Termination = end
	if x.grpc {
		x.grpcError(grpcCode(status), statusLine(status))
		return
	}
	if x.ErrorPage != nil {
		if h, body, ok := x.errorPage(status); ok {
			x.Respond(status, h, body)
			return
		}
	}
	h := MakeFields("Content-Type", "text/plain; charset=utf-8")
	x.Respond(status, &h, statusLine(status)+"\n")
}

// Drop ends the exchange without a reply: the client's connection is closed,
// on HTTP/2 the stream is reset.
func (x *Exchange) Drop(end l4.Termination) {
	x.Record.Termination = end
	x.replied = true
	x.down.abort()
}

// mustReply answers in place of a handler that did not.
func (x *Exchange) mustReply() {
	if !x.replied {
		x.misconfigured(fmt.Errorf("l7: %T returned without a reply: every way through a handler must answer, or go on to the next one", x.last))
	}
}

// begin notes in the record what is known of the request.
func (x *Exchange) begin(front Front) {
	r := &x.Record
	r.Front, r.Remote, r.Local = front, x.Remote, x.Local
	r.Method, r.Host, r.Path, r.Query, r.Proto = x.Method, x.Host, x.Path, x.Query, x.protoName()
	x.grpc = x.isGRPC()
	x.asked = asked{x.Method, x.Scheme, x.Host, x.Path, x.Query}
}

// end closes the record and hands it on. Hook may be nil, and may panic.
func (x *Exchange) end(hook func(*Record)) {
	if hook == nil {
		return
	}
	x.Record.Total = time.Since(x.Record.Start)
	defer func() {
		if p := recover(); p != nil {
			recovered(x.down.logger(), p, "OnDone", "path", x.Record.Path)
		}
	}()
	hook(&x.Record)
}

// An origin is what a connection says of itself, before any handler does.
type origin struct {
	scheme        string
	remote, local netip.AddrPort
	tls           *tls.ConnectionState
	proxied       *l4.ProxyHeader
}

// hedgedFor reports whether the reply comes from another server than that one
// only because it was faster: whoever was with it stays with it.
func (x *Exchange) hedgedFor(server string) bool { return server != "" && server == x.hedged }

// reset makes x ready for the next request on a connection of that origin.
// Nothing that a handler has written into x stays.
func (x *Exchange) reset(o *origin) {
	clear(x.editors)
	clear(x.filters)
	clear(x.values)
	*x = Exchange{
		Scheme: o.scheme, Remote: o.remote, Local: o.local, Client: o.remote.Addr(), TLS: o.tls,
		Header: x.Header, down: x.down, proxied: o.proxied,
		editors: x.editors[:0], filters: x.filters[:0], values: x.values[:0],
	}
	x.Header.reset()
}

// writeHead runs the editors and sends the head.
func (x *Exchange) writeHead(r *Reply) error {
	if err := x.edit(r); err != nil {
		x.refuseReply(err)
		return err
	}
	if bad := r.unsendable(); bad != nil {
		return x.replace(r, bad)
	}
	return x.down.writeHead(r)
}

// edit runs the editors once, last registered first. It returns an error if one of
// them has refused the reply: those behind it are for what takes its place.
func (x *Exchange) edit(r *Reply) error {
	x.replied = true
	for i := len(x.editors) - 1; i >= 0; i-- {
		if x.editors[i].EditReply(x, r); r.refused != nil {
			err := r.refused
			x.editors, r.refused = x.editors[:i], nil
			return err
		}
	}
	x.editors = x.editors[:0]
	x.Record.Status = r.Status
	return nil
}

// refuseReply answers in the place of a reply that an editor has refused.
func (x *Exchange) refuseReply(err error) {
	x.replied = false
	x.Record.Err = errors.Join(x.Record.Err, err)
	x.Error(http.StatusBadGateway, endOf(l4.ServerAborted, l4.PhaseHeaders))
}

func (x *Exchange) writeBody(p []byte) error {
	x.Record.BytesOut += int64(len(p))
	return x.down.writeBody(p)
}

// copyBody sends what there is to read.
func (x *Exchange) copyBody(body io.Reader) error {
	buf := make([]byte, 4<<10)
	for {
		n, err := body.Read(buf)
		if n > 0 {
			if werr := x.writeBody(buf[:n]); werr != nil {
				return werr
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

// A Key names a value of type T that handlers of one exchange share. Use the
// address of a package-level or long-lived Key.
type Key[T any] struct{ _ byte }

type value struct{ key, v any }

// Set gives the value to x.
func (k *Key[T]) Set(x *Exchange, v T) {
	for i := range x.values {
		if x.values[i].key == any(k) {
			x.values[i].v = v
			return
		}
	}
	x.values = append(x.values, value{k, v})
}

// Get returns the value of x and whether it was set.
func (k *Key[T]) Get(x *Exchange) (v T, ok bool) {
	for i := range x.values {
		if x.values[i].key == any(k) {
			return x.values[i].v.(T), true
		}
	}
	return v, false
}
