// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"time"

	"github.com/penstock-lb/penstock/l7/internal/h2"
)

// maxStreams returns MaxStreams without its special values.
func (u *Upstream) maxStreams() int {
	if u.MaxStreams < 0 {
		return math.MaxInt32
	}
	return orDefault(u.MaxStreams, defaultUpStreams)
}

// h2ClientConfig holds the settings for servers. The window of a connection holds
// those of so many streams, or a stream that is not read would stall others.
func h2ClientConfig(streams int) *h2.Config {
	streams = min(streams, h2MostWindows)
	return &h2.Config{
		Client: true, MaxStreams: streams, MaxFrame: h2.MinMaxFrame, MaxBlock: 2 * maxReplyHead, MaxHeaders: maxReplyHead,
		StreamWindow: h2StreamWindow, MaxWindow: h2MaxWindow, ConnWindow: h2ConnWindow(streams),
	}
}

// begin opens a reserved stream. The lock is held.
func (c *h2Conn) begin(s *h2Stream) error {
	if c.closed {
		return &unsentError{c.err, true, c.leaves}
	}
	if s.st = c.h2.Begin(); s.st == nil {
		return &unsentError{errors.New("l7: the server takes no more streams on the connection"), true, c.leaves}
	}
	c.reserved--
	c.begun, s.begun, s.st.Owner = true, true, s
	return nil
}

// writeRequest sends the head of a request. It converts the one for HTTP/1, so
// that what is forwarded is decided in one place. The lock is held.
func (c *h2Conn) writeRequest(s *h2Stream, x *Exchange, head string) {
	scheme, authority := "http", x.Host
	if c.state != nil {
		scheme = "https"
	}
	if authority == "" { // HTTP/1.0 without Host
		if authority = x.authority(); authority == "" {
			authority = c.host.key.addr
		}
	}
	b := c.h2.WriteHead()
	switch {
	case s.method == http.MethodConnect: // RFC 9113, section 8.5
		b.Field(":method", s.method, false)
		b.Field(":authority", authority, x.sensitive)
	case s.asks: // RFC 8441, section 4
		b.Field(":method", http.MethodConnect, false)
		b.Field(":protocol", x.upgrade, false)
	default:
		b.Field(":method", s.method, false)
	}
	if s.method != http.MethodConnect {
		b.Field(":scheme", scheme, false)
		b.Field(":authority", authority, x.sensitive)
		b.Field(":path", x.Path+x.Query, x.sensitive)
	}
	_, rest, _ := cutLine(head)
	secrets := x.Header.anySensitive()
	for {
		line, more, ok := cutLine(rest)
		if !ok || line == "" {
			break
		}
		rest = more
		colon := indexByte(line, ':')
		name, value := line[:colon], trimOWS(line[colon+1:])
		switch k := kindOf(name); {
		case k == kindContentLength:
			b.Field("content-length", value, false)
		case s.asks && equalFold(name, "sec-websocket-key"): // section 5
			s.key = value
		case !k.owned():
			if secrets && x.Header.sensitive(name, value) {
				_, lower := c.name(name)
				b.Field(lower, value, true)
			} else if !b.Again(name, value) {
				raw, lower := c.name(name)
				b.FieldAs(raw, lower, value)
			}
		}
	}
	if x.ContentLength >= 0 { // HTTP/1 has no trailer with a length
		for v := range x.Header.Values("Trailer") {
			b.Field("trailer", v, false)
		}
	}
	if x.trailers {
		b.Field("te", "trailers", false)
	}
	b.End(s.st, false) // Finish sets END_STREAM if no body follows
}

// read reads frames until the connection ends.
func (c *h2Conn) read() {
	defer func() {
		if p := recover(); p != nil { // of a connection of the host's
			c.end(recovered(slog.Default(), p, "connection to a server"))
		}
		c.in.release(&c.host.up.buffers)
		c.settle()
		c.forget()
	}()
	c.emit = c.field
	c.readOn = time.Now()
	c.flush()
	for {
		err := c.fill()
		if err == io.EOF {
			err = errHungUp
		}
		if err == nil {
			if err = c.receive(&c.in, &c.host.up.buffers, c.readOn, c.handle); err != nil {
				err = &badReply{err}
			}
		}
		if err != nil {
			c.end(err)
			return
		}
		c.host.room(c.id)
		c.flushSoon()
	}
}

// errHungUp is the end of a connection, which is io.EOF for what reads it. It is not for
// the streams: each has its own end, and io.EOF is that of a whole body.
var errHungUp = fmt.Errorf("l7: the server closed the connection: %w", io.ErrUnexpectedEOF)

// settle notes that the server's SETTINGS have come, or will not.
func (c *h2Conn) settle() {
	select {
	case <-c.settled:
	default:
		close(c.settled)
	}
}

// unwritable is called when writing has failed. The server may have sent the
// reason.
func (c *h2Conn) unwritable(err error) {
	c.retireFailed()
	c.mu.Lock()
	if c.broken == nil {
		c.broken = err
	}
	failed := quietlyLocked(slog.Default(), func() { _ = c.nc.SetReadDeadline(time.Now().Add(time.Second)) })
	c.mu.Unlock()
	if failed != nil {
		c.end(failed)
	}
}

// handle handles an event. The lock is held, also in the methods that it calls.
func (c *h2Conn) handle(ev *h2.Event, _ time.Time) error {
	switch ev.Kind {
	case h2.Head:
		return c.head(ev)
	case h2.Trailer:
		return c.trailer(ev)
	case h2.Body:
		c.body(ev)
	case h2.Reset:
		c.reset(ev)
	case h2.Writable:
		c.wakeSenders()
	case h2.Configured:
		if p, _ := c.h2.Peer(); p.Connect {
			c.host.ext.Store(true)
		}
		c.settle()
		if c.useless() {
			go c.retire()
		}
		c.wakeSenders()
	case h2.Leaving:
		c.leaving(ev)
	}
	return nil
}

// leaving handles GOAWAY: requests that the server has not processed may be
// sent again (RFC 9113, section 6.8).
func (c *h2Conn) leaving(ev *h2.Event) {
	c.retired.Store(true)
	c.leaves = ev.Code == h2.NoError && ev.Last > 0 && c.begun
	err := fmt.Errorf("l7: the server is leaving: GOAWAY %v %s", ev.Code, cleanValue(ev.Reason))
	var list []*h2.Stream
	c.h2.Streams(func(st *h2.Stream) {
		if c.h2.Unprocessed(st) {
			list = append(list, st)
		}
	})
	for _, st := range list {
		s := st.Owner.(*h2Stream)
		c.h2.Reset(st, h2.Cancel)
		s.fail(&unsentError{err, true, c.leaves})
	}
	if ev.Code != h2.NoError {
		c.err = err // more specific than the end of the connection that follows
	}
	if c.idle() {
		go c.retire()
	}
}

// reset handles RST_STREAM.
func (c *h2Conn) reset(ev *h2.Event) {
	s := ev.Stream.Owner.(*h2Stream)
	switch {
	case s.all: // the server does not need the rest of the request
		s.wake()
	case ev.ByUs:
		s.fail(&badReply{errors.New("HTTP/2: " + ev.Reason)})
	case ev.Code == h2.RefusedStream:
		s.fail(&unsentError{errors.New("l7: the server refused the stream"), true, false}) // RFC 9113, section 8.7
	default:
		s.fail(errors.New("l7: the server reset the stream: " + ev.Code.String()))
	}
}

func (s *h2Stream) fail(err error) {
	if s.failed == nil {
		s.failed = err
	}
	s.wake()
}

// malformed resets a stream whose reply is malformed.
func (c *h2Conn) malformed(s *h2Stream, reason string) {
	c.h2.Reset(s.st, h2.ProtocolError)
	s.fail(&badReply{errors.New(reason)})
}

// body handles a piece of a reply's body.
func (c *h2Conn) body(ev *h2.Event) {
	s := ev.Stream.Owner.(*h2Stream)
	n := int64(len(ev.Data))
	if s.got += n; s.bodiless() && n > 0 || s.length() >= 0 && s.got > s.length() && !s.bodiless() {
		c.malformed(s, "the reply has more body than announced")
		return
	}
	if s.over {
		c.h2.Consume(ev.Stream, n)
	} else {
		s.inbox.put(ev.Data, &c.host.up.pool)
	}
	if ev.End {
		c.complete(s)
	}
	s.recv.wake()
}

func (s *h2Stream) bodiless() bool {
	return !s.open && (s.method == http.MethodHead || !bodyAllowed(s.came.Status))
}

func (s *h2Stream) length() int64 { return s.came.ContentLength }

// complete is called when the server has sent the whole reply.
func (c *h2Conn) complete(s *h2Stream) {
	if want := s.length(); want >= 0 && !s.bodiless() && s.got != want {
		c.malformed(s, "the body is shorter than its Content-Length")
		return
	}
	s.all = true
	s.wake()
}

// h2ReplyHead is what the fields of a head say, apart from what goes into the reply.
type h2ReplyHead struct {
	status    int
	list      *Fields
	length    int64
	trailer   bool
	regular   bool
	n, size   int
	malformed string
}

// head begins to decode the head of a reply.
func (c *h2Conn) head(ev *h2.Event) error {
	s := ev.Stream.Owner.(*h2Stream)
	c.decoded = Reply{ContentLength: -1, Header: Fields{list: make([]Field, 0, 12)}}
	r := &c.decoded
	c.cur, c.dec = s, h2ReplyHead{list: &r.Header, length: -1}
	if err := c.h2.Decode(ev.Block, c.emit); err != nil {
		return err
	}
	d := &c.dec
	r.Status = d.status
	switch {
	case d.malformed != "":
	case d.status == 0:
		d.malformed = "no status"
	case d.status == http.StatusSwitchingProtocols:
		d.malformed = "status 101, which HTTP/2 does not have"
	case d.status < 200 && ev.End:
		d.malformed = "an interim reply with END_STREAM"
	}
	if d.malformed != "" {
		c.malformed(s, d.malformed)
		return nil
	}
	if d.status < 200 {
		if s.heads++; s.heads > maxInterim {
			c.malformed(s, "too many interim replies")
			return nil
		}
		s.interim = append(s.interim, *r)
		s.recv.wake()
		return nil
	}
	ev.Stream.Final()
	r.ContentLength = d.length
	switch {
	case r.Status == http.StatusNoContent:
		r.ContentLength = -1
	case ev.End && d.length < 0 && s.method != http.MethodHead && bodyAllowed(r.Status):
		r.ContentLength = 0 // in a 304 it is the length of the 200 (RFC 9110, section 8.6)
	}
	if s.tunnels() && r.Status/100 == 2 {
		s.open, r.ContentLength = true, -1 // RFC 9110, section 9.3.6
	}
	s.came, s.final = *r, true
	if ev.End {
		c.complete(s)
	}
	s.wake()
	return nil
}

// trailer begins to decode the fields after a body.
func (c *h2Conn) trailer(ev *h2.Event) error {
	s := ev.Stream.Owner.(*h2Stream)
	list := new(Fields)
	c.cur, c.dec = s, h2ReplyHead{list: list, trailer: true}
	if err := c.h2.Decode(ev.Block, c.emit); err != nil {
		return err
	}
	if c.dec.malformed != "" {
		c.malformed(s, "trailer: "+c.dec.malformed)
		return nil
	}
	if list.Len() > 0 {
		s.trailing = list
	}
	c.complete(s)
	return nil
}

// field handles one field of the head or trailer that is being decoded.
func (c *h2Conn) field(hf *h2.HeaderField) {
	d := &c.dec
	d.n++
	d.size += len(hf.Name) + len(hf.Value) + 4
	switch {
	case d.malformed != "":
		return
	case d.n > maxReplyFields+1 || d.size > maxReplyHead:
		d.malformed = "too many fields"
		return
	case hf.Name == ":status" && !d.regular && !d.trailer && d.status == 0:
		n, ok := parseLength(hf.Value)
		if !ok || len(hf.Value) != 3 || n < 100 {
			d.malformed = "malformed status"
			return
		}
		d.status = int(n)
		return
	}
	d.regular = true
	k, fine := knownField(hf)
	if !fine {
		if d.malformed = cmpOr(fieldFault(hf, k), valueFault(hf)); d.malformed != "" {
			return
		}
		noteField(hf, k)
	}
	switch {
	case k == kindContentLength:
		n, ok := parseLength(hf.Value)
		if !ok || d.length >= 0 && n != d.length {
			d.malformed = "malformed Content-Length"
		}
		d.length = n
	case d.trailer && forbiddenTrailer(hf.Name):
	case !k.owned():
		d.list.list = append(d.list.list, Field{Name: hf.Name, Value: hf.Value, kind: k, checked: true, sensitive: hf.Sensitive})
	}
}
