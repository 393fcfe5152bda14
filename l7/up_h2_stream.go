// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/penstock-lb/penstock/l7/internal/h2"
)

// An h2Stream is a request and its reply over an HTTP/2 connection to a server.
// The fields below h2Sender are guarded by the mu of the connection.
type h2Stream struct {
	conn *h2Conn
	sourceEnd
	rep    Reply
	method string
	pump   *pump           // sends the request body; nil if the body was in memory
	begun  bool            // the reserved stream is in use
	over   bool            // it has been released, and st with it; written with the lock held
	asks   bool            // sent as an extended CONNECT, in place of an upgrade
	key    string          // the Sec-WebSocket-Key that HTTP/2 does not need
	pipe   *h2ServerTunnel // the tunnel opened by a 2xx to CONNECT; nil if there is none

	x *Exchange // the exchange whose reply is flushed before a wait; nil if there is none
	bodyWait
	bodyErr error // the error that next has returned
	piece   int   // bytes returned by next and not yet removed from the inbox

	h2Sender
	interim  []Reply             // interim replies not yet relayed
	heads    int                 // number of interim replies received
	came     Reply               // the final reply
	final    bool                // came is complete
	open     bool                // a tunnel follows
	onCut    func(reason string) // tells the tunnel that the server was cut; nil without one
	inbox    h2Inbox             // of the body
	got      int64               // bytes of the body received
	all      bool                // the server has sent the whole reply
	enough   bool                // the rest of the request body must not be sent
	failed   error               // why the stream has ended early
	trailing *Fields
	recv     wait
}

func newH2Stream(c *h2Conn, reused bool) *h2Stream {
	s := &h2Stream{conn: c}
	s.reused = reused
	return s
}

// interrupt may come late: st may be another request's once s is over.
func (s *h2Stream) interrupt() {
	s.interrupted.Store(true)
	c := s.conn
	c.mu.Lock()
	if s.begun && !s.over {
		c.h2.Reset(s.st, h2.Cancel)
	}
	s.wake()
	c.mu.Unlock()
	c.flush()
}

func (s *h2Stream) end() *sourceEnd                { return &s.sourceEnd }
func (s *h2Stream) version() string                { return "2.0" }
func (s *h2Stream) shared() bool                   { return true }
func (s *h2Stream) chunked() bool                  { return false }
func (s *h2Stream) closes() bool                   { return false }
func (s *h2Stream) headCame(time.Time)             {}
func (s *h2Stream) reply() *Reply                  { return &s.rep }
func (s *h2Stream) tlsState() *tls.ConnectionState { return s.conn.state }
func (s *h2Stream) trailers() *Fields              { return s.trailing }
func (s *h2Stream) netConn() (net.Conn, time.Time) { return s.conn.nc, time.Time{} }
func (s *h2Stream) ended() bool                    { return s.bodyErr == io.EOF }
func (s *h2Stream) sending() bool                  { return s.pump.sending() }

// received implements source.
func (s *h2Stream) received() bool {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	return s.all
}

func (s *h2Stream) splice(replyWriter) (tried bool, err error) { return true, nil }

// fault returns why the stream has ended early, or nil. The lock is held.
func (s *h2Stream) fault() error {
	switch {
	case s.interrupted.Load():
		return errInterrupted
	case s.failed != nil:
		return s.failed
	case s.conn.closed && !s.all:
		return s.conn.err
	}
	return nil
}

// unwanted returns why no more of the request is sent, or nil. The lock is
// held.
func (s *h2Stream) unwanted() error {
	if s.enough || s.final && s.all && !s.open {
		return errStopped
	}
	if st := s.st.State(); st == h2.Closed || st == h2.HalfClosedLocal {
		return errStopped
	}
	if s.conn.closed { // also after the end of the reply, which fault is about
		return s.conn.err
	}
	return s.fault()
}

var (
	errInterrupted = errors.New("l7: the client is gone")
	errNoWindow    = fmt.Errorf("l7: the server opens no window: %w", os.ErrDeadlineExceeded)
)

// failure converts an error for the attempt.
func (s *h2Stream) failure(err error) error {
	if err == nil {
		return nil
	}
	if r := s.conn.reason.Load(); r != nil {
		s.cutReason.Store(r)
	}
	if s.pump != nil {
		if perr := s.pump.clientError(); perr != nil {
			return &clientError{perr}
		}
	}
	return err
}

// roundTrip implements source.
func (s *h2Stream) roundTrip(t *attempt, l *try, now time.Time) error {
	if !t.whole {
		t.refusable = true
	}
	s.method = t.method
	err := s.ask(t, l)
	if err == nil {
		err = s.sendRequest(t, l, now)
	}
	body := err != nil
	if err == nil {
		err = s.awaitHead(t, l)
		body = errors.Is(err, errNoWindow)
	}
	switch err = s.failure(err); {
	case err == nil && s.open:
		s.opened(t)
		return nil
	case err == nil || s.lost():
		return err
	case body:
		return t.lateBody(l.deadline, wantsStream(t.x), err)
	}
	return t.lateHead(l, err)
}

// sendRequest sends the head, and the body if it is in memory. Otherwise a pump
// sends the body.
func (s *h2Stream) sendRequest(t *attempt, l *try, now time.Time) error {
	c, x := s.conn, t.x
	req, headLen := t.request(l)
	head := string(req[:headLen]) // HPACK's tables keep parts of it
	body := req[headLen:]
	c.mu.Lock()
	err := c.begin(s)
	if err == nil {
		c.writeRequest(s, x, head)
		switch {
		case !t.whole:
		case s.tunnels():
		case len(body) == 0:
			c.h2.Finish(s.st)
		default:
			err = c.sendData(&s.h2Sender, body, l.within(now, t.bodyTimeout()), s.unwanted)
			if err == errStopped {
				err = nil // there is a reply
			} else if err == nil {
				c.h2.Finish(s.st)
			}
		}
	}
	c.mu.Unlock()
	c.flush()
	t.wrote(l, err)
	if err == nil && !t.whole && !x.expect {
		s.pump = newPump(t, s, true)
	}
	return err
}

// awaitHead waits for the head of the final reply, and relays interim ones.
func (s *h2Stream) awaitHead(t *attempt, l *try) error {
	limit := t.headLimit()
	waiting := t.x.expect // with the body, for a 100
	left, begun := limit, time.Now()
	for {
		now := time.Now()
		due := deadlineIn(now, l.within(now, left))
		if waiting {
			due = now.Add(expectWait)
		}
		r, err := s.nextHead(due)
		switch {
		case err == os.ErrDeadlineExceeded:
			now = time.Now()
			if waiting && !s.gotHead { // no 100 in time: send the body
				waiting = false
				if err := t.x.down.goOn(); err != nil {
					return &clientError{err}
				}
				s.pump = newPump(t, s, true)
				continue
			}
			if !l.deadline.IsZero() && !now.Before(l.deadline) {
				return err
			}
			if left = s.pump.headTime(now, begun, limit); left < 0 {
				return err
			}
			continue
		case err != nil:
			return err
		}
		s.gotHead = true
		t.trace.answers()
		if r.Status >= 200 {
			s.rep = r
			return nil
		}
		if l.race == nil {
			interim := r // a copy, so that r stays off the heap
			if err := t.x.writeInterim(&interim); err != nil {
				return &clientError{err}
			}
		}
		if waiting && r.Status == http.StatusContinue {
			waiting = false
			t.x.expect = false
			s.pump = newPump(t, s, true)
		}
		begun = time.Now()
	}
}

// nextHead waits for a head, interim or final.
func (s *h2Stream) nextHead(due time.Time) (r Reply, err error) {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch {
		case len(s.interim) > 0:
			r = s.interim[0]
			s.interim = s.interim[1:]
			return r, nil
		case s.final:
			return s.came, nil
		case s.pump != nil && s.pump.clientError() != nil:
			return r, s.pump.clientError()
		}
		if err = s.fault(); err != nil {
			return r, err
		}
		if !c.sleepUntil(&s.recv, due) {
			return r, os.ErrDeadlineExceeded
		}
	}
}

func (s *h2Stream) expectBody(x *Exchange, w bodyWait) {
	if s.x, s.bodyWait = x, w; isStream(&s.rep.Header) {
		if s.bodyWait.limit = w.stream; x != nil {
			x.down.probe()
		}
	}
}

// next implements source.
func (s *h2Stream) next() ([]byte, error) {
	if s.bodyErr != nil {
		return nil, s.bodyErr
	}
	c := s.conn
	c.mu.Lock()
	s.used()
	flushed := s.x == nil && len(c.h2.Out) == 0
	limit := s.bodyWait.limit
	for {
		if p := s.inbox.first(); len(p) > 0 {
			s.piece = len(p)
			c.mu.Unlock()
			return p, nil
		}
		err := s.fault()
		switch {
		case err != nil:
		case s.all:
			err = io.EOF
		case s.pump != nil:
			err = s.pump.clientError() // the server waits for the rest
		}
		if err == nil && flushed {
			now := time.Now()
			if !c.sleepUntil(&s.recv, deadlineIn(now, until(now, limit, s.bodyWait.end))) {
				now = time.Now()
				if limit = s.bodyWait.longer(now, s.pump, &s.rep); limit <= 0 {
					err = os.ErrDeadlineExceeded
				}
			}
			if s.x != nil {
				s.x.now = time.Time{} // that was a wait
			}
		}
		if err != nil {
			s.bodyErr = err
			c.mu.Unlock()
			if err != io.EOF {
				s.bodyErr = s.failure(err)
			}
			return nil, s.bodyErr
		}
		if !flushed || len(c.h2.Out) > 0 {
			c.mu.Unlock()
			c.flush() // sends window updates
			if !flushed {
				flushed = true
				if s.x != nil {
					if err := s.x.down.flush(); err != nil {
						return nil, &clientError{err}
					}
				}
			}
			c.mu.Lock()
		}
	}
}

// used removes the piece that next has returned last. The lock is held.
func (s *h2Stream) used() {
	if s.piece > 0 {
		s.inbox.skip(s.piece, &s.conn.host.up.pool)
		s.conn.h2.Consume(s.st, int64(s.piece))
		s.piece = 0
	}
}

// sendPart implements bodySink.
func (s *h2Stream) sendPart(p *pump, buf []byte, n int) error {
	c := s.conn
	c.mu.Lock()
	err := c.sendData(&s.h2Sender, buf[chunkRoomBefore:chunkRoomBefore+n], p.limit, s.unwanted)
	if err == os.ErrDeadlineExceeded {
		s.failed = errNoWindow // not err, which is the timeout of the wait for the head
		s.recv.wake()
	}
	c.mu.Unlock()
	c.flush()
	return err
}

// sendEnd implements bodySink.
func (s *h2Stream) sendEnd(p *pump) error {
	trailer := p.x.trailer()
	c := s.conn
	c.mu.Lock()
	err := s.unwanted()
	switch {
	case err != nil:
	case trailer == nil || trailer.Len() == 0:
		c.h2.Finish(s.st)
	default:
		b := c.h2.WriteHead()
		c.fields(b, trailer)
		b.End(s.st, true)
	}
	c.mu.Unlock()
	c.flush()
	return err
}

// bodyEnded implements bodySink.
func (s *h2Stream) bodyEnded(bool) {
	s.conn.mu.Lock()
	s.recv.wake()
	s.conn.mu.Unlock()
}

func (s *h2Stream) stopSending(t *attempt, keep bool) bool {
	if s.pump == nil {
		s.conn.mu.Lock()
		defer s.conn.mu.Unlock()
		return t.whole && s.begun && s.st.State() != h2.Open && s.st.State() != h2.HalfClosedRemote
	}
	return s.pump.stop(t, keep, func(on bool) {
		s.conn.mu.Lock()
		s.enough = on
		s.send.wake()
		s.conn.mu.Unlock()
	})
}

// release implements source. A stream that is not complete is reset.
func (s *h2Stream) release(bool) { s.close() }

func (s *h2Stream) close() {
	if s.over {
		return
	}
	s.x = nil
	c := s.conn
	c.mu.Lock()
	s.over = true
	if s.pipe != nil {
		s.pipe.nc.broken = s.pipe.nc.broken || !s.all
		s.pipe.nc.close()
	}
	if s.begun {
		code := h2.Cancel
		if s.all {
			code = h2.NoError
		}
		c.h2.Reset(s.st, code)
		s.inbox.drop(&c.host.up.pool)
		c.h2.Free(s.st)
	} else {
		c.reserved--
	}
	last := c.idle()
	if c.useless() {
		c.retired.Store(true)
	}
	c.mu.Unlock()
	c.flush()
	c.giveBack()
	c.host.room(c.id)
	if last && c.retired.Load() {
		c.end(errRetired)
	}
}
