// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"math"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l7/internal/h2"
)

// An HTTP/2 connection takes streams up to MaxStreams and the server's limit, then
// another one is opened. Only one is opened at a time, so that a burst does not open
// one for each request. Those that wait for it take the place of a stream that ends
// meanwhile. If it cannot be opened, MaxStreams is exceeded for a while.

// h2Conn is an HTTP/2 connection to a server. One goroutine reads it until it
// ends.
type h2Conn struct {
	h2Link   // its mu guards the fields below, from reserved on
	host     *upHost
	id       identity
	nc       net.Conn
	state    *tls.ConnectionState
	expires  time.Time              // zero means never
	owner    *session               // the session that may use it, if Reuse restricts that; guarded by host.mu
	users    int                    // streams of the owner; guarded by host.mu
	requests atomic.Int64           // grows with the lock held
	retired  atomic.Bool            // takes no more streams
	reason   atomic.Pointer[string] // why it was cut
	settled  chan struct{}          // closed when the server's SETTINGS have come, or the connection has ended

	reserved int   // streams reserved and not begun
	begun    bool  // one has
	leaves   bool  // the server ends it without an error, having taken one
	broken   error // why writing has failed; nil if it has not

	// Owned by the goroutine that reads:
	in        input
	readOn    time.Time // time of the last read
	idleAt    time.Time // since when there are no streams, as of the last look
	idleAfter int64     // number of requests then
	pinged    bool      // a PING is not answered yet
	emit      func(*h2.HeaderField)
	cur       *h2Stream // the stream whose head or trailer is being decoded
	decoded   Reply     // the head that is being decoded
	dec       h2ReplyHead
}

// h2Key selects the requests that may share a connection that is being opened.
type h2Key struct {
	id    identity
	owner *session // nil means any session
}

// h2Dial is a dial that other requests wait for.
type h2Dial struct {
	done chan struct{}
	err  error // read after done is closed; nil if the waiting requests should dial themselves
}

// stream returns an HTTP/2 stream to the server, an HTTP/1 connection if the
// server has chosen that, or nothing if another request has just found out that
// it does.
func (h *upHost) stream(ctx context.Context, id identity, t *attempt, l *try) (source, bool, error) {
	if t.login { // it may authenticate the connection, which must not be reused then
		return h.dialStream(ctx, id, t, l)
	}
	key := h2Key{id: id}
	if h.up.Reuse != ReuseAlways {
		key.owner = t.use.session
	}
	alone := h.up.Reuse != ReuseAlways && key.owner == nil
	w := h2Wait{host: h, key: key}
	defer w.end()
	var failed error // why there is no other connection; then this is the last look
	for h.two.Load() {
		h.mu.Lock()
		twos := h.twos
		h.mu.Unlock()
		now := time.Now()
		most := h.up.maxStreams()
		if h.crowded(now) {
			most = math.MaxInt
		}
		var young *h2Conn
		for _, c := range twos {
			switch {
			case c.id != id:
			case !c.hasSettled():
				if h.up.Reuse == ReuseAlways || c.ownedBy(key.owner) {
					young = c
				}
			case c.reserve(now, t.use, most):
				h.counts.reuses.Add(1)
				w.took()
				return newH2Stream(c, true), false, nil
			}
		}
		if failed != nil {
			return nil, false, failed
		}
		if young != nil && !alone {
			if w.begin() {
				continue
			}
			if failed = young.awaitSettings(ctx, &w, l); failed != nil && !errors.Is(failed, errConnectTimeout) {
				return nil, false, failed
			}
			continue
		}
		if alone {
			return h.dialStream(ctx, id, t, l)
		}
		h.mu.Lock()
		d := h.dialing[key]
		if d == nil && (!slices.Equal(h.twos, twos) || most != math.MaxInt && h.crowded(now)) {
			h.mu.Unlock()
			continue // another request took the stream, or found that there is no other connection
		}
		if d == nil {
			d = &h2Dial{done: make(chan struct{})}
			if h.dialing == nil {
				h.dialing = make(map[h2Key]*h2Dial)
			}
			h.dialing[key] = d
			h.mu.Unlock()
			src, dialed, err := h.dialForAll(ctx, key, d, t, l)
			if failed = d.err; failed == nil {
				return src, dialed, err
			}
			continue
		}
		h.mu.Unlock()
		if w.begin() {
			continue
		}
		switch done, err := w.wait(ctx, d.done, l); {
		case err == errConnectTimeout:
			failed = errors.Join(err, errors.New("l7: still connecting for another request"))
		case err != nil:
			return nil, false, err
		case done:
			failed = d.err
		}
	}
	return nil, false, nil
}

// dialForAll is dialStream while other requests wait for it. If the dialer
// panics, they dial themselves.
func (h *upHost) dialForAll(ctx context.Context, key h2Key, d *h2Dial, t *attempt, l *try) (src source, dialed bool, err error) {
	defer func() {
		if err != nil && !l.ownFailure(ctx, err) {
			d.err = err
			h.crowd()
		}
		h.mu.Lock()
		delete(h.dialing, key)
		h.mu.Unlock()
		close(d.done)
	}()
	return h.dialStream(ctx, key.id, t, l)
}

// ownFailure reports whether a dial may have failed for a reason of this request
// only: its client disconnected, it had less time than ConnectTimeout, or it must not
// use this server after an invalid certificate of another.
func (l *try) ownFailure(ctx context.Context, err error) bool {
	return ctx.Err() != nil || !l.deadline.IsZero() && !time.Now().Before(l.deadline) || errors.Is(err, errDistrusted)
}

// dialStream opens a connection.
func (h *upHost) dialStream(ctx context.Context, id identity, t *attempt, l *try) (source, bool, error) {
	id = id.keep()
	nc, d, err := h.dial(ctx, id, h.alpn, t.distrust, l.deadline)
	if err != nil {
		return nil, false, err
	}
	src, err := h.speak(nc, d, id, t.use.session, t.login)
	return src, err == nil, err
}

// speak begins the negotiated protocol.
func (h *upHost) speak(nc net.Conn, d *dialing, id identity, owner *session, once bool) (source, error) {
	st := tlsState(nc)
	if st != nil {
		if st.NegotiatedProtocol != "h2" {
			if !h.one {
				h.endDial(d)
				_ = nc.Close()
				return nil, &tlsError{st.ServerName, errors.New("server does not speak HTTP/2")}
			}
			h.two.Store(false) // from now on requests need not wait for each other's dials
			return h.newConn(nc, d, id, owner), nil
		}
	}
	c := &h2Conn{host: h, id: id, nc: nc, state: st, owner: owner, users: 1, expires: h.expiry(), settled: make(chan struct{}), reserved: 1}
	c.requests.Store(1)
	once = once || !h.open()
	if h.up.Reuse == ReuseNever && (owner == nil || !owner.note(h)) {
		once = true
	}
	// A write may block on a server that does not read, for longer than a request
	// may take. So a request never writes for others.
	c.apart = true
	c.start(l4.NewConn(nc), false, defaultSendTimeout, h2ClientConfig(h.up.maxStreams()), c.unwritable, func(f func()) { go f() })
	cut := h.replace(d, func() {
		h.twos = append(slices.Clip(h.twos), c)
		once = once || h.gone
	})
	if once {
		c.retired.Store(true)
	}
	go c.read()
	if cut != nil {
		c.cut(true, *cut)
	}
	return newH2Stream(c, false), nil
}

// hasSettled reports whether the server's SETTINGS have come, which limit the
// number of streams. The request for which the connection was opened does not
// wait for them, since nearly all servers allow one.
func (c *h2Conn) hasSettled() bool {
	select {
	case <-c.settled:
		return true
	default:
		return c.retired.Load()
	}
}

// awaitSettings waits for the server's SETTINGS, or for room on another connection.
func (c *h2Conn) awaitSettings(ctx context.Context, w *h2Wait, l *try) error {
	_, err := w.wait(ctx, c.settled, l)
	if err == errConnectTimeout {
		if l.deadline.IsZero() || time.Now().Before(l.deadline) {
			c.host.crowd()
			c.retire() // so that others do not wait
		}
		return errors.Join(err, errors.New("l7: no SETTINGS from the server"))
	}
	// A cut ends streams, which makes room, before it is known that no SETTINGS come. It
	// is of all connections to the server: there is room on none.
	if r := c.reason.Load(); err == nil && r != nil {
		return &cutError{*r}
	}
	return err
}

// reserve reserves a stream, if the server allows it and the connection has fewer than
// most.
func (c *h2Conn) reserve(now time.Time, use usage, most int) bool {
	m := int64(c.host.up.MaxRequests)
	switch {
	case c.retired.Load():
		return false
	case !c.expires.IsZero() && now.After(c.expires), m > 0 && c.requests.Load() >= m:
		c.retire()
		return false
	}
	if c.host.up.Reuse != ReuseAlways && !c.claim(use) {
		return false
	}
	c.mu.Lock()
	ok := !c.closed && c.h2.Room() > c.reserved && c.h2.Open()+c.reserved < most && (m <= 0 || c.requests.Load() < m)
	if ok {
		c.reserved++
		c.requests.Add(1)
	}
	c.mu.Unlock()
	if !ok {
		c.giveBack()
	}
	return ok
}

// claim reports whether the reuse mode lets a request use the connection, and
// assigns the connection to its session.
func (c *h2Conn) claim(use usage) bool {
	c.host.mu.Lock()
	defer c.host.mu.Unlock()
	mine := use.session != nil && c.owner == use.session
	switch r := c.host.up.Reuse; {
	case r == ReuseNever, c.users > 0:
		if !mine {
			return false
		}
	case r.rank(use.first, c.requests.Load() > 1) == 0:
		return false
	}
	c.owner = use.session
	c.users++
	return true
}

// ownedBy reports whether the connection belongs to the session.
func (c *h2Conn) ownedBy(s *session) bool {
	c.host.mu.Lock()
	defer c.host.mu.Unlock()
	return c.owner == s
}

// giveBack undoes claim.
func (c *h2Conn) giveBack() {
	if c.host.up.Reuse != ReuseAlways {
		c.host.mu.Lock()
		c.users--
		c.host.mu.Unlock()
	}
}

// retire ends the connection once its current streams have ended.
func (c *h2Conn) retire() {
	c.retired.Store(true)
	c.mu.Lock()
	idle := c.idle()
	c.mu.Unlock()
	if idle {
		c.end(errRetired)
	}
}

// idle reports whether there are no streams. The lock is held.
func (c *h2Conn) idle() bool { return c.reserved+c.h2.Open() == 0 }

// useless reports whether there are no streams, and the server allows none. The lock is
// held.
func (c *h2Conn) useless() bool { return c.idle() && c.h2.Room() == 0 }

var errRetired = errors.New("l7: connection is retired")

func (c *h2Conn) forget() {
	h := c.host
	h.mu.Lock()
	if i := slices.Index(h.twos, c); i >= 0 {
		h.twos = slices.Concat(h.twos[:i], h.twos[i+1:])
	}
	gone := h.gone
	h.mu.Unlock()
	if gone {
		h.leave()
	}
}

// cut ends the connection: at once if live is set, else when its streams have ended.
func (c *h2Conn) cut(live bool, reason string) {
	if live {
		c.reason.Store(&reason)
		tunnels := c.tunnels()
		c.end(&cutError{reason})
		for _, tell := range tunnels {
			tell(reason)
		}
		return
	}
	c.retire()
}

// closeIfIdle closes a connection without streams.
func (c *h2Conn) closeIfIdle() {
	c.mu.Lock()
	idle := c.idle()
	c.mu.Unlock()
	if idle {
		c.retire()
	}
}

// end closes the connection and fails its streams.
func (c *h2Conn) end(err error) {
	c.retireFailed()
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return
	}
	polite := err == errRetired && !c.writing
	if c.closed = true; c.err == nil { // leaving may have set a more specific one
		c.err = err
	}
	c.each(func(st *h2.Stream) { st.Owner.(*h2Stream).wake() })
	c.sleep.stop()
	if polite {
		c.h2.Leave(false, h2.NoError, "")
	}
	c.mu.Unlock()
	c.forget()
	shut := func() { _ = quietly(slog.Default(), func() { _ = c.nc.Close() }) }
	if !polite || !c.mayWrite() {
		shut()
		return
	}
	c.spawn(func() {
		c.writeAll()
		shut()
	})
}

func (s *h2Stream) wake() {
	s.recv.wake()
	s.send.wake()
}
