// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/penstock-lb/penstock/balance"
)

// A lent exchange is one that a foreign handler has received as (w, r). The
// context of r carries it, so that a native handler inside the foreign one
// continues it instead of beginning another.
//
// The foreign handler may call the one inside in any goroutine, any number of
// times, and even after it has returned. So each call gets an [Exchange] of its
// own: a copy of the lent one as it was handed over, with the changes that the
// foreign handler has made in r. Its results are recorded here, and the lent
// exchange takes them over in its own goroutine: before the head of the reply is
// edited, and when the foreign handler has returned. After that no call can reach
// the lent exchange: reads fail, and writes are dropped.
type carried struct {
	s      *standard // the lent exchange; used only between enter and leave
	from   snapshot  // of it, with which the exchanges inside begin
	around *carried  // the lending that this one is inside; nil if there is none

	// What the foreign handler gets besides the request, in one allocation with the rest.
	ctx     carriedContext
	writer  editingWriter
	through through // the native continuation, once there is one

	was       *mark         // what else of the request as it was handed over; nil if it was as in from.asked
	body      io.ReadCloser // of that
	length    int64
	nominated nominated // what its Connection field names

	mu       sync.Mutex
	captured int32         // number of fields captured inside that the lent exchange has taken over
	users    int32         // number of callers between enter and leave
	reads    int32         // reads of the body in progress
	idle     chan struct{} // closed when the last of them leaves; nil while no goroutine waits for that

	news    *news // of the exchange inside; nil until there are any
	closed  bool  // the foreign handler has returned
	duplex  bool  // the reply began before the end of the request body
	chunked bool  // and the length of the body is not known
	refused bool  // an editor has refused the reply, and another has been sent
	cut     bool  // the exchange inside has cut the reply, and its record says why
}

// A mark notes a request, to see later what has been changed.
type mark struct {
	url          url.URL
	target, host string
	sent         []Field  // forwarding fields sent by the client
	connection   []string // its Connection field
}

// mark notes r and what the client has sent.
func (l *carried) mark(r *http.Request, list []Field) {
	l.body, l.length = r.Body, r.ContentLength
	var sent []Field
	for i := range list {
		if list[i].kind == kindForwarded {
			sent = append(sent, list[i])
		}
	}
	a, connection := &l.from.asked, r.Header["Connection"]
	if l.from.all == nil && r.Host == a.host && a.isTarget(r.RequestURI) && a.isURL(r.URL) && len(connection) == 0 && len(sent) == 0 {
		return
	}
	l.was = &mark{*r.URL, r.RequestURI, r.Host, sent, connection}
}

// isTarget reports whether s is the path and query.
func (a *asked) isTarget(s string) bool {
	path, ok := strings.CutSuffix(s, a.query)
	return ok && path == a.path
}

// isURL reports whether u has the path and query, and nothing else.
func (a *asked) isURL(u *url.URL) bool {
	query := strings.TrimPrefix(a.query, "?")
	return *u == url.URL{Path: a.path, RawQuery: query, ForceQuery: query == "" && a.query != ""}
}

// sameURL reports whether u is as it was handed over.
func (l *carried) sameURL(u *url.URL) bool {
	if l.was != nil {
		return *u == l.was.url
	}
	return l.from.asked.isURL(u)
}

// sameTarget does so for a RequestURI.
func (l *carried) sameTarget(s string) bool {
	if l.was != nil {
		return s == l.was.target
	}
	return l.from.asked.isTarget(s)
}

// sameHost does so for a Host.
func (l *carried) sameHost(s string) bool {
	if l.was != nil {
		return s == l.was.host
	}
	return s == l.from.asked.host
}

// sameConnection does so for a Connection field.
func (l *carried) sameConnection(values []string) bool {
	if l.was != nil {
		return slices.Equal(l.was.connection, values)
	}
	return len(values) == 0
}

// news are what the lent exchange takes over from the one inside.
type news struct {
	fresh            bool // they have not been taken over
	client           netip.Addr
	scheme           string
	trusted, rfc7239 bool
	balance          balance.Request
	values           []value
	record           Record

	server    *balance.Server
	switching *Reply // the reply to an upgrade that is about to take the connection
	status    int    // of its reply; 0 if there is none yet
	local     bool   // that was made by the gateway
}

type carriedKey struct{}

// carriedContext is the context of the request that the foreign handler gets.
type carriedContext struct {
	context.Context
	l *carried
}

// Value implements [context.Context].
func (c *carriedContext) Value(key any) any {
	if _, ok := key.(carriedKey); ok {
		return c.l
	}
	return c.Context.Value(key)
}

// errReturned is the error of using a request whose handler has returned.
var errReturned = errors.New("l7: the handler of this request has returned")

// lend returns the request for a foreign handler, with the exchange in its
// context.
func (s *standard) lend() (*carried, *http.Request) {
	x, l := s.x, s.room
	if s.room = nil; l == nil {
		l = new(carried)
	}
	l.s, l.ctx = s, carriedContext{s.context(), l}
	l.writer = editingWriter{ResponseWriter: s.w, s: s, lent: l}
	r := s.r
	if s.under != nil && s.given == nil && r.ContentLength == 0 {
		s.give()
		*r = *r.WithContext(&l.ctx)
	} else {
		if s.given != nil {
			r = s.request()
		}
		c := &struct {
			r   http.Request
			url url.URL
		}{*r.WithContext(&l.ctx), *r.URL}
		r = &c.r
		r.URL = &c.url
	}
	var body io.Reader
	if r.ContentLength != 0 {
		body = standardReader{s}
	}
	x.applyTo(r, bodyReader{x})
	if len(x.filters) > 0 {
		body = r.Body
	}
	if body != nil {
		r.Body = &carriedBody{l: l, src: body, r: r, turn: make(chan struct{}, 1)}
	}
	if l.around = s.around; s.lent != nil {
		l.around, l.nominated = s.lent, s.lent.nominated
	} else {
		l.nominated = nominatedIn(r.Header, &x.Header)
	}
	if s.under != nil {
		l.from.take(x, s.under.origin())
	} else {
		l.from.take(x, x.origin())
	}
	l.mark(r, x.Header.list)
	return l, r
}

// lentOf returns the exchange to which (w, r) belongs, nil if it begins here. A
// handler may have replaced the request together with its context, or have given it the
// context of another request. So the writer is looked at as well: it says whose reply
// this is. Of two exchanges of one request, the one further inside has passed more
// handlers.
func lentOf(w http.ResponseWriter, r *http.Request) *carried {
	of := lentBy(w)
	l, ok := r.Context().Value(carriedKey{}).(*carried)
	switch {
	case !ok:
		return of
	case of == nil || l.inside(of):
		return l
	}
	return of
}

// lentBy returns the exchange to which a writer belongs, nil if none is found.
func lentBy(w http.ResponseWriter) *carried {
	for range 16 {
		switch t := w.(type) {
		case *editingWriter:
			return t.lent
		case interface{ Unwrap() http.ResponseWriter }:
			w = t.Unwrap()
		default:
			return nil
		}
	}
	return nil
}

// inside reports whether l is o, or was lent further inside.
func (l *carried) inside(o *carried) bool {
	for l != nil && l != o {
		l = l.around
	}
	return l == o
}

// wasSent reports whether the client has sent that line.
func (l *carried) wasSent(name, value string) bool {
	return l.was != nil && slices.ContainsFunc(l.was.sent, func(fd Field) bool { return fd.named(name) && fd.Value == value })
}

// enter permits the use of the lent exchange until leave.
func (l *carried) enter() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.users++
	return true
}

// enterAlone is enter for a caller that needs the exchange to itself. It fails
// if there is another user, or news of an exchange inside.
func (l *carried) enterAlone() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.users > 0 || l.news != nil && l.news.fresh {
		return false
	}
	l.users++
	return true
}

// forget drops what was recorded: the lent exchange itself has continued.
func (l *carried) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.news != nil {
		l.news.fresh = false
	}
}

func (l *carried) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.users--; l.users == 0 && l.idle != nil {
		close(l.idle)
		l.idle = nil
	}
}

// enterRead is enter for a read of the body, which can be interrupted.
func (l *carried) enterRead() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.users++
	l.reads++
	return true
}

func (l *carried) leaveRead() {
	l.mu.Lock()
	l.reads--
	l.mu.Unlock()
	l.leave()
}

// over reports whether the foreign handler has returned.
func (l *carried) over() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}

// takeBack ends the use of the lent exchange by others: it interrupts a read of
// the body in progress, and waits for a write.
func (l *carried) takeBack() {
	l.mu.Lock()
	l.closed = true
	var idle chan struct{}
	if l.users > 0 {
		idle = make(chan struct{})
		l.idle = idle
	}
	reads := l.reads > 0
	l.mu.Unlock()
	if reads { // otherwise a deadline would end net/http's own read after the request
		l.s.stopBody()
	}
	if idle != nil {
		<-idle
	}
	l.collect()
	l.mu.Lock() // one further inside may still begin its reply, to a writer that drops it
	l.s.duplex, l.s.chunked = l.duplex, l.chunked
	l.mu.Unlock()
	l.s.x.Record.BytesIn = max(l.s.x.Record.BytesIn, l.s.body.read)
}

// tell records the state of the exchange inside; r is its reply, nil if that
// has not changed.
func (l *carried) tell(x *Exchange, r *Reply) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	if l.news == nil {
		l.news = new(news)
	}
	n := l.news
	captured := append(n.record.Captured[:0], x.Record.Captured...)
	n.fresh, n.client, n.scheme, n.trusted, n.rfc7239 = true, x.Client, x.Scheme, x.trusted, x.rfc7239
	n.balance, n.values, n.record = x.Balance, append(n.values[:0], x.values...), x.Record
	n.record.Captured = captured
	if r != nil {
		n.server, n.status, n.local = r.Server, r.Status, r.Local
	}
}

// refuse records that the reply of the exchange inside is not sent.
func (l *carried) refuse() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refused = true
}

// cutReply records that the exchange inside has cut the reply, by [http.ErrAbortHandler].
func (l *carried) cutReply() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = true
}

func (l *carried) isRefused() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.refused
}

// collect takes over what was recorded into the lent exchange.
func (l *carried) collect() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.s.cutInside = l.cut
	now := l.news
	if now == nil || !now.fresh {
		return
	}
	now.fresh = false
	x := l.s.x
	x.Client, x.Scheme, x.trusted, x.rfc7239 = now.client, now.scheme, now.trusted, now.rfc7239
	if !x.replied {
		x.Balance, x.values = now.balance, append(x.values[:0], now.values...)
	}
	for _, v := range now.values { // editors may have set others since
		if !slices.ContainsFunc(x.values, func(o value) bool { return o.key == v.key }) {
			x.values = append(x.values, v)
		}
	}
	was := x.Record
	x.Record = now.record
	r := &x.Record
	r.Front, r.Status, r.BytesIn, r.BytesOut = was.Front, was.Status, was.BytesIn, was.BytesOut
	r.Captured = was.Captured
	if all, n := now.record.Captured, l.from.captured(); len(all) > n+int(l.captured) {
		more := all[n:]
		r.Captured = append(r.Captured, more[l.captured:]...)
		l.captured = int32(len(more))
	}
	if r.FirstByte == 0 {
		r.FirstByte = was.FirstByte
	}
	if !completed(was.Termination) {
		r.Termination, r.Err = was.Termination, was.Err
	}
}

// origin returns the origin of a reply of that status: that of the reply of the
// exchange inside, if it is the same one.
func (l *carried) origin(r *Reply) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := l.news; n != nil && n.status == r.Status {
		r.Server, r.Local = n.server, n.local
	}
}

// switchTo announces the reply to an upgrade. The outer handlers may edit its
// fields when the connection is hijacked.
func (l *carried) switchTo(x *Exchange, r *Reply) {
	l.tell(x, r)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.news != nil { // or the foreign handler has returned
		l.news.switching = r
	}
}

// switches returns the reply that switchTo has announced, once.
func (l *carried) switches() *Reply {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.news == nil {
		return nil
	}
	r := l.news.switching
	l.news.switching = nil
	return r
}

// standardReader reads the request body under the limits of the front.
type standardReader struct{ s *standard }

func (b standardReader) Read(p []byte) (int, error) { return b.s.readBody(p) }

// carriedBody is the request body that a foreign handler gets.
type carriedBody struct {
	l    *carried
	src  io.Reader
	r    *http.Request
	turn chan struct{} // held by the goroutine that reads
	read bool          // some of it
	over atomic.Bool   // closed during a read
}

func (b *carriedBody) Read(p []byte) (int, error) {
	if !b.l.enterRead() {
		return 0, http.ErrBodyReadAfterClose
	}
	defer b.l.leaveRead()
	b.turn <- struct{}{}
	defer func() { <-b.turn }()
	if b.over.Load() {
		return 0, http.ErrBodyReadAfterClose
	}
	b.read = true
	n, err := b.src.Read(p)
	if t := b.l.s.r.Trailer; err == io.EOF && len(t) > 0 { // read by now; without one, r is left alone
		b.r.Trailer = b.l.s.x.Header.withoutOwnMap(t)
	}
	return n, err
}

// untouched reports whether nothing has been read.
func (b *carriedBody) untouched() bool {
	b.turn <- struct{}{}
	defer func() { <-b.turn }()
	return !b.read
}

// Close does not wait for a Read in progress, nor for what the client has not sent yet, as
// that of net/http would: for the client, or until a timeout. The end of the exchange ends
// the Read and closes the body.
func (b *carriedBody) Close() error {
	if !b.l.enter() {
		return nil
	}
	defer b.l.leave()
	if b.l.s.r.Body == nil {
		return nil
	}
	select {
	case b.turn <- struct{}{}:
		defer func() { <-b.turn }()
	default:
		b.over.Store(true)
		return nil
	}
	if isBodyOfNetHTTP(b.l.s.r.Body) {
		b.over.Store(true)
		return nil
	}
	return b.l.s.r.Body.Close()
}
