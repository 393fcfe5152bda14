// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"context"
	"crypto/tls"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/penstock-lb/penstock/balance"
)

// An upHost holds the connections to one server.
type upHost struct {
	up  *Upstream
	key hostKey

	counts *upCounts

	mu    sync.Mutex
	idle  []*upConn              // for any session, most recently used last
	owned map[*session][]*upConn // idle, for one session only
	conns map[*upConn]struct{}
	timer *time.Timer // closes idle connections after IdleTimeout; nil if there are none
	cuts  int         // number of calls of Cut: connections opened before the last one are not kept
	gone  bool        // the server has left or moved: no connection is kept

	attached bool // attached to the server; if gone, until there are no connections left

	protocols
	sessions   tls.ClientSessionCache // nil until TLS is used
	sessionsOf string                 // the client certificate of these sessions
	twos       []*h2Conn              // copied on write
	dialing    map[h2Key]*h2Dial      // HTTP/2 dials that other requests wait for
	rooms      map[h2Key]*h2Room      // for requests that wait for HTTP/2
	waiting    atomic.Int32           // length of rooms
	crowds     atomic.Int64           // until when the server seems to take no more HTTP/2 connections, in Unix nanoseconds
	dials      map[*dialing]struct{}  // all dials in progress
}

// Cut implements [balance.Attached]. A server that went down may come back, and may
// be picked in panic mode before that, so connections opened from now on are kept.
// No lock is held while connections are cut, since they may be the host's code.
func (h *upHost) Cut(live bool, reason string) {
	s := h.key.server
	gone := s.State() == balance.StateLeft || s.Addr() != h.key.addr
	if gone {
		h.up.drop(h)
	}
	var busy []*upConn
	h.mu.Lock()
	h.cuts++
	h.gone = h.gone || gone
	if live {
		busy = slices.AppendSeq(busy, maps.Keys(h.conns))
	}
	twos := h.twos
	var dials []*dialing
	if live {
		for d := range h.dials {
			d.reason = &reason
			dials = append(dials, d)
		}
	}
	h.mu.Unlock()
	for _, d := range dials {
		d.cancel(&cutError{reason})
	}
	for _, c := range busy {
		c.cut(reason)
	}
	for _, c := range twos {
		c.cut(live, reason)
	}
	h.closeIdle(time.Time{})
	h.leave()
}

// leave detaches a host that is gone, once it has no connections left.
func (h *upHost) leave() {
	h.mu.Lock()
	last := h.gone && h.attached && len(h.conns)+len(h.twos)+len(h.dials) == 0
	if last {
		h.attached = false
	}
	h.mu.Unlock()
	if last {
		h.key.server.Detach(h)
	}
}

// A dialing is a connection that is being opened. Cut cancels it until a connection
// has replaced it.
type dialing struct {
	cancel context.CancelCauseFunc
	reason *string // why it was cut, nil if it was not; guarded by the host's mu
}

// beginDial adds a dialing, whose dial has to end with the context.
func (h *upHost) beginDial(ctx context.Context) (context.Context, *dialing) {
	ctx, cancel := context.WithCancelCause(ctx)
	d := &dialing{cancel: cancel}
	h.enter(func() {
		if h.dials == nil {
			h.dials = make(map[*dialing]struct{})
		}
		h.dials[d] = struct{}{}
	})
	return ctx, d
}

// endDial ends a dialing without a connection.
func (h *upHost) endDial(d *dialing) {
	d.cancel(nil)
	h.mu.Lock()
	delete(h.dials, d)
	gone := h.gone
	h.mu.Unlock()
	if gone {
		h.leave()
	}
}

// replace replaces a dialing by its connection, which add adds, and returns why
// the dialing was cut, nil if it was not.
func (h *upHost) replace(d *dialing, add func()) (cut *string) {
	d.cancel(nil)
	h.enter(func() {
		delete(h.dials, d)
		cut = d.reason
		add()
	})
	return cut
}

// enter calls add to add a connection to those that Cut ends.
func (h *upHost) enter(add func()) {
	h.mu.Lock()
	add()
	again := !h.attached // it was gone and had no connections
	h.attached = true
	h.mu.Unlock()
	if again {
		h.key.server.Attach(h)
	}
}

// open reports whether the state of the server allows connections to be kept. A
// server that is down may be picked in panic mode.
func (h *upHost) open() bool {
	switch h.key.server.State() {
	case balance.StateMaint, balance.StateLeft:
		return false
	}
	return true
}

// closeIdle closes the idle connections that were last used before t, all of
// them if t is zero.
func (h *upHost) closeIdle(t time.Time) {
	h.mu.Lock()
	var old []*upConn
	h.idle, old = cutOlder(h.idle, t, old)
	for s, list := range h.owned {
		if list, old = cutOlder(list, t, old); len(list) == 0 {
			delete(h.owned, s)
		} else {
			h.owned[s] = list
		}
	}
	if h.timer != nil && len(h.idle)+len(h.owned) == 0 {
		h.timer.Stop()
		h.timer = nil
	}
	h.mu.Unlock()
	for _, c := range old {
		c.close()
	}
}

// cutOlder moves the connections that were last used before t from list to old.
func cutOlder(list []*upConn, t time.Time, old []*upConn) (rest, cut []*upConn) {
	n := 0
	for n < len(list) && (t.IsZero() || list[n].idleAt.Before(t)) {
		n++
	}
	cut = append(old, list[:n]...)
	return slices.Delete(list, 0, n), cut
}

// expire is run by timer while there are idle connections.
func (h *upHost) expire() {
	limit := orDefault(h.up.IdleTimeout, defaultKeepIdle)
	h.closeIdle(time.Now().Add(-limit))
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.timer != nil {
		h.timer.Reset(halfOf(limit))
	}
}

// halfOf is at least 1 ns: a timer of none would run again and again at one time.
func halfOf(d time.Duration) time.Duration { return max(d/2, 1) }

// take returns an idle connection that looks alive and that the session may
// use, or nil. If ask is true, the caller checks it by [l4.Conn.Ask] where that
// is possible.
func (h *upHost) take(id identity, ask bool, use usage) *upConn {
	for {
		h.mu.Lock()
		c := h.takeOwned(id, use.session)
		if c == nil {
			c = h.takeShared(id, use)
		}
		h.mu.Unlock()
		if c == nil {
			return nil
		}
		// Bytes between replies are never a reply, and a server may close an idle
		// connection at any time.
		if fit := c.expires.IsZero() || time.Now().Before(c.expires); fit && (ask && c.quiet.bare() || c.isQuiet()) {
			c.reused = true
			h.counts.reuses.Add(1)
			return c
		}
		c.close()
	}
}

// takeOwned takes the most recently used connection of a session.
func (h *upHost) takeOwned(id identity, s *session) *upConn {
	if s == nil || len(h.owned) == 0 {
		return nil
	}
	list := h.owned[s]
	for i := len(list) - 1; i >= 0; i-- {
		if c := list[i]; c.id == id {
			if list = slices.Delete(list, i, i+1); len(list) == 0 {
				delete(h.owned, s)
			} else {
				h.owned[s] = list
			}
			return c
		}
	}
	return nil
}

// mostLooked is how many of the idle connections takeShared looks at, those used last: more
// would cost more than to open one, if each client has its own (by its PROXY header).
const mostLooked = 512

// takeShared takes the most recently used connection among those that the reuse
// mode prefers.
func (h *upHost) takeShared(id identity, use usage) *upConn {
	best, bestRank := -1, 0
	for i := len(h.idle) - 1; i >= max(0, len(h.idle)-mostLooked); i-- {
		if c := h.idle[i]; c.id == id {
			if rank := h.up.Reuse.rank(use.first, c.requests > 1); rank > bestRank {
				if best, bestRank = i, rank; rank == rankBest {
					break
				}
			}
		}
	}
	if best < 0 {
		return nil
	}
	c := h.idle[best]
	last := len(h.idle) - 1
	copy(h.idle[best:], h.idle[best+1:])
	h.idle[last] = nil
	h.idle = h.idle[:last]
	return c
}

// put keeps a connection for later, or closes it, and reports which.
func (h *upHost) put(c *upConn) bool {
	if m := h.up.MaxRequests; m > 0 && c.requests >= m || h.up.MaxAge > 0 && c.idleAt.After(c.expires) || !h.open() || !h.keep(c) {
		c.close()
		return false
	}
	return true
}

// keep keeps a connection if it can, and reports whether it did.
func (h *upHost) keep(c *upConn) bool {
	var owner *session
	if c.private || h.up.Reuse == ReuseNever {
		if owner = c.session; owner == nil || !owner.note(h) {
			return false
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.gone || c.cuts != h.cuts: // Cut is called after each change of state that open sees
		return false
	case owner == nil:
		if len(h.idle) >= orDefault(h.up.MaxIdle, defaultMaxIdle) {
			return false
		}
		h.idle = append(h.idle, c)
	default:
		if len(h.owned[owner]) >= maxOwned || owner.ended.Load() {
			return false
		}
		if h.owned == nil {
			h.owned = make(map[*session][]*upConn)
		}
		h.owned[owner] = append(h.owned[owner], c)
	}
	if h.timer == nil {
		if limit := orDefault(h.up.IdleTimeout, defaultKeepIdle); limit > 0 {
			h.timer = time.AfterFunc(halfOf(limit), h.expire)
		}
	}
	return true
}

// disown closes the connections kept for a session that has ended.
func (h *upHost) disown(s *session) {
	var twos []*h2Conn
	h.mu.Lock()
	list := h.owned[s]
	delete(h.owned, s)
	if h.up.Reuse == ReuseNever {
		for _, c := range h.twos {
			if c.owner == s {
				twos = append(twos, c)
			}
		}
	}
	h.mu.Unlock()
	for _, c := range list {
		c.close()
	}
	for _, c := range twos {
		c.retire()
	}
}
