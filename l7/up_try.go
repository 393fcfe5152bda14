// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"crypto/tls"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4"
)

// A try is a lease on a server, and the request and the reply there. Once it
// has succeeded, either local or src is set.
type try struct {
	lease balance.Lease
	local http.Handler // a member of the pool in this process
	src   source
	race  *race    // with another try; nil if this one is alone
	raced bool     // there was another try, and it had to wait for it
	seen  *seenTry // what observers have been told; nil if there are none

	deadline  time.Time // until the head of the reply; zero means none
	reused    bool
	assigned  time.Duration
	connected time.Duration
	firstByte time.Duration
	headAt    time.Time // when the head arrived
	outcome   balance.Outcome
}

// A source is a reply from a server, over a connection of HTTP/1 or a stream of
// HTTP/2, in three roles. One goroutine at a time uses it; interrupt may be
// called by any. There are no type assertions on it: what callers need to know
// is a method.
type source interface {
	requestSender
	replyReader
	serverConn
}

// requestSender sends the request.
type requestSender interface {
	// roundTrip sends the request and waits for the head of the final reply.
	roundTrip(t *attempt, l *try, now time.Time) error
	// sending reports whether the request body is still being sent.
	sending() bool
	// stopSending ends the sending of the request body and reports whether the
	// whole body had been sent. With keep, it waits for a read in progress, so
	// that the rest can be read later.
	stopSending(t *attempt, keep bool) bool
}

// replyReader reads the reply.
type replyReader interface {
	reply() *Reply
	version() string // of HTTP: "1.1" or "2.0"
	// tunnel returns the connection as a tunnel if the reply, to a request of that
	// method, opens one, and nil otherwise.
	tunnel(method string) serverTunnel

	// expectBody is called before the first next. Waits are bounded by w. If x is
	// not nil, its buffered reply is flushed before each wait.
	expectBody(x *Exchange, w bodyWait)
	// received reports whether the whole rest of the body is here, as far as that is known.
	received() bool
	// chunked reports whether the body is chunked, for the Response of a Transport.
	chunked() bool
	// closes reports whether the connection ends with the reply.
	closes() bool
	// next returns the next piece of the body, valid until the next call, and
	// io.EOF at the end of a complete one.
	next() ([]byte, error)
	// splice moves the rest of a long body to the client inside the kernel, if
	// both connections allow it. It is called before each next until tried is
	// true.
	splice(to replyWriter) (tried bool, err error)
	ended() bool
	trailers() *Fields
	// judge adjusts the outcome by the trailer of a complete reply.
	judge(o *balance.Outcome)
}

// serverConn is the connection, or the stream, of the reply.
type serverConn interface {
	interrupter
	end() *sourceEnd
	tlsState() *tls.ConnectionState
	// netConn returns the connection, and since when it had been idle, as far as that
	// is known.
	netConn() (c net.Conn, idleAt time.Time)
	// shared reports whether getting it may have waited for other requests.
	shared() bool
	// headCame returns when the head of the reply arrived.
	headCame(now time.Time)
	// release ends the use. Clean means that request and reply are complete.
	release(clean bool)
	close()
}

// A serverTunnel is a connection after a 101, or a 2xx to CONNECT. One goroutine
// may read while another one writes.
type serverTunnel interface {
	conn() *l4.Conn
	switchedTo() string // protocol
	// takeEarly returns the bytes that have been read after the head.
	takeEarly(take func([]byte) error) error
	read(p []byte, limit time.Duration) (int, error)
	write(p []byte, limit time.Duration) error
	// onCut registers f to be called when the server is cut, or at once if it has
	// been. F must not wait.
	onCut(f func(reason string))
	// open lifts the bounds of the exchange.
	open()
	// leave closes it, also during reads and writes.
	leave()
}

// sourceEnd records what other goroutines have done to a source.
type sourceEnd struct {
	interrupted atomic.Bool            // the client disconnected
	cutReason   atomic.Pointer[string] // why the server was cut; nil if it was not
	reused      bool                   // the connection was not new
	gotHead     bool                   // a byte of the reply has come
}

// A cutError says that a server was cut during a request.
type cutError struct{ reason string }

func (e *cutError) Error() string { return "l7: server was cut: " + e.reason }

// cutError returns the reason if the server was cut, else err.
func (f *sourceEnd) cutError(err error) error {
	if r := f.cutReason.Load(); r != nil {
		return &cutError{*r}
	}
	return err
}

// lost reports whether the source was interrupted or cut.
func (f *sourceEnd) lost() bool { return f.interrupted.Load() || f.cutReason.Load() != nil }

// within returns how long an operation of the try with a limit of its own may
// take; a limit of 0 means none.
func (l *try) within(now time.Time, limit time.Duration) time.Duration {
	return until(now, limit, l.deadline)
}

// until returns limit, or the time left until the deadline if that is shorter.
// Zero means none.
func until(now time.Time, limit time.Duration, deadline time.Time) time.Duration {
	if deadline.IsZero() {
		return limit
	}
	if left := max(deadline.Sub(now), 1); limit <= 0 || left < limit {
		return left
	}
	return limit
}
