// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"strings"
	"time"

	"github.com/penstock-lb/penstock/l4"
)

// A ForwardAuthError says why the service of a [ForwardAuth] has not decided.
type ForwardAuthError struct {
	Status int   // that came; 0 if none did
	Err    error // what went wrong; nil if that is all
}

func (e *ForwardAuthError) Error() string {
	s := "l7: ForwardAuth: no answer"
	if e.Status != 0 {
		s = "l7: ForwardAuth: the service answered " + statusLine(e.Status)
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *ForwardAuthError) Unwrap() error { return e.Err }

// A question is an exchange that asks a service about another one. Its reply is
// kept, within bounds.
type question struct {
	noClient
	x     Exchange
	told  bool // whoever gets the record hears of failures
	limit int  // of body

	reply  Reply
	body   []byte
	unused int  // bytes of the body of what is no refusal
	whole  bool // the reply has come to its end
	long   bool // too long
}

var (
	errAuthTooLong = errors.New("l7: the body of the refusal is longer than BodyBytes")
	errAuthCut     = errors.New("l7: the reply broke off")
)

// ask asks the service about x. Err is nil if it has decided.
func (h *ForwardAuth) ask(x *Exchange) (q *question, err error) {
	ctx, limit := x.Context(), orDefault(h.Timeout, 10*time.Second)
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	q = &question{told: x.down.observed(), limit: orDefault(h.BodyBytes, 64<<10)}
	c := &q.x
	q.noClient = noClient{x: c, ctx: ctx, log: x.down.logger()}
	*c = Exchange{
		Method: http.MethodGet, Scheme: x.Scheme, Host: x.Host,
		Remote: x.Remote, Local: x.Local, Client: x.Client, TLS: x.TLS, proto: 1, down: q,
	}
	c.Path, c.Query = splitTarget(cmpOr(h.Target, "/"))
	h.fill(&c.Header, x)
	c.Record.Start = time.Now()
	c.begin(x.Record.Front)
	if err := guard(c, "ForwardAuth.Service", func() error { Serve(h.Service, c); c.mustReply(); return nil }); err != nil {
		c.Record.Termination = endOf(l4.Internal, l4.PhaseRequest)
		return q, &ForwardAuthError{Err: err}
	}
	switch status := q.reply.Status; {
	case ctx.Err() != nil && !(q.whole && status < 500):
		c.Record.Termination.Cause = l4.ServerTimeout
		return q, &ForwardAuthError{Err: &TimeoutError{"ForwardAuth.Timeout", limit, ctx.Err()}}
	case status < 200 || status >= 500:
		return q, &ForwardAuthError{status, c.Record.Err}
	case q.long:
		return q, &ForwardAuthError{status, errAuthTooLong}
	case status >= 300 && !q.whole:
		return q, &ForwardAuthError{status, cmpErr(c.Record.Err, errAuthCut)}
	}
	return q, nil
}

func cmpErr(err, or error) error {
	if err == nil {
		return or
	}
	return err
}

// fill writes the fields of the question.
func (h *ForwardAuth) fill(f *Fields, x *Exchange) {
	for _, name := range h.fields() {
		for i := range x.Header.list {
			if fd := x.Header.list[i]; fd.named(name) {
				f.list = append(f.list, fd)
			}
		}
	}
	host, proto := x.claimed()
	uri := x.Path + x.Query
	if x.Path == "" { // of CONNECT
		uri = x.Host
	}
	f.Set("X-Forwarded-Method", x.Method)
	f.Set("X-Forwarded-Proto", proto)
	f.Set("X-Forwarded-Host", host)
	f.Set("X-Forwarded-Uri", uri)
	if x.Client.IsValid() {
		f.Set("X-Forwarded-For", x.Client.String())
	} else {
		f.Del("X-Forwarded-For")
	}
}

// splitTarget returns the path, and the query with its question mark.
func splitTarget(target string) (path, query string) {
	if i := strings.IndexByte(target, '?'); i >= 0 {
		return target[:i], target[i:]
	}
	return target, ""
}

func (q *question) observed() bool { return q.told }

func (q *question) writeHead(r *Reply) error {
	q.x.replied, q.x.Record.Status = true, r.Status
	q.reply = Reply{Status: r.Status, Header: r.Header.Clone()}
	q.reply.Header.Del("Trailer")
	return nil
}

// writeBody keeps the body of a refusal. That of others says nothing.
func (q *question) writeBody(p []byte) error {
	if q.reply.Status < 300 {
		if q.unused += len(p); q.unused > maxUnread {
			return errAuthTooLong
		}
		return nil
	}
	if len(q.body)+len(p) > q.limit {
		q.long = true
		return errAuthTooLong
	}
	q.body = append(q.body, p...)
	return nil
}

func (q *question) finish(*Fields) error {
	q.whole = true
	return nil
}

// serveForeign has a service of this process answer.
func (q *question) serveForeign(h http.Handler, _ wrapping) {
	w := &questionWriter{q: q, header: make(http.Header)}
	// Whose context that is may be in an exchange, which this one is no part of.
	h.ServeHTTP(w, q.x.newRequest(context.WithValue(q.ctx, carriedKey{}, (*carried)(nil))))
	w.WriteHeader(http.StatusOK)
	_ = q.finish(nil)
}

// questionWriter is the [http.ResponseWriter] of a service of this process.
type questionWriter struct {
	q      *question
	header http.Header
}

func (w *questionWriter) Header() http.Header { return w.header }

func (w *questionWriter) WriteHeader(status int) {
	if w.q.x.replied || status < 200 {
		return
	}
	_ = w.q.x.writeHead(&Reply{Status: status, Header: fieldsOf(maps.Clone(w.header)), ContentLength: -1})
}

func (w *questionWriter) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	if err := w.q.writeBody(p); err != nil {
		return 0, err
	}
	return len(p), nil
}
