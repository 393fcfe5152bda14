// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"context"
	"crypto/tls"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/penstock-lb/penstock/balance"
)

// An upHost holds the connections to one server.
type upHost struct {
	up  *Upstream
	key hostKey

	counts *upCounts

	mu    sync.Mutex
	idle  []*upConn              // for anybody; used last comes last
	owned map[*session][]*upConn // idle as well, but for one session only
	conns map[*upConn]struct{}
	timer *time.Timer // closes idle connections in time; nil if there are none
	cuts  int         // how often the server was in trouble: what was opened before is not kept
	gone  bool        // the server has left or moved: nothing is kept

	attached bool // to the server; one that is gone stays so while there are connections to cut

	protocols
	sessions   tls.ClientSessionCache // nil as long as there was no TLS
	sessionsOf string                 // the client certificate they were begun with
	twos       []*h2Conn              // never changed in place
	dialing    map[h2Key]*h2Dial      // of HTTP/2, that others wait for
	dials      map[*dialing]struct{}  // all that are under way
}

// Cut implements [balance.Attached]. A server that went down may come back, and
// may be picked in a panic before that: what is opened from now on is kept. No lock
// is held while connections are cut, as they may be the host's own.
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

// leave detaches a host that is gone once it has no connection left.
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

// A dialing is a connection that is being opened. It is part of what Cut ends until
// the connection has taken its place.
type dialing struct {
	cancel context.CancelCauseFunc
	reason *string // why it was cut, nil if it was not; guarded by mu of the host
}

// beginDial makes a dialing, whose dial has to end with the context.
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

// endDial ends a dialing that no connection has come of.
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

// replace has a connection take the place of the dialing that it comes of, by add,
// and returns why that was cut, nil if it was not.
func (h *upHost) replace(d *dialing, add func()) (cut *string) {
	d.cancel(nil)
	h.enter(func() {
		delete(h.dials, d)
		cut = d.reason
		add()
	})
	return cut
}

// enter adds a connection, by add, to those that Cut ends.
func (h *upHost) enter(add func()) {
	h.mu.Lock()
	add()
	again := !h.attached // it was gone, and without connections
	h.attached = true
	h.mu.Unlock()
	if again {
		h.key.server.Attach(h)
	}
}

// open reports whether connections are worth keeping, as far as the server's state
// goes. One that is down may be picked in a panic.
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

// expire runs by timer while there are idle connections.
func (h *upHost) expire() {
	limit := orDefault(h.up.IdleTimeout, defaultKeepIdle)
	h.closeIdle(time.Now().Add(-limit))
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.timer != nil {
		h.timer.Reset(limit / 2)
	}
}

// take returns an idle connection that looks alive and that the session may
// have, or nil. If ask is true, the caller will look by [l4.Conn.Ask] where
// that can.
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
		// What a server sends between replies is never a reply, and one that
		// closed an idle connection has done no wrong.
		if fit := c.expires.IsZero() || time.Now().Before(c.expires); fit && (ask && c.quiet.bare() || c.quiet.is()) {
			c.reused = true
			h.counts.reuses.Add(1)
			return c
		}
		c.close()
	}
}

// takeOwned takes the connection of a session that was used last.
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

// takeShared takes the connection that was used last, of those that the mode
// of reuse likes best.
func (h *upHost) takeShared(id identity, use usage) *upConn {
	best, bestRank := -1, 0
	for i := len(h.idle) - 1; i >= 0; i-- {
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

// keep reports whether a connection can be kept, and keeps it then.
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
	case h.gone || c.cuts != h.cuts: // Cut follows each change of state that open sees
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
			h.timer = time.AfterFunc(limit/2, h.expire)
		}
	}
	return true
}

// disown ends what is kept for a session that has ended.
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
