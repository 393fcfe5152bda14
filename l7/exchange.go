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

// An Exchange is one request and its reply as they pass through the handlers.
// It is the same for both fronts: on the byte front of [Server] it is a view of
// the bytes that the client sent, and under any [http.Server] it wraps (w, r).
// A handler that has ServeExchange is native: it costs nothing extra on the
// byte front.
//
// The exported fields are the request as it will be forwarded; a handler changes
// them before it calls the next one. The reply is changed through
// [Exchange.OnReply]. Both are checked before they are sent: if a handler has
// written a value outside the grammar (a line end, a space in a path, a method
// that is not a token, a status below 200), the client gets 500, and the error
// of the record names the value. The framing of the reply follows the method
// that the client sent, not Method.
//
// An Exchange belongs to the goroutine that serves it and must not be kept once
// ServeExchange has returned; its strings may be kept.
type Exchange struct {
	Method string
	Scheme string // "http" or "https", as the client used
	Host   string // host or host:port, valid by RFC 9112, section 3.2; never empty in HTTP/1.1
	Path   string // as on the wire, never decoded or cleaned; "*" for OPTIONS *
	Query  string // as on the wire with its leading "?", or empty
	Header Fields

	// ContentLength is the length of the request body in bytes: 0 means no body,
	// -1 that the length is not known before the body has been read.
	ContentLength int64

	Remote netip.AddrPort // the other end of the connection, or the source in a PROXY header; zero if it is not an IP address
	Local  netip.AddrPort // our end
	Client netip.Addr     // the client: Remote's address, unless a trusted proxy named another
	TLS    *tls.ConnectionState

	// Balance is set by handlers to influence the choice of a server: Key is a hash
	// key, Prefer the name of a preferred server, Priority the class in the queue.
	Balance balance.Request

	// ErrorPage makes the header and body of error replies; nil means a line of text. It is not called
	// for gRPC. A middleware sets it for the handlers inside it. If it panics, the reply is a line of
	// text.
	ErrorPage func(x *Exchange, status int) (header *Fields, body string)

	// Record is the record of the exchange so far.
	Record Record

	asked     asked
	proto     int8 // minor version of HTTP/1, or 2 for HTTP/2
	upgrade   string
	wsKey     string // of an extended CONNECT: the key that we made and the server has to answer
	trailers  bool   // TE: trailers
	sensitive bool   // target and authority must enter no table of HTTP/2 (RFC 7541, section 7.1.3)
	lastOne   bool   // of its connection to the server: it is sent with Connection: close
	expect    bool   // Expect: 100-continue, not answered yet

	now      time.Time // the time as read after the last wait; zero if it has to be read again
	down     downstream
	editors  []ReplyEditor
	trailed  trailerEditor // of the reply's trailer; nil if there is none
	filters  []BodyFilter
	values   []value
	buffered []byte // the whole body of the request, nil if it is not in memory
	lent     *lent  // guards the bodies of http.Requests made of it; nil if there are none

	observers []TryObserver // of its tries

	holding *holding // how the reply of a server is held back; nil if it is not

	proxied *l4.ProxyHeader // accepted on the connection; nil if there was none
	ja4     string          // of the connection; "" if it was not made

	last    Handler // the last one that Serve has called
	cookie  Handler // the one whose cookie has set Balance.Prefer; nil if none has
	hedged  string  // name of the server that lost the race of a hedged request
	grpc    bool    // it is a gRPC call
	trusted bool    // the forwarding fields of the request are trusted
	rfc7239 bool    // they are Forwarded, not X-Forwarded
	replied bool    // the head of a final reply has been written
}

// An interrupter is work for a client that has to end when the client
// disconnects. Interrupt may be called at any time, by any goroutine, and does
// not wait.
type interrupter interface{ interrupt() }

// Context ends when the client disconnects or its connection is closed, and, on
// the standard front, when the request's context ends. If middleware of net/http ends
// the context that it has given an upgraded exchange, both connections are closed, not reset.
func (x *Exchange) Context() context.Context { return x.down.context() }

// Proto returns the HTTP version of the client's request, as major and minor.
func (x *Exchange) Proto() (major, minor int) {
	if x.proto > 1 {
		return int(x.proto), 0
	}
	return 1, int(x.proto)
}

// ProxyHeader returns the PROXY header that an [l4.AcceptProxy] has read from the
// client's connection. Its addresses are in Remote and Local; it may also have a unique
// id, the client's TLS, and so on. It is nil if there was none, or under an http.Server
// of the host's. It must not be changed.
func (x *Exchange) ProxyHeader() *l4.ProxyHeader { return x.proxied }

// JA4 returns the JA4 fingerprint of the client's TLS (see [l4.ClientHello.JA4]): if
// [Server.JA4] is set, or an [l4.TerminateTLS] has ended the TLS that has JA4 set. Else,
// and under an http.Server of the host's, it is empty.
func (x *Exchange) JA4() string { return x.ja4 }

// protoName returns the HTTP version of the client's request, as a status line has
// it.
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

// Upgrade returns the protocol to which the client asks to upgrade
// ("websocket"), or "".
func (x *Exchange) Upgrade() string { return x.upgrade }

// Request returns the request as net/http knows it, with the exchange's edits.
// It is built at each call, which costs much compared with the rest of an
// exchange on the byte front. Its Body is the request's body, to be read once.
func (x *Exchange) Request() *http.Request {
	r := x.down.request()
	if len(x.filters) > 0 {
		// The filters are the host's and may answer the exchange when they are read,
		// so the loan covers their input.
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
// What has been read is not forwarded any more.
func (x *Exchange) Body() io.Reader {
	return x.filtered(bodyReader{x})
}

// filtered returns body with the filters applied.
func (x *Exchange) filtered(body io.Reader) io.Reader {
	for _, f := range x.filters {
		body = f(body)
	}
	return body
}

// SetBody replaces the request body by one of length bytes; -1 means that the
// length is not known. What is left of the original body is discarded.
func (x *Exchange) SetBody(body io.Reader, length int64) {
	x.buffered = nil
	x.filters = append(x.filters[:0], func(io.Reader) io.Reader { return body })
	x.ContentLength = length
}

// setBuffered is SetBody for a body that is completely in memory, so that it
// can be sent any number of times. With a trailer the length is -1, since a
// trailer needs chunks.
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

// OnReply registers e to edit the head of the final reply, whether it comes
// from a server, a local answer, or a foreign handler. The editor registered
// last runs first, as middleware nests. Editors also see error replies.
func (x *Exchange) OnReply(e ReplyEditor) { x.editors = append(x.editors, e) }

// Replied reports whether the head of the final reply has been sent.
func (x *Exchange) Replied() bool { return x.replied }

// Respond answers the request locally. An empty body is sent as length 0; the body
// is not sent for HEAD. Header may be nil. If an exchange is answered
// twice, the first answer wins.
func (x *Exchange) Respond(status int, header *Fields, body string) {
	if x.replied {
		return
	}
	r := Reply{Status: status, ContentLength: int64(len(body)), Local: true}
	if header != nil {
		if r.Header = *header; len(x.editors) > 0 {
			r.Header = header.Clone() // the host may reuse it
		}
	}
	if status == http.StatusNotModified && body == "" {
		r.ContentLength = -1 // the length for a GET is not known
	}
	if x.Record.Termination.Cause == l4.Normal {
		x.Record.Termination = endOf(l4.Local, l4.PhaseRequest)
	}
	if x.writeHead(&r) != nil {
		return
	}
	if !x.bodiless(r.Status) {
		if len(r.filters) > 0 {
			if _, err := x.copyBody(r.filter(strings.NewReader(body))); err != nil {
				x.down.abort()
				return
			}
		} else {
			_ = x.writeBody(unsafeBytes(body))
		}
	}
	_ = x.down.finish(nil)
}

// Error answers with an error page: what ErrorPage makes, or the status and its
// text as a line of plain text. A gRPC call gets 200 and the gRPC status that
// its client would make of the HTTP status, without a page. End says for the record
// who ended the exchange, and when: a handler that refuses a request passes
//
//	l4.Termination{Cause: l4.Denied, Phase: l4.PhaseRequest}
//
// ([l4.Cause] and [l4.Phase] have the other constants.) Error does nothing once there
// is a reply.
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

// Drop ends the exchange without a reply: the client's connection is closed; on
// HTTP/2 the stream is reset. End is as in [Exchange.Error].
func (x *Exchange) Drop(end l4.Termination) {
	x.Record.Termination = end
	x.replied = true
	x.down.abort()
}

// mustReply answers 500 if no handler has replied.
func (x *Exchange) mustReply() {
	if !x.replied {
		x.misconfigured(fmt.Errorf("l7: %T returned without a reply: a handler must answer, or call the next one", x.last))
	}
}

// begin fills in the request's part of the record.
func (x *Exchange) begin(front Front) {
	r := &x.Record
	r.Front, r.Remote, r.Local, r.JA4 = front, x.Remote, x.Local, x.ja4
	r.Method, r.Host, r.Path, r.Query, r.Proto = x.Method, x.Host, x.Path, x.Query, x.protoName()
	x.grpc = x.isGRPC()
	x.asked = asked{x.Method, x.Scheme, x.Host, x.Path, x.Query, x.ContentLength != 0}
}

// end completes the record and calls hook with it. Hook may be nil, and may panic.
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

// An origin is what is known of a connection before any handler runs.
type origin struct {
	scheme        string
	remote, local netip.AddrPort
	tls           *tls.ConnectionState
	proxied       *l4.ProxyHeader
	ja4           string
}

// hedgedFor reports whether the reply comes from another server than that one
// only because the other was faster: then persistence stays with that server.
func (x *Exchange) hedgedFor(server string) bool { return server != "" && server == x.hedged }

// reset makes x ready for the next request on a connection of that origin. It
// clears everything that handlers have written into x.
func (x *Exchange) reset(o *origin) {
	x.clear()
	x.from(o)
}

// clear makes x empty, except for memory that it keeps.
func (x *Exchange) clear() {
	clear(x.editors)
	clear(x.filters)
	clear(x.values)
	header, down, editors, filters, values := x.Header, x.down, x.editors[:0], x.filters[:0], x.values[:0]
	*x = Exchange{} // in place: a literal with fields would be made elsewhere and copied
	x.Header, x.down, x.editors, x.filters, x.values = header, down, editors, filters, values
	x.Header.reset()
}

// origin returns what from has noted.
func (x *Exchange) origin() *origin {
	return &origin{x.Scheme, x.Remote, x.Local, x.TLS, x.proxied, x.ja4}
}

// from notes the origin of a request in an empty x.
func (x *Exchange) from(o *origin) {
	x.Scheme, x.Remote, x.Local, x.Client, x.TLS = o.scheme, o.remote, o.local, o.remote.Addr(), o.tls
	x.proxied, x.ja4 = o.proxied, o.ja4
}

// writeHead runs the editors and sends the head.
func (x *Exchange) writeHead(r *Reply) error {
	if err := x.prepare(r); err != nil {
		return x.instead(r, err)
	}
	return x.down.writeHead(r)
}

// prepare runs the editors, and returns why the reply must not be sent, if so.
func (x *Exchange) prepare(r *Reply) error {
	if err := x.edit(r); err != nil {
		return err
	}
	if bad := r.unsendable(); bad != nil {
		return bad
	}
	return nil
}

// instead answers in place of a reply that must not be sent.
func (x *Exchange) instead(r *Reply, err error) error {
	if bad, ok := err.(*unsendableError); ok {
		return x.replace(r, bad)
	}
	x.refuseReply(err)
	return err
}

// edit runs the editors once, last registered first. It returns an error if one of
// them has refused the reply; the remaining ones edit the reply that replaces it.
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
	x.noteGRPC(&r.Header)
	return nil
}

// refuseReply answers 502 in place of a reply that an editor has refused.
func (x *Exchange) refuseReply(err error) {
	x.replied = false
	x.Record.Err = errors.Join(x.Record.Err, err)
	x.Error(http.StatusBadGateway, endOf(l4.Denied, l4.PhaseHeaders)) // as in HAProxy's log: PH
}

func (x *Exchange) writeBody(p []byte) error {
	x.Record.BytesOut += int64(len(p))
	return x.down.writeBody(p)
}

// copyBody sends body to its end. Lost reports that the error is the client's, and not
// the body's.
func (x *Exchange) copyBody(body io.Reader) (lost bool, err error) {
	buf := make([]byte, 4<<10)
	for {
		n, err := body.Read(buf)
		if n > 0 {
			if werr := x.writeBody(buf[:n]); werr != nil {
				return true, werr
			}
		}
		if err == io.EOF {
			return false, nil
		}
		if err != nil {
			return false, err
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
