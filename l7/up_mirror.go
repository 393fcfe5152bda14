// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// A Mirror sends a copy of some requests to another handler, usually a [Proxy]
// with a pool of its own, and discards the replies. The original never waits for
// the copy. A request without a body, or with one that came with the head, is
// copied at once, others when the original has ended. Above MaxInFlight there are
// no copies. Requests for an upgrade, and CONNECT, are not copied.
//
// A Mirror may serve several proxies. Its fields must not change once it is
// used.
type Mirror struct {
	To    http.Handler
	Share float64 // of requests that are copied, at random; 0 means all
	Seed  uint64  // for Share; 0 means at random

	BodyBytes   int           // requests with a longer body are not copied; 0 means 64 KiB, negative means none
	MaxInFlight int           // copies at once; 0 means 64, negative means no limit
	Timeout     time.Duration // of a copy; 0 means 10s, negative means none

	chance  chance
	going   atomic.Int64
	dropped atomic.Uint64
	wg      sync.WaitGroup
}

const (
	defaultMirrored      = 64
	defaultMirrorTimeout = 10 * time.Second
)

// Dropped returns how many copies were not sent because of MaxInFlight or
// BodyBytes.
func (m *Mirror) Dropped() uint64 { return m.dropped.Load() }

// Wait waits until no copy is in flight. Call it at the end, when the proxies
// that use the mirror have shut down.
func (m *Mirror) Wait() { m.wg.Wait() }

func (m *Mirror) bodyBytes() int { return orDefault(m.BodyBytes, defaultBodyBytes) }

// begin decides whether the request of t is copied.
func (m *Mirror) begin(t *attempt) {
	if t.forceOne || m.Share > 0 && m.chance.float64(m.Seed) >= m.Share {
		return
	}
	limit := int64(orDefault(m.MaxInFlight, defaultMirrored))
	if m.going.Add(1) > limit && limit > 0 || t.x.ContentLength > int64(m.bodyBytes()) {
		m.drop()
		return
	}
	if t.whole {
		m.send(t.x, append([]byte(nil), t.req.B[t.headLen:]...))
		return
	}
	t.mirroring = m
}

func (m *Mirror) drop() {
	m.going.Add(-1)
	m.dropped.Add(1)
}

// finish sends a copy of a request whose body was streamed.
func (m *Mirror) finish(t *attempt) {
	if t.body == nil || !t.body.complete() {
		m.drop()
		return
	}
	m.send(t.x, t.body.kept)
}

// send serves the copy. Afterwards it uses only the strings of x.
func (m *Mirror) send(x *Exchange, body []byte) {
	c := &Exchange{
		Method: x.Method, Scheme: x.Scheme, Host: x.Host, Path: x.Path, Query: x.Query,
		Header: x.Header.Clone(), ContentLength: int64(len(body)),
		Remote: x.Remote, Local: x.Local, Client: x.Client, TLS: x.TLS,
		proto: x.proto, trailers: x.trailers, sensitive: x.sensitive, trusted: x.trusted, rfc7239: x.rfc7239,
	}
	c.Balance.Key, c.Balance.Priority = x.Balance.Key, x.Balance.Priority
	c.Balance.Tenant, c.Balance.TenantWeight = x.Balance.Tenant, x.Balance.TenantWeight
	c.Record.Start = time.Now()
	c.begin(x.Record.Front)
	c.Record.Host = x.Record.Host
	log := x.down.logger()
	m.wg.Go(func() {
		defer m.going.Add(-1)
		ctx, cancel := bg, context.CancelFunc(func() {})
		if d := orDefault(m.Timeout, defaultMirrorTimeout); d > 0 {
			ctx, cancel = context.WithTimeout(ctx, d)
		}
		defer cancel()
		c.down = &noClient{x: c, ctx: ctx, body: body, log: log}
		_ = guard(c, "mirror", func() error {
			Serve(m.To, c)
			return nil
		})
	})
}

// noClient is the downstream of an exchange whose reply is discarded.
type noClient struct {
	unbounded
	serverless
	unwritten
	x    *Exchange
	ctx  context.Context
	body []byte
	stop func() bool
	log  *slog.Logger
}

func (n *noClient) context() context.Context { return n.ctx }
func (n *noClient) request() *http.Request   { return n.x.newRequest(n.ctx) }

func (n *noClient) readBody(p []byte) (int, error) {
	if len(n.body) == 0 {
		return 0, io.EOF
	}
	c := copy(p, n.body)
	n.body = n.body[c:]
	return c, nil
}

func (n *noClient) observed() bool                          { return true } // no failures to report
func (n *noClient) logger() *slog.Logger                    { return n.log }
func (n *noClient) bodyMayPanic() bool                      { return false }
func (n *noClient) hijackable() bool                        { return true }
func (n *noClient) present() bool                           { return false }
func (n *noClient) rewindBody() bool                        { return false }
func (n *noClient) rewindable() bool                        { return false }
func (n *noClient) bodyReady() bool                         { return true }
func (n *noClient) stopBody()                               {}
func (n *noClient) resumeBody()                             {}
func (n *noClient) pauseBody(bool) bool                     { return false }
func (n *noClient) trailer() *Fields                        { return nil }
func (n *noClient) writeInterim(*Reply) error               { return nil }
func (n *noClient) attach(u interrupter)                    { n.stop = context.AfterFunc(n.ctx, u.interrupt) }
func (n *noClient) detach() bool                            { return n.stop() }
func (n *noClient) session(bool) usage                      { return usage{first: true} }
func (n *noClient) serveForeign(h http.Handler, _ wrapping) { h.ServeHTTP(noWriter{}, n.request()) }

// noWriter is an [http.ResponseWriter] that discards everything.
type noWriter struct{}

func (noWriter) Header() http.Header         { return make(http.Header) }
func (noWriter) Write(p []byte) (int, error) { return len(p), nil }
func (noWriter) WriteHeader(int)             {}
