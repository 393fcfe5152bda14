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

// A try is a lease on a server, the request on its way there, and the
// reply as it comes. Of local and src one is set once the try stands.
type try struct {
	lease balance.Lease
	local http.Handler // a member of the pool in this process
	src   source
	race  *race    // with another try; nil if this one is alone
	raced bool     // there was another try, which had to be waited for
	seen  *seenTry // what observers have been told; nil if there are none

	deadline  time.Time // until the head of the reply; zero means none
	reused    bool
	assigned  time.Duration
	connected time.Duration
	firstByte time.Duration
	headAt    time.Time // when the head had come
	outcome   balance.Outcome
}

// A source is a reply from a server, over a connection of HTTP/1 or a stream
// of HTTP/2, in three roles. One goroutine at a time uses it; interrupt is for
// any. What must be asked of it is a method: nobody looks behind the interface.
type source interface {
	requestSender
	replyReader
	serverConn
}

// requestSender sends the request.
type requestSender interface {
	// roundTrip sends the request and waits for the head of the final reply.
	roundTrip(t *attempt, l *try, now time.Time) error
	// stopSending ends the sending of the request body and reports whether all
	// of it had been sent. With keep, what is being read of it is waited for,
	// so that the rest can be read later.
	stopSending(t *attempt, keep bool) bool
}

// replyReader reads the reply.
type replyReader interface {
	reply() *Reply
	version() string // of HTTP: "1.1" or "2.0"
	// tunnel returns what the connection is from now on, if the reply, to a
	// request of that method, makes it a tunnel, and nil otherwise.
	tunnel(method string) serverTunnel

	// expectBody is called before the first next: waits are bounded by w, and
	// what there is for the client of x, if that is not nil, is sent before them.
	expectBody(x *Exchange, w bodyWait)
	// chunked reports whether the body comes in chunks, as Transport tells.
	chunked() bool
	// closes reports whether the connection ends with the reply, as Transport tells.
	closes() bool
	// next returns the next piece of the body, valid until the call after,
	// and io.EOF at the end of a complete one.
	next() ([]byte, error)
	// splice moves what is left of a long body to the client inside the kernel,
	// if both connections allow. It is asked before each next until tried is true.
	splice(to replyWriter) (tried bool, err error)
	ended() bool
	trailers() *Fields
	// judge has a reply that is complete speak for the server, beside its status.
	judge(o *balance.Outcome)
}

// serverConn is the connection, or the stream, that the reply comes by.
type serverConn interface {
	interrupter
	end() *sourceEnd
	tlsState() *tls.ConnectionState
	// netConn returns the connection, and since when it had been idle, as far as that
	// is known.
	netConn() (c net.Conn, idleAt time.Time)
	// shared reports whether others may have been waited for to get it.
	shared() bool
	// headCame says when the head of the reply had come.
	headCame(now time.Time)
	// release ends the use: clean means that request and reply are complete.
	release(clean bool)
	close()
}

// A serverTunnel is a connection behind a 101, or a 2xx to CONNECT. One goroutine
// may read while another one writes.
type serverTunnel interface {
	conn() *l4.Conn
	switchedTo() string // protocol
	// takeEarly gives away what has been read behind the head.
	takeEarly(take func([]byte) error) error
	read(p []byte, limit time.Duration) (int, error)
	write(p []byte, limit time.Duration) error
	// onCut has f called once the server is taken away, also if it has been
	// already. F must not wait.
	onCut(f func(reason string))
	// open lifts the bounds of the exchange.
	open()
	// leave closes it under whoever reads and writes.
	leave()
}

// sourceEnd is what happened to a source from outside.
type sourceEnd struct {
	interrupted atomic.Bool            // the client went away
	cutReason   atomic.Pointer[string] // the server was taken away
	reused      bool                   // the connection was open before
	gotHead     bool                   // at least a byte of the reply has come
}

// A cutError says that a server was taken away under a request.
type cutError struct{ reason string }

func (e *cutError) Error() string { return "l7: server taken away: " + e.reason }

// cutError returns the reason if the server was taken away, else err.
func (f *sourceEnd) cutError(err error) error {
	if r := f.cutReason.Load(); r != nil {
		return &cutError{*r}
	}
	return err
}

// lost reports whether somebody has given up on the source.
func (f *sourceEnd) lost() bool { return f.interrupted.Load() || f.cutReason.Load() != nil }

// within returns how long something may take that has limit to itself, 0
// meaning none, and is part of the try.
func (l *try) within(now time.Time, limit time.Duration) time.Duration {
	return until(now, limit, l.deadline)
}

// until returns limit, or what is left until the deadline if that is less. Zero
// means none.
func until(now time.Time, limit time.Duration, deadline time.Time) time.Duration {
	if deadline.IsZero() {
		return limit
	}
	if left := max(deadline.Sub(now), 1); limit <= 0 || left < limit {
		return left
	}
	return limit
}
