// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"context"
	"sync"
	"time"

	"github.com/penstock-lb/penstock/balance"
)

// A frame is one reading of all figures, and the pages made from it. All viewers share
// it until the next one.
type frame struct {
	at   time.Time
	snap *Snapshot

	mu    sync.Mutex
	pages map[string][]byte // live parts, by the query; bounded
}

// framePages is for how many queries a frame keeps pages.
const framePages = 64

// firstLook is how long the first viewer waits, so that there are rates.
const firstLook = 250 * time.Millisecond

// latest returns a frame that is younger than Interval. One caller builds it, and the
// others wait.
func (h *Handler) latest(ctx context.Context) (*frame, error) {
	for {
		h.mu.Lock()
		f, wait := h.last, h.building
		if f != nil && !h.stale && time.Since(f.at) < h.interval() {
			h.mu.Unlock()
			return f, nil
		}
		if wait == nil {
			h.building = make(chan struct{})
			h.mu.Unlock()
			return h.build(ctx)
		}
		h.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// build makes a frame. The caller has set h.building.
func (h *Handler) build(ctx context.Context) (f *frame, err error) {
	defer func() {
		h.mu.Lock()
		if f != nil {
			h.last, h.stale = f, false
		}
		close(h.building)
		h.building = nil
		h.mu.Unlock()
	}()
	if m := &h.memory; time.Since(m.at) > max(time.Minute, 2*h.interval()) {
		h.read(time.Now())
		t := time.NewTimer(firstLook)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	now := time.Now()
	return &frame{at: now, snap: h.read(now), pages: make(map[string][]byte)}, nil
}

// spoil makes the next viewer see a change that has just been made.
func (h *Handler) spoil() {
	h.mu.Lock()
	h.stale = true
	h.mu.Unlock()
}

// memory holds what is needed from earlier frames. It belongs to the goroutine that
// builds one.
type memory struct {
	now, at  time.Time // of this reading, and of the marks; zero if there are none
	interval time.Duration
	span     float64 // seconds since the last marks; 0 if there were none
	moves    bool    // this frame sets new marks
	servers  map[*balance.Server]*past
	totals   map[string]mark
	lately   map[string]*window
}

// A mark is totals at the last frame, and the rates since the one before.
type mark struct {
	totals [3]uint64
	rates  [3]float64
}

// begin begins a frame. If it follows the last one soon, it keeps the rates of that.
func (m *memory) begin(now time.Time, interval time.Duration) {
	m.now, m.interval = now, interval
	d := now.Sub(m.at)
	if m.moves = m.at.IsZero() || d >= min(interval, firstLook)/2; !m.moves {
		return
	}
	if m.span = d.Seconds(); m.at.IsZero() {
		m.span = 0
	}
	m.at = now
}

// rates returns the growth of totals per second.
func (m *memory) rates(key string, totals [3]uint64) [3]float64 {
	k, known := m.totals[key]
	if m.moves || !known {
		k = k.next(totals, m.span, known)
		m.totals[key] = k
	}
	return k.rates
}

func (k mark) next(totals [3]uint64, span float64, known bool) mark {
	n := mark{totals: totals}
	for i, t := range totals {
		if known && span > 0 && t >= k.totals[i] { // otherwise the total was cleared
			n.rates[i] = float64(t-k.totals[i]) / span
		}
	}
	return n
}

// lateSpan is half of the longest time that a window covers.
const lateSpan = 30 * time.Second

// A window has totals of half a minute to a minute ago. What has gone wrong stays a
// problem for that long: the rates of one Interval would show what happens every few
// seconds to those only who look at the right one.
type window struct {
	old, mid [3]uint64
	midAt    time.Time
}

// grown returns by how much totals have grown lately, nothing if the last reading is too
// long ago to tell.
func (w *window) grown(totals [3]uint64, now time.Time, interval time.Duration) (by [3]uint64) {
	d := now.Sub(w.midAt)
	switch {
	case d > 2*max(lateSpan, interval):
		w.old, w.mid, w.midAt = totals, totals, now
	case d >= lateSpan:
		w.old, w.mid, w.midAt = w.mid, totals, now
	}
	for i, t := range totals {
		if t < w.old[i] { // the total was cleared
			w.old[i], w.mid[i] = t, t
		}
		by[i] = t - w.old[i]
	}
	return by
}

// grown returns by how much totals have grown lately.
func (m *memory) grown(key string, totals [3]uint64) [3]uint64 {
	w := m.lately[key]
	if w == nil {
		w = new(window)
		m.lately[key] = w
	}
	return w.grown(totals, m.now, m.interval)
}

// past is the history of a server.
type past struct {
	mark
	window
	lately [3]uint64 // by how much the totals of mark have grown lately
	known  bool
	seen   bool // in this frame
	old    balance.Histogram
	mid    balance.Histogram
	midAt  time.Time
	recent balance.Histogram // of the last half minute to minute
	line   [60]float32       // of rates, the newest at n-1
	n      int
}

const latencySpan = 30 * time.Second

// server adds the figures of s.
func (m *memory) server(s *balance.Server, st *balance.ServerStats, now time.Time) *past {
	p := m.servers[s]
	if p == nil {
		p = new(past)
		m.servers[s] = p
	}
	if p.seen { // in two pools
		return p
	}
	p.seen = true
	totals := [3]uint64{st.Picks, st.Outcomes.Failed(), st.Outcomes.Total()}
	p.lately = p.grown(totals, now, m.interval)
	if !m.moves && p.known {
		return p
	}
	p.mark = p.next(totals, m.span, p.known)
	if p.midAt.IsZero() || now.Sub(p.midAt) >= latencySpan {
		if p.old = p.mid; p.midAt.IsZero() {
			p.old = st.Latency
			if m.span == 0 { // the first frame has only totals to show
				p.old = balance.Histogram{}
			}
		}
		p.mid, p.midAt = st.Latency, now
	}
	p.recent = st.Latency
	p.recent.Sub(&p.old)
	if p.known {
		if p.n == len(p.line) {
			copy(p.line[:], p.line[1:])
			p.n--
		}
		p.line[p.n] = float32(p.rates[0])
		p.n++
	}
	p.known = true
	return p
}

// end drops servers that are no longer in a pool.
func (m *memory) end() {
	for s, p := range m.servers {
		if !p.seen {
			delete(m.servers, s)
		}
		p.seen = false
	}
}
