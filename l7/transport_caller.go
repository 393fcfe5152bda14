// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"sync/atomic"
)

// caller is the downstream of an exchange of a Transport: the request is the
// program's, and the reply is returned as a response.
type caller struct {
	unbounded
	serverless
	unwritten // the reply is returned
	t         *Transport
	req       *http.Request
	ctx       context.Context
	x         Exchange
	attempt   attempt
	body      io.ReadCloser // of the request; nil if there is none

	noKeep  bool // the connection must not be reused
	trails  bool // a trailer is sent, whose values may come with the end of the body
	closed  atomic.Bool
	unwatch func() bool
	stop    func() // undoes followCancel; nil without one
}

// followCancel cancels the context when the channel Request.Cancel is closed.
func (c *caller) followCancel() {
	done := c.req.Cancel //lint:ignore SA1019 programs still set it
	if done == nil {
		return
	}
	ctx, cancel := context.WithCancel(c.ctx)
	c.ctx, c.stop = ctx, cancel
	select {
	case <-done:
		cancel()
		return
	default:
	}
	go func() {
		select {
		case <-done:
			cancel()
		case <-ctx.Done(): // the request has ended
		}
	}()
}

// ended returns the error of the context, joined with its cause if that differs,
// or nil.
func (c *caller) ended() error {
	err, cause := c.ctx.Err(), context.Cause(c.ctx)
	if err == nil || errors.Is(cause, err) {
		return err
	}
	return errors.Join(err, cause)
}

func (c *caller) observed() bool           { return true } // by its error
func (c *caller) logger() *slog.Logger     { return slog.Default() }
func (c *caller) context() context.Context { return c.ctx }
func (c *caller) request() *http.Request   { return c.req.Clone(c.ctx) }

func (c *caller) readBody(p []byte) (int, error) {
	if c.body == nil {
		return 0, io.EOF
	}
	if c.closed.Load() {
		return 0, errStopped
	}
	n, err := c.body.Read(p)
	c.x.Record.BytesIn += int64(n)
	if err == io.EOF { // the trailer is known by now
		err = cmp.Or(checkTrailer(c.req.Trailer), err)
	}
	return n, err
}

// longer reports whether a body that was in memory has more bytes than announced.
// The pump checks a streamed body.
func (c *caller) longer() bool {
	if !c.attempt.whole || c.body == nil || c.x.ContentLength <= 0 {
		return false
	}
	var more [1]byte
	n, _ := c.body.Read(more[:])
	return n > 0
}

func (c *caller) bodyMayPanic() bool { return true }
func (c *caller) hijackable() bool   { return true }
func (c *caller) present() bool      { return false }

// bodyReady is true for a body with GetBody, which is most likely in memory.
// The values of a trailer may come with its end.
func (c *caller) bodyReady() bool { return c.body == nil || c.req.GetBody != nil && !c.trails }

// stopBody closes the body, which ends a Read.
func (c *caller) stopBody()   { c.closeBody() }
func (c *caller) resumeBody() {}

func (c *caller) pauseBody(bool) bool { return false }

func (c *caller) closeBody() {
	if c.body != nil && !c.closed.Swap(true) {
		_ = c.body.Close()
	}
}

func (c *caller) rewindable() bool { return c.req.GetBody != nil }

// rewindBody gets the body again from GetBody.
func (c *caller) rewindBody() bool {
	if c.req.GetBody == nil {
		return false
	}
	body, err := c.req.GetBody()
	if err != nil {
		return false
	}
	c.closeBody()
	c.body = body
	c.closed.Store(false)
	c.x.Record.BytesIn = 0
	return true
}

func (c *caller) trailer() *Fields {
	if len(c.req.Trailer) == 0 {
		return nil
	}
	return trailerOf(c.req.Trailer)
}

// writeInterim calls the hooks of httptrace.
func (c *caller) writeInterim(r *Reply) error {
	trace := httptrace.ContextClientTrace(c.ctx)
	if trace == nil {
		return nil
	}
	if trace.Got1xxResponse != nil {
		h := make(http.Header, r.Header.Len())
		addFields(h, &r.Header)
		if err := trace.Got1xxResponse(r.Status, textproto.MIMEHeader(h)); err != nil {
			return err
		}
	}
	if r.Status == http.StatusContinue && trace.Got100Continue != nil {
		trace.Got100Continue()
	}
	return nil
}

func (c *caller) attach(u interrupter) { c.unwatch = context.AfterFunc(c.ctx, u.interrupt) }
func (c *caller) detach() bool         { return c.unwatch() }

func (c *caller) session(bool) usage { return usage{session: &c.t.session} }

func (c *caller) serveForeign(http.Handler, wrapping) {} // the Transport does it
