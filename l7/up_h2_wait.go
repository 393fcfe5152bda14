// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"context"
	"time"
)

// An h2Room wakes requests that wait for a new HTTP/2 connection once another one may
// have room for them, one after the other: each that has taken a stream wakes the next,
// and the first that finds no room goes on waiting.
type h2Room struct {
	more chan struct{} // holds a value if there may be room
	n    int           // requests; guarded by the host's mu
}

// room is called when a connection with that identity may have more room.
func (h *upHost) room(id identity) {
	if h.waiting.Load() == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for key, r := range h.rooms {
		if key.id == id {
			r.wakeOne()
		}
	}
}

func (r *h2Room) wakeOne() {
	select {
	case r.more <- struct{}{}:
	default:
	}
}

// An h2Wait is the wait of a request for a connection.
type h2Wait struct {
	host *upHost
	key  h2Key
	room *h2Room         // nil until it has begun
	on   <-chan struct{} // the event that it waits for, with the two below
	late <-chan time.Time
	stop func()
}

// begin must be called before a wait that room on another connection ends. The caller
// has to look again if it returns true, since room may have come before.
func (w *h2Wait) begin() (again bool) {
	if w.room != nil {
		return false
	}
	h := w.host
	h.mu.Lock()
	defer h.mu.Unlock()
	if w.room = h.rooms[w.key]; w.room == nil {
		if h.rooms == nil {
			h.rooms = make(map[h2Key]*h2Room)
		}
		w.key.id = w.key.id.keep() // the map may outlive the request
		w.room = &h2Room{more: make(chan struct{}, 1)}
		h.rooms[w.key] = w.room
		h.waiting.Add(1)
	}
	w.room.n++
	return true
}

// wait waits for an event, and reports whether that has come: otherwise there may be
// room. An event may take ConnectTimeout, or until the deadline of the request.
func (w *h2Wait) wait(ctx context.Context, event <-chan struct{}, l *try) (done bool, err error) {
	if w.on != event {
		if w.stop != nil {
			w.stop()
		}
		w.late, w.stop = w.host.connectTimer(l)
		w.on = event
	}
	var more chan struct{}
	if w.room != nil {
		more = w.room.more
	}
	select {
	case <-event:
		return true, nil
	case <-more:
		return false, nil
	case <-w.late:
		return false, errConnectTimeout
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
}

// took is called when the request has found room.
func (w *h2Wait) took() {
	if w.room != nil {
		w.room.wakeOne()
	}
}

// end ends the wait, if it has begun.
func (w *h2Wait) end() {
	if w.stop != nil {
		w.stop()
	}
	if w.room == nil {
		return
	}
	h := w.host
	h.mu.Lock()
	defer h.mu.Unlock()
	if w.room.n--; w.room.n == 0 {
		delete(h.rooms, w.key)
		h.waiting.Add(-1)
	}
}

// connectTimer fires when the request's time for a connection is over.
func (h *upHost) connectTimer(l *try) (late <-chan time.Time, stop func()) {
	d := until(time.Now(), orDefault(h.up.ConnectTimeout, defaultConnectTimeout), l.deadline)
	if d <= 0 {
		return nil, func() {}
	}
	timer := time.NewTimer(d)
	return timer.C, func() { timer.Stop() }
}

// crowd notes that another HTTP/2 connection could not be opened: for a second, those
// that there are take more than MaxStreams.
func (h *upHost) crowd() { h.crowds.Store(time.Now().Add(time.Second).UnixNano()) }

func (h *upHost) crowded(now time.Time) bool {
	until := h.crowds.Load()
	return until != 0 && now.UnixNano() < until
}

// retireFailed makes the connection take no more streams. If it ends before its
// SETTINGS have come, the server seems to take no more connections: that is noted
// before requests look for another one.
func (c *h2Conn) retireFailed() {
	select {
	case <-c.settled:
	default:
		c.host.crowd()
	}
	c.retired.Store(true)
}
