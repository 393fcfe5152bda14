// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/penstock-lb/penstock/l4"
)

// A downstream is the client's side of an exchange: a connection of HTTP/1 or a
// stream of HTTP/2 on the byte front, (w, r) on the standard front, the program
// that calls a Transport. It has three roles; who needs one of them only takes
// that. What must be asked of it is a method: nobody looks behind the interface.
type downstream interface {
	requestBody
	replyWriter
	client
}

// requestBody is the body of the request as the client sends it.
type requestBody interface {
	// readBody reads the body, its framing taken off.
	readBody(p []byte) (int, error)
	// boundBody bounds each wait for the body from now on, where no Server does.
	boundBody(d time.Duration)
	// bodyReady reports whether the rest of the body can be read without
	// waiting for the client.
	bodyReady() bool
	// bodyMayPanic reports whether the body is code of the host's.
	bodyMayPanic() bool
	// stopBody makes a readBody under way, by another goroutine, or to come
	// return an error; resumeBody follows when that goroutine is done.
	stopBody()
	resumeBody()
	// rewindBody has the body begin anew, if that is possible.
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
	// writeHead sends the head of the final reply and fixes the framing of
	// what follows: r.ContentLength bytes, -1 meaning until finish.
	writeHead(r *Reply) error
	writeBody(p []byte) error
	flush() error
	// direct returns a way around writeBody, if the next n bytes of the body may
	// be written to the connection as they are, and nil otherwise; what was
	// gathered has been written then.
	direct(n int64) directWriter
	// boundReply bounds each write of a relayed reply, where neither a Server
	// nor the host does; replyLate reports whether that has ended one.
	boundReply(d time.Duration)
	replyLate() bool
	// finish ends the reply, with a trailer if there is one.
	finish(trailer *Fields) error
	// abort makes the reply look cut to the client, or, without one, closes
	// the connection.
	abort()
	// serveForeign has a handler that is not native answer. Wraps says that there
	// is a native one inside.
	serveForeign(h http.Handler, wraps bool)
}

// directWriter writes a body past writeBody: to conn, whose write deadline is
// renewed by sending; sent says how many bytes have been written.
type directWriter interface {
	conn() *l4.Conn
	sending()
	sent(n int64)
}

// client is who sent the request, and the connection that it came by.
type client interface {
	context() context.Context
	request() *http.Request // as the client sent it, without the exchange's edits

	// attach has u interrupted if the client goes away before detach, which
	// reports whether u is untouched.
	attach(u interrupter)
	detach() bool
	// lost reports whether a stream was ended by its client: to what reads and
	// writes it that looks as if its connection had been cut.
	lost() bool
	// session returns the session of the exchange. There may be none as long as
	// nobody has asked for one to be made, and there may be none at all.
	session(need bool) usage

	// mustClose has the connection end with this exchange.
	mustClose()
	// hijack answers 101, or 2xx to CONNECT, with the fields of r and gives the
	// connection away, with the bytes that the client has sent behind its
	// request.
	hijack(r *Reply) (c *l4.Conn, early []byte, err error)
	// present reports whether the client is known to be there although the
	// context of the exchange, which a handler of net/http around has made, may
	// have ended.
	present() bool
	// hijackable reports whether hijack can work, as far as that is known.
	hijackable() bool
	// probe has TCP find out whether the client is there while it is quiet.
	probe()
	// parker returns what waits for the connection of a Server, nil if nothing does.
	parker() *l4.Parker

	// limits returns those of the Server that the request came in by; ok is
	// false if that is another.
	limits() (l clientLimits, ok bool)
	logger() *slog.Logger
	// observed reports whether an OnDone gets the record.
	observed() bool
}

// clientLimits are those of a Server that matter to the server's side; 0 means
// none.
type clientLimits struct {
	stream time.Duration // StreamTimeout
	write  time.Duration // SendTimeout
}

// unbounded is part of a downstream that needs no bounds of a Proxy's.
type unbounded struct{}

func (unbounded) boundBody(time.Duration)  {}
func (unbounded) boundReply(time.Duration) {}
func (unbounded) replyLate() bool          { return false }

// serverless is part of a downstream that no Server has.
type serverless struct{}

func (serverless) limits() (clientLimits, bool) { return clientLimits{}, false }
func (serverless) parker() *l4.Parker           { return nil }
func (serverless) probe()                       {}
func (serverless) lost() bool                   { return false }

// unwritten is part of a downstream whose reply is not written to a client.
type unwritten struct{}

func (unwritten) writeHead(*Reply) error    { return nil }
func (unwritten) writeBody([]byte) error    { return nil }
func (unwritten) flush() error              { return nil }
func (unwritten) direct(int64) directWriter { return nil }
func (unwritten) finish(*Fields) error      { return nil }
func (unwritten) abort()                    {}
func (unwritten) mustClose()                {}
func (unwritten) hijack(*Reply) (*l4.Conn, []byte, error) {
	return nil, nil, http.ErrNotSupported
}
