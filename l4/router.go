// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

// ErrNoRoute is matched, with [errors.Is], by the error of a [Router] that
// closed a connection because no route took it. The error also matches what
// ended the reading, if anything did: io.EOF or os.ErrDeadlineExceeded.
var ErrNoRoute = errors.New("l4: no route takes the connection")

// A Router chooses a handler for a connection by its addresses and by the first
// bytes of the client. It reads ahead only while a route cannot decide without
// more, and what it has read is not lost: the handler gets a [*Conn] that reads
// those bytes first.
//
//	&l4.Router{
//		Routes: []l4.Route{
//			{Match: l4.SNI("a.test", "*.a.test"), Handler: passthrough},
//			{Match: l4.SSH, Handler: bastion},
//			{Match: l4.HTTP1, Handler: web},
//		},
//		Default: mail, // where the server speaks first
//		Silence: time.Second,
//	}
//
// Routes are tried in order. One that needs more bytes holds up those after it, so the
// result does not depend on how the bytes are split into segments. When no more can come
// (the client ended its stream, MaxBytes were read, Timeout or Silence has passed) a
// route that still needs more does not match.
//
// Its fields must not change once it serves. It may serve any number of
// connections at once.
type Router struct {
	Routes  []Route
	Default Handler // takes what no route does; nil closes it

	// Timeout bounds the time from the first look at a connection to the
	// decision, however the bytes trickle in; 0 means 5 s, negative means none.
	Timeout time.Duration

	// Silence is how long a client may send nothing at all before it gets a route that
	// needs no bytes, most often Default. Where the server speaks first, each client
	// waits that long. 0 or more than Timeout means Timeout.
	Silence time.Duration

	// MaxBytes bounds what is read ahead; 0 means 64 KiB, negative means none:
	// nothing is. A ClientHello may take several KiB.
	MaxBytes int

	checked
}

// A Route sends what Match takes to Handler.
type Route struct {
	Match   Matcher // nil takes everything
	Handler Handler // nil is Reject{}
}

// ServeConn routes c and returns the handler's error. It closes c itself only if there is
// no handler for it; if the client disconnected without a byte, that is not an error.
func (r *Router) ServeConn(ctx context.Context, c net.Conn) error {
	if err := r.first(r); err != nil {
		return misconfigured(c, err)
	}
	conn := NewConn(c)
	h, err := r.Handler(ctx, conn)
	if err != nil {
		return giveUp(ctx, conn, err, len(conn.Buffered()) == 0)
	}
	return h.ServeConn(ctx, conn)
}

// Handler returns the handler for c without consuming bytes of it, for code that does not
// call its ServeConn. On error, c is not closed.
func (r *Router) Handler(ctx context.Context, c *Conn) (Handler, error) {
	p := &Peeked{Conn: c}
	h, err := r.decide(p)
	if err != errUndecided {
		return h, noRoute(p, err)
	}
	stop := context.AfterFunc(ctx, func() {
		guard(nil, "connection", func() { c.SetReadDeadline(time.Unix(1, 0)) })
	})
	h, err = r.wait(p)
	err = noRoute(p, err)
	if !stop() && ctx.Err() != nil { // the deadline is spoilt
		return nil, ctx.Err()
	}
	if cleared := c.SetReadDeadline(time.Time{}); err == nil && cleared != nil {
		return nil, cleared
	}
	return h, err
}

// noRoute adds to an ErrNoRoute what the client has asked for, if it has begun with TLS.
func noRoute(p *Peeked, err error) error {
	if !errors.Is(err, ErrNoRoute) {
		return err
	}
	switch name, v := serverName(p); {
	case v != Yes:
		return err
	case name == "":
		return fmt.Errorf("%w: TLS without a server name", err)
	default:
		return fmt.Errorf("%w: TLS for %q", err, name)
	}
}

// errUndecided says that a route needs more bytes.
var errUndecided = errors.New("l4: undecided")

// decide asks the routes about what has been read so far.
func (r *Router) decide(p *Peeked) (Handler, error) {
	p.Data = p.Conn.Buffered()
	if len(p.Data) >= r.maxBytes() {
		p.Final = true
	}
	for i := range r.Routes {
		route := &r.Routes[i]
		v := Yes
		if route.Match != nil {
			v = route.Match(p)
		}
		switch {
		case v == Yes && route.Handler == nil:
			return Reject{}, nil
		case v == Yes:
			return route.Handler, nil
		case v == NeedMore && !p.Final:
			return nil, errUndecided
		}
	}
	if r.Default == nil {
		return nil, ErrNoRoute
	}
	return r.Default, nil
}

// wait reads until the routes can decide or must.
func (r *Router) wait(p *Peeked) (Handler, error) {
	var end time.Time
	if timeout := cmp.Or(r.Timeout, defaultPeekTimeout); timeout > 0 {
		end = time.Now().Add(timeout)
	}
	first := end
	if r.Silence > 0 {
		if t := time.Now().Add(r.Silence); end.IsZero() || t.Before(end) {
			first = t
		}
	}
	for set := (time.Time{}); ; {
		deadline := end
		if len(p.Data) == 0 {
			deadline = first
		}
		if !deadline.Equal(set) {
			set = deadline
			if err := p.Conn.SetReadDeadline(deadline); err != nil {
				return nil, err
			}
		}
		_, err := p.Conn.Peek(len(p.Data) + 1)
		if err != nil && err != io.EOF && !errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, fmt.Errorf("l4: before a route was found: %w", err)
		}
		if p.Final = err != nil; len(p.Conn.Buffered()) > longPeek {
			TakeTurn()
		}
		h, none := r.decide(p)
		switch {
		case none == errUndecided:
		case none == ErrNoRoute && err != nil:
			return nil, fmt.Errorf("%w: %w", none, err)
		default:
			return h, none
		}
	}
}

const (
	defaultPeekTimeout = 5 * time.Second
	defaultPeekBytes   = 64 << 10
	longPeek           = 4 << 10 // bytes that take a while to look at: a ClientHello has two thousand
)

func (r *Router) maxBytes() int { return max(cmp.Or(r.MaxBytes, defaultPeekBytes), 0) }

// Check returns what is wrong with r and its handlers. [Router.ServeConn] calls
// it at the first connection, as does every handler with a Check.
func (r *Router) Check() error { return checkAll(r) }

func (r *Router) check(c *checks) {
	for i := range r.Routes {
		c.optional(fmt.Sprintf("Router.Routes[%d].Handler", i), r.Routes[i].Handler)
	}
	c.optional("Router.Default", r.Default)
	c.If(len(r.Routes) == 0 && r.Default == nil, "Router.Routes", nil, "must have a route, or Default a handler")
	c.If(r.Silence < 0, "Router.Silence", r.Silence, notNegative)
}
