// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"log/slog"
	"math"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http2/hpack"

	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l7/internal/h2"
)

// Limits of an HTTP/2 connection, on both sides. Bodies that have been received
// and not yet read take at most its streams times h2StreamWindow, plus
// h2ConnSpare.
const (
	h2StreamWindow = 64 << 10
	h2MaxWindow    = 1 << 20
	h2ConnSpare    = 2 << 20 // for streams that are read as fast as they come
	h2OutHigh      = 64 << 10
	h2Turn         = 16 << 10 // bytes that a stream adds while others wait: a frame that fills a TLS record
	h2Writes       = 8        // by a goroutine that has other work
	h2OutLimit     = 1 << 20  // of frames that a peer causes and does not read
	h2PingTimeout  = 15 * time.Second
)

// h2ConnWindow returns the window of a connection that has so many streams, which a
// connection cannot have larger than h2.MaxWindow.
func h2ConnWindow(streams int) int {
	return min(streams, (h2.MaxWindow-h2ConnSpare)/h2StreamWindow)*h2StreamWindow + h2ConnSpare
}

// An h2Link is the layer below the streams, used on both sides of HTTP/2: the
// state of the protocol and the output buffer. A goroutine that has something to
// send adds it to the buffer; if no other goroutine is writing, it writes for
// all.
type h2Link struct {
	c     *l4.Conn
	bound writeBound // of writes; not used where TLS has its own
	tls   bool       // writes are bounded below c
	lost  func(err error)
	spawn func(f func())    // runs f on a goroutine; some owners wait for it
	apart bool              // writing is always left to a goroutine of spawn
	all   func()            // the method value of writeAll, made once
	names map[string]h2Name // of fields, by their spelling
	ev    h2.Event          // the event that is being handled

	mu      sync.Mutex
	h2      *h2.Conn
	spare   []byte        // the buffer that is not h2.Out
	writing bool          // a goroutine is writing
	written chan struct{} // closed when it has written all; nil if nobody waits for that
	caused  int           // bytes of h2.Out caused by frames of the peer
	closed  bool          // nothing more is served or sent
	err     error         // why
	queue   []*h2Sender   // in the order in which they asked to send
	turns   int           // senders taken out of queue that have not sent yet
	data    int64         // bytes of bodies that all streams have sent
	sleep   sleepers
	late    func()          // the method value of wakeLate, made once
	chans   []chan struct{} // of waits, for reuse
	length  int64           // the number whose text is in digits
	digits  string
}

// start begins a connection over c. Lost is called, without the lock, when
// writing has failed. Spawn starts a goroutine.
func (k *h2Link) start(c *l4.Conn, tls bool, limit time.Duration, cfg *h2.Config, lost func(error), spawn func(func())) {
	k.c, k.tls, k.lost, k.spawn = c, tls, lost, spawn
	k.names = make(map[string]h2Name)
	k.bound.set(limit)
	k.late, k.all = k.wakeLate, k.writeAll
	k.bound.whole = c.TLS() != nil // not used where the layer below has bounds
	k.h2 = h2.New(cfg)
}

// flush writes the output buffer, unless another goroutine is writing. It
// yields once, so that streams that are ready add their output: then all of it
// takes one record and one system call.
func (k *h2Link) flush() { k.flushUntil(nil, h2Writes) }

// flushAll is flush for a goroutine that has no other work.
func (k *h2Link) flushAll() { k.flushUntil(nil, math.MaxInt) }

// flushUntil is flush for a goroutine that writes at most so many times, and stops
// once it is the turn of s, its own stream if it has one. Then it leaves the rest
// to another goroutine, since others may add output without end.
func (k *h2Link) flushUntil(s *h2Sender, writes int) {
	switch {
	case k.apart:
		k.flushSoon()
	case k.mayWrite():
		runtime.Gosched()
		k.writeOut(s, writes)
	}
}

// mayWrite reports whether there is something to write and no goroutine is
// writing: then the caller has to write.
func (k *h2Link) mayWrite() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.writing || len(k.h2.Out) == 0 {
		return false
	}
	k.writing = true
	return true
}

// writeAll writes until nothing is left. Writing is set.
func (k *h2Link) writeAll() {
	runtime.Gosched()
	k.writeOut(nil, math.MaxInt)
}

// writeOut writes until nothing is left, or as flushUntil says. Writing is set.
func (k *h2Link) writeOut(s *h2Sender, writes int) {
	k.mu.Lock()
	for ; len(k.h2.Out) > 0; writes-- {
		if writes == 0 || s != nil && s.turn {
			k.mu.Unlock()
			k.spawn(func() { k.writeOut(nil, math.MaxInt) })
			return
		}
		out := k.h2.Take(k.spare)
		k.caused = 0
		k.mu.Unlock()
		err := k.write(out)
		k.mu.Lock()
		if k.spare = out; cap(out) > 4*h2OutHigh {
			k.spare = nil
		}
		if err != nil {
			k.h2.Out = nil
			k.wroteAll()
			k.mu.Unlock()
			k.lost(err)
			return
		}
		k.wakeSenders()
	}
	k.wroteAll()
	k.mu.Unlock()
}

// flushSoon is flush for the goroutine that reads. It must not wait for the
// peer to read, since the peer may be waiting for us to read.
func (k *h2Link) flushSoon() {
	if k.mayWrite() {
		k.spawn(k.all)
	}
}

// receive parses the complete frames of in and calls handle for each, with the
// lock held. It fails if the peer breaks the protocol, or causes frames that it
// does not read.
func (k *h2Link) receive(in *input, b *buffers, now time.Time, handle func(*h2.Event, time.Time) error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for {
		frame, n, err := k.h2.Parse(in.bytes())
		if err == nil && n == 0 {
			break
		}
		if err == nil {
			k.ev, err = k.event(frame, now)
		}
		if err == nil {
			err = handle(&k.ev, now)
		}
		if err != nil {
			return err
		}
		in.use(n)
	}
	k.ev = h2.Event{}
	in.consumed(b)
	return nil
}

// event parses a frame. The lock is held.
func (k *h2Link) event(f h2.Frame, now time.Time) (h2.Event, error) {
	before := len(k.h2.Out)
	ev, err := k.h2.Receive(f, now)
	if k.caused += len(k.h2.Out) - before; err == nil && k.caused > h2OutLimit {
		err = &h2.ConnError{Code: h2.EnhanceYourCalm, Reason: "too much that is not read"}
	}
	return ev, err
}

// write returns a panic of the connection as an error, since a timer may be writing.
func (k *h2Link) write(p []byte) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = recovered(slog.Default(), v, "connection")
		}
	}()
	if k.tls {
		_, err = k.c.Write(p)
		return err
	}
	_, err = k.bound.write(k.c, p)
	return err
}

// rest releases the memory that an idle connection does not need.
func (k *h2Link) rest() {
	if !k.writing && len(k.h2.Out) == 0 { // a GOAWAY may be about to be written
		k.spare, k.h2.Out = nil, nil
	}
}

// finish writes what is left, and waits for the goroutine that is writing. Without it, the
// end of the connection could overtake the GOAWAY that says what was processed.
func (k *h2Link) finish() {
	k.mu.Lock()
	for k.writing {
		if k.written == nil {
			k.written = make(chan struct{})
		}
		written := k.written
		k.mu.Unlock()
		<-written
		k.mu.Lock()
	}
	k.writing = len(k.h2.Out) > 0
	more := k.writing
	k.mu.Unlock()
	if more {
		k.writeOut(nil, math.MaxInt)
	}
}

// wroteAll says that nothing is being written any more. The lock is held.
func (k *h2Link) wroteAll() {
	k.writing = false
	if k.written != nil {
		close(k.written)
		k.written = nil
	}
}

// An h2Sender is the sending side of a stream. Its fields are guarded by the mu
// of the link.
type h2Sender struct {
	st     *h2.Stream
	queued bool // waits in the link's queue
	turn   bool // has been taken out of the queue to send
	send   wait
}

// sendData sends all of p. It waits while the peer's windows or the connection
// are full, at most limit for each byte. Over returns why nothing more can be
// sent. The lock is held except while it waits.
func (k *h2Link) sendData(s *h2Sender, p []byte, limit time.Duration, over func() error) error {
	for {
		err := over()
		if err == nil {
			p = p[k.add(s, p):]
		}
		if err == nil && len(p) > 0 {
			err = k.awaitTurn(s, limit, over)
		}
		if err != nil || len(p) == 0 {
			k.unqueue(s)
			return err
		}
	}
}

// add sends as much of p as the windows allow now.
func (k *h2Link) add(s *h2Sender, p []byte) (n int) {
	for n < len(p) && len(k.h2.Out) < h2OutHigh {
		if s.turn {
			s.turn = false
			k.turns--
		} else if k.turns > 0 || k.behindOthers(s) {
			break
		}
		m := k.h2.WriteData(s.st, p[n:min(len(p), n+h2Turn-h2.HeaderLen)], false)
		k.data += int64(m)
		if n += m; m == 0 {
			break
		}
	}
	return n
}

// awaitTurn waits until there may be room for more. Limit is for a peer that
// reads nothing: a stream that only waits for other streams keeps waiting.
func (k *h2Link) awaitTurn(s *h2Sender, limit time.Duration, over func() error) error {
	if s.turn { // heads of other streams have taken the room
		s.turn = false
		k.turns--
	}
	before := k.data
	if !s.queued {
		s.queued = true
		k.queue = append(k.queue, s)
	}
	k.mu.Unlock()
	k.flushUntil(s, h2Writes) // takes s out of the queue, unless it waits for the peer
	k.mu.Lock()
	if !s.queued {
		return nil
	}
	if err := over(); err != nil { // happened while the lock was released, before this stream waited
		return err
	}
	if k.sleepFor(&s.send, limit) || !s.queued {
		return nil
	}
	if (k.data != before || k.writing) && s.st.Window() > 0 {
		return nil // it waits for others, or for a write, which has a bound of its own
	}
	return os.ErrDeadlineExceeded
}

// behindOthers reports whether other streams that can send have waited longer
// or are more urgent.
func (k *h2Link) behindOthers(s *h2Sender) bool {
	for _, o := range k.queue {
		if o != s && o.st.Urgency <= s.st.Urgency && k.h2.Sendable(o.st) > 0 {
			return true
		}
	}
	return false
}

// unqueue removes s from the queue, and takes back its turn if it has one.
func (k *h2Link) unqueue(s *h2Sender) {
	if s.turn {
		s.turn = false
		k.turns--
		k.wakeSenders()
	}
	if !s.queued {
		return
	}
	for i, o := range k.queue {
		if o == s {
			k.queue = append(k.queue[:i], k.queue[i+1:]...)
			break
		}
	}
	s.queued = false
}

// wakeSenders wakes streams that wait to send, as far as there is room: the most
// urgent ones, one turn each, in the order in which they asked.
func (k *h2Link) wakeSenders() {
	if len(k.queue) == 0 {
		return
	}
	urgency := uint8(math.MaxUint8)
	for _, s := range k.queue {
		if k.h2.Sendable(s.st) > 0 {
			urgency = min(urgency, s.st.Urgency)
		}
	}
	room := h2OutHigh - len(k.h2.Out) - k.turns*h2Turn
	rest := k.queue[:0]
	for _, s := range k.queue {
		if room <= 0 || s.st.Urgency != urgency || k.h2.Sendable(s.st) <= 0 {
			rest = append(rest, s)
			continue
		}
		s.queued, s.turn = false, true
		k.turns++
		s.send.wake()
		room -= h2Turn
	}
	clear(k.queue[len(rest):])
	k.queue = rest
}

// fields writes the fields that the engine does not own, and reports whether a
// Date was among them.
func (k *h2Link) fields(b h2.Block, list *Fields) (dated bool) {
	for i := range list.list {
		fd := &list.list[i]
		if fd.kind.owned() {
			continue
		}
		dated = dated || fd.kind == kindDate
		if !b.Again(fd.Name, fd.Value) {
			raw, name := k.name(fd.Name)
			b.FieldAs(raw, name, fd.Value)
		}
	}
	return dated
}

// number returns n as a string. It keeps the last one, since replies often have the
// same length.
func (k *h2Link) number(n int64) string {
	if n != k.length || k.digits == "" {
		k.length, k.digits = n, formatInt(n)
	}
	return k.digits
}

// An h2Name is a field's name as it is spelled somewhere, and in lower case.
type h2Name struct{ raw, lower string }

// name returns a field's name in lower case, and the name itself as a string that may
// be kept, or "". It caches names, which are few.
func (k *h2Link) name(s string) (raw, lower string) {
	if isLower(s) {
		return s, s
	}
	if n, ok := k.names[s]; ok {
		return n.raw, n.lower
	}
	n := h2Name{"", lowerString(s)}
	if len(k.names) < 64 && len(s) < 64 {
		n.raw = strings.Clone(s)
		k.names[n.raw] = n
	}
	return n.raw, n.lower
}

func isLower(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; 'A' <= c && c <= 'Z' {
			return false
		}
	}
	return true
}

func lowerString(s string) string {
	b := make([]byte, len(s))
	for i := range b {
		b[i] = lower(s[i])
	}
	return string(b)
}

// fieldFault returns what makes a field of HTTP/2 malformed, pseudo fields aside
// (RFC 9113, sections 8.2.1 and 8.2.2).
func fieldFault(hf *hpack.HeaderField, k kind) string {
	if !isToken(hf.Name) || !isLower(hf.Name) {
		return "malformed field name"
	}
	switch k {
	case kindConnection, kindTransferEncoding, kindUpgrade:
		return "field " + hf.Name + ", which is for HTTP/1 only"
	case kindTE:
		if !equalFold(hf.Value, "trailers") {
			return "TE other than trailers"
		}
	case kindHop:
		if hf.Name == "keep-alive" || hf.Name == "proxy-connection" {
			return "field " + hf.Name + ", which is for HTTP/1 only"
		}
	}
	return ""
}

// valueFault is fieldFault for the value, which neither begins nor ends with white
// space (RFC 9113, section 8.2.1).
func valueFault(hf *hpack.HeaderField) string {
	if !validValue(hf.Value) || len(trimOWS(hf.Value)) != len(hf.Value) {
		return "malformed value of field " + hf.Name
	}
	return ""
}

// An h2Inbox is the part of a stream's body that has been received and not yet
// read. It is guarded by the mu of the link.
type h2Inbox struct {
	bufs []*l4.Buffer
	pos  int           // in the first buffer
	few  [2]*l4.Buffer // initial array of bufs
}

// put appends a copy of a piece.
func (b *h2Inbox) put(p []byte, pool *l4.BufferPool) {
	for len(p) > 0 {
		var last *l4.Buffer
		if n := len(b.bufs); n > 0 && len(b.bufs[n-1].B) < cap(b.bufs[n-1].B) {
			last = b.bufs[n-1]
		} else {
			if b.bufs == nil {
				b.bufs = b.few[:0]
			}
			last = pool.Get()
			last.B = last.B[:0]
			b.bufs = append(b.bufs, last)
		}
		n := min(len(p), cap(last.B)-len(last.B))
		last.B = append(last.B, p[:n]...)
		p = p[n:]
	}
}

// first returns the first bytes to read, nil if there are none. They stay valid
// until skip.
func (b *h2Inbox) first() []byte {
	if len(b.bufs) == 0 {
		return nil
	}
	return b.bufs[0].B[b.pos:]
}

// skip removes the first n bytes.
func (b *h2Inbox) skip(n int, pool *l4.BufferPool) {
	if b.pos += n; b.pos == len(b.bufs[0].B) {
		pool.Put(b.bufs[0])
		b.bufs = append(b.bufs[:0], b.bufs[1:]...)
		b.pos = 0
	}
}

// drop discards everything and returns how many bytes that was.
func (b *h2Inbox) drop(pool *l4.BufferPool) (n int64) {
	for _, f := range b.bufs {
		n += int64(len(f.B))
		pool.Put(f)
	}
	n -= int64(b.pos)
	b.bufs, b.pos = b.bufs[:0], 0
	return n
}

// wait is where one goroutine waits for another. It is guarded by the mu of a
// link.
type wait struct {
	ch   chan struct{} // nil while no goroutine waits
	due  time.Time     // when the wait times out; zero means never
	late bool          // it has timed out
	at   int           // index among the sleepers, plus 1; 0 means none
}

func (w *wait) wake() {
	if w.ch != nil {
		select {
		case w.ch <- struct{}{}:
		default:
		}
	}
}

// sleepFor waits for wake with the lock released. If d is not 0 it waits for
// about d at most and returns false when that has passed. The caller must check
// its condition again.
func (k *h2Link) sleepFor(w *wait, d time.Duration) bool {
	return k.sleepUntil(w, deadlineIn(time.Now(), d))
}

func (k *h2Link) sleepUntil(w *wait, due time.Time) bool {
	if n := len(k.chans); n > 0 {
		w.ch = k.chans[n-1]
		k.chans = k.chans[:n-1]
	} else {
		w.ch = make(chan struct{}, 1)
	}
	w.late = false
	if w.due = due; !due.IsZero() {
		k.sleep.add(w, k.late)
	}
	k.mu.Unlock()
	<-w.ch
	k.mu.Lock()
	k.sleep.remove(w)
	select {
	case <-w.ch: // already woken
	default:
	}
	k.chans = append(k.chans, w.ch)
	w.ch = nil
	return !w.late
}

// wakeLate wakes the waits that have timed out.
func (k *h2Link) wakeLate() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.sleep.expire(time.Now())
}

// sleepers are the waits of a connection that have a timeout. They share one
// timer, which is only ever moved forward: most waits end long before their
// timeout.
type sleepers struct {
	list  []*wait
	timer *time.Timer
	next  time.Time // when the timer fires; zero means that it is not set
}

func (s *sleepers) add(w *wait, expire func()) {
	s.list = append(s.list, w)
	w.at = len(s.list)
	if !s.next.IsZero() && !w.due.Before(s.next) {
		return
	}
	s.next = w.due
	if d := time.Until(w.due); s.timer == nil {
		s.timer = time.AfterFunc(d, expire)
	} else {
		s.timer.Reset(d)
	}
}

func (s *sleepers) remove(w *wait) {
	if w.at == 0 {
		return
	}
	last := s.list[len(s.list)-1]
	s.list[w.at-1], last.at = last, w.at
	s.list[len(s.list)-1] = nil
	s.list = s.list[:len(s.list)-1]
	w.at = 0
}

func (s *sleepers) expire(now time.Time) {
	s.next = time.Time{}
	for _, w := range s.list {
		switch {
		case !w.due.After(now):
			if !w.late {
				w.late = true
				w.wake()
			}
		case s.next.IsZero() || w.due.Before(s.next):
			s.next = w.due
		}
	}
	if !s.next.IsZero() {
		s.timer.Reset(s.next.Sub(now))
	}
}

func (s *sleepers) stop() {
	if s.timer != nil {
		s.timer.Stop()
		s.next = time.Time{} // or later sleepers would not be woken
	}
}
