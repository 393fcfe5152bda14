// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/penstock-lb/penstock/l4"
)

// wrapping says whether a handler that is not native is the middleware of a Wrap, and
// what it wraps.
type wrapping uint8

const (
	wrapsNothing wrapping = iota
	wrapsForeign
	wrapsNative
)

// A downstream is the client's side of an exchange: a connection of HTTP/1 or a
// stream of HTTP/2 on the byte front, (w, r) on the standard front, the program
// that calls a Transport. It has three roles; code that needs only one of them
// takes only that. There are no type assertions on it: what callers need to know
// is a method.
type downstream interface {
	requestBody
	replyWriter
	client
}

// requestBody is the body of the request as the client sends it.
type requestBody interface {
	// readBody reads the body without its framing.
	readBody(p []byte) (int, error)
	// boundBody bounds each wait for the body from now on, if no Server does. With both
	// the reply's progress counts, too.
	boundBody(d time.Duration, both bool)
	// bodyReady reports whether the rest of the body can be read without
	// waiting for the client.
	bodyReady() bool
	// bodyMayPanic reports whether the body is the host's code.
	bodyMayPanic() bool
	// stopBody makes readBody return an error, now in another goroutine or at the
	// next call; resumeBody is called when that goroutine is done.
	stopBody()
	resumeBody()
	// pauseBody ends a read of the body in progress without losing any of it, and keeps
	// others from beginning until it is called again. False means that it cannot.
	pauseBody(on bool) bool
	// rewindBody restarts the body from its beginning, if that is possible.
	rewindBody() bool
	// rewindable reports whether rewindBody can work, as far as that is known.
	rewindable() bool
	// trailer returns the request's trailer once its body has been read.
	trailer() *Fields
}

// replyWriter takes the reply.
type replyWriter interface {
	// writeInterim sends a 1xx reply, or nothing if the client is HTTP/1.0.
	writeInterim(r *Reply) error
	// goOn asks a client that waits for a 100 (Continue) for its body, unless the reply
	// has begun. It is called before another goroutine reads the body, since that could
	// not know whether it has.
	goOn() error
	// writeHead sends the head of the final reply and fixes the framing of
	// what follows: r.ContentLength bytes, -1 meaning until finish.
	writeHead(r *Reply) error
	writeBody(p []byte) error
	flush() error
	// direct returns a directWriter if the next n bytes of the body may be written
	// to the connection as they are, and nil otherwise. Buffered bytes have then
	// been written.
	direct(n int64) directWriter
	// boundReply bounds each write of a relayed reply, if neither a Server nor the
	// host does; replyLate reports whether this bound has ended a write.
	boundReply(d time.Duration)
	replyLate() bool
	// finish ends the reply, with a trailer if there is one.
	finish(trailer *Fields) error
	// abort cuts the reply so that the client notices, or closes the connection if
	// there is no reply yet.
	abort()
	// serveForeign calls a handler that is not native.
	serveForeign(h http.Handler, wraps wrapping)
}

// directWriter writes a body without writeBody, straight to conn. sending
// renews the write deadline; sent reports how many bytes have been written.
type directWriter interface {
	conn() *l4.Conn
	sending()
	sent(n int64)
}

// client is the client of the exchange and its connection.
type client interface {
	context() context.Context
	request() *http.Request // as the client sent it, without the exchange's edits

	// attach registers u to be interrupted if the client disconnects before
	// detach, which reports whether u was not interrupted.
	attach(u interrupter)
	detach() bool
	// lost reports whether the client has ended the stream: reads and writes then
	// fail as on a closed connection.
	lost() bool
	// endedByHandler reports, once the context of an upgraded exchange has ended, whether
	// a handler around has ended it, and the client is still there.
	endedByHandler() bool
	// session returns the session of the exchange. Need makes one if there is none
	// yet; some clients never have one.
	session(need bool) usage

	// mustClose closes the connection after this exchange.
	mustClose()
	// hijack answers 101, or 2xx to CONNECT, with the fields of r. It returns the
	// connection, and the bytes that the client has sent after its request.
	hijack(r *Reply) (c *l4.Conn, early []byte, err error)
	// present reports whether the client is known to be connected. The context of
	// the exchange does not tell if middleware of net/http has made it.
	present() bool
	// hijackable reports whether hijack can work, as far as that is known.
	hijackable() bool
	// probe turns on TCP keep-alive, to detect a client that has died while it is quiet.
	probe()
	// parker returns the Parker of the client's connection, nil if there is none.
	parker() *l4.Parker

	// limits returns those of the l7.Server that received the request; ok is false
	// under another server.
	limits() (l clientLimits, ok bool)
	logger() *slog.Logger
	// observed reports whether there is an OnDone that gets the record.
	observed() bool
}

// clientLimits are the limits of a Server that also apply to the server's side;
// 0 means none.
type clientLimits struct {
	stream time.Duration // StreamTimeout
	write  time.Duration // SendTimeout
}

// unbounded is embedded in a downstream that needs no bounds from a Proxy.
type unbounded struct{}

func (unbounded) boundBody(time.Duration, bool) {}
func (unbounded) boundReply(time.Duration)      {}
func (unbounded) replyLate() bool               { return false }

// serverless is embedded in a downstream that has no Server.
type serverless struct{}

func (serverless) limits() (clientLimits, bool) { return clientLimits{}, false }
func (serverless) parker() *l4.Parker           { return nil }
func (serverless) probe()                       {}
func (serverless) lost() bool                   { return false }
func (serverless) endedByHandler() bool         { return false }

// unwritten is embedded in a downstream whose reply is not written to a client.
type unwritten struct{}

func (unwritten) writeHead(*Reply) error    { return nil }
func (unwritten) writeBody([]byte) error    { return nil }
func (unwritten) flush() error              { return nil }
func (unwritten) goOn() error               { return nil }
func (unwritten) direct(int64) directWriter { return nil }
func (unwritten) finish(*Fields) error      { return nil }
func (unwritten) abort()                    {}
func (unwritten) mustClose()                {}
func (unwritten) hijack(*Reply) (*l4.Conn, []byte, error) {
	return nil, nil, http.ErrNotSupported
}
