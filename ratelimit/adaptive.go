// SPDX-License-Identifier: Apache-2.0

package ratelimit

import (
	"context"
	"math"
	"math/bits"
	"sync"
	"time"
)

// Adaptive is a [Concurrency] that finds its number of places by measurement.
// It measures how long places are held: while that stays at its usual value, no
// queue builds up behind the limit and the limit may grow; when it rises, a
// queue is building up and the limit shrinks. Unlike some, it never cuts the
// limit to a few places just to measure.
//
// Time is cut into windows of at least Window and fifty samples. At the end
// of each, with the 90th percentile of the window (recent) and its moving
// average (baseline), which falls with it at once and rises with it over about
// fifty windows:
//
//	queue = limit * (1 - baseline/recent)
//	queue > 6 log10(limit)                the limit shrinks by log10(limit)
//	queue < 3 log10(limit), and used up   the limit grows by log10(limit)
//
// A limit beyond what the servers can do lifts the baseline with it. So when,
// over the last windows, more in flight meant more time but not more done, the
// limit shrinks too.
//
// The zero Adaptive is ready to use. All methods may be called at once; the
// fields must not change after first use.
//
// Source: the gradient of Netflix' concurrency-limits and the queue bounds of
// TCP Vegas (Brakmo, O'Malley, Peterson, 1994), as failsafe-go joins them.
type Adaptive struct {
	Min     int // places; 0 means 1
	Max     int // 0 means 200; at most 1 000 000 000
	Initial int // 0 means 20, within Min and Max

	MaxQueue int           // callers that may wait for a place; 0 or negative means none
	MaxWait  time.Duration // longest wait; 0 or negative means no limit but the context

	Window time.Duration // shortest window; 0 means 1s. The longest is thirty times that

	once  sync.Once
	clock clock
	gate  Concurrency

	mu    sync.Mutex
	state gradient
	now   time.Duration // the clock as last read
	skip  int           // samples that may do with that
}

func (a *Adaptive) init() {
	a.once.Do(func() {
		s := &a.state
		s.min, s.max = orDefault(a.Min, 1), orDefault(a.Max, 200)
		s.window = min(orDefault(a.Window, time.Second), longest/30)
		s.min = min(s.min, adaptiveMost)
		s.max = min(max(s.min, s.max), adaptiveMost)
		s.limit = float64(min(max(orDefault(a.Initial, 20), s.min), s.max))
		a.gate = Concurrency{Max: int(s.limit), MaxQueue: a.MaxQueue, MaxWait: a.MaxWait}
	})
}

// adaptiveMost is the most places that may be asked for.
const adaptiveMost = 1_000_000_000

// Acquire is that of [Concurrency].
func (a *Adaptive) Acquire(ctx context.Context) error {
	a.init()
	return a.gate.Acquire(ctx)
}

// TryAcquire is that of [Concurrency].
func (a *Adaptive) TryAcquire() bool {
	a.init()
	return a.gate.TryAcquire()
}

// Release gives a place back that was held for work of that length. If it says
// nothing of the servers (the client went away, the answer was local) it is
// negative, and not counted.
func (a *Adaptive) Release(took time.Duration) {
	if took >= 0 {
		held := a.gate.Held()
		a.mu.Lock()
		if a.state.sample(a.read(), took, held) {
			a.gate.SetMax(int(a.state.limit))
		}
		a.mu.Unlock()
	}
	a.gate.Release(took)
}

// read returns the time, or that of up to eight samples ago while the eight
// take next to nothing of a window: to read the clock is the costliest part of
// a sample. It holds the lock.
func (a *Adaptive) read() time.Duration {
	if a.skip > 0 {
		a.skip--
		return a.now
	}
	now := a.clock.now()
	if now-a.now < a.state.window/64 {
		a.skip = 7
	}
	a.now = now
	return now
}

// Limit returns the number of places there are now.
func (a *Adaptive) Limit() int {
	a.init()
	a.mu.Lock()
	defer a.mu.Unlock()
	return int(a.state.limit)
}

// Stats is that of [Concurrency].
func (a *Adaptive) Stats() Stats {
	a.init()
	return a.gate.Stats()
}

// Held returns how many of them are taken.
func (a *Adaptive) Held() int { return a.gate.Held() }

const (
	minSamples = 50
	history    = 12      // windows that correlations look at
	minHistory = 5       // before which they say nothing
	maxUnused  = 5       // the limit does not outgrow what is used by more
	rise       = 2. / 51 // of the baseline to a slower window: an average over 50
	fall       = 1. / 2  // to a faster one
)

// gradient is the state of an Adaptive. It is fed by one goroutine at a time.
type gradient struct {
	min, max int
	window   time.Duration

	limit    float64
	baseline float64 // seconds; 0 before the first window

	begin time.Duration // of this window
	n     int
	peak  int // most in flight
	hist  histogram

	inFlight, done, times ring
}

// sample takes one, and reports whether it ended a window.
func (g *gradient) sample(now, took time.Duration, held int) bool {
	if g.n == 0 {
		g.begin = now - took
	}
	g.n++
	g.peak = max(g.peak, held)
	g.hist.add(took)
	elapsed := now - g.begin
	if elapsed < g.window || g.n < minSamples && elapsed < 30*g.window {
		return false
	}
	g.turn(g.hist.quantile(0.9).Seconds(), float64(g.n)/elapsed.Seconds())
	g.n, g.peak, g.hist = 0, 0, histogram{}
	return true
}

// turn ends a window with that percentile and that many done a second.
func (g *gradient) turn(recent, rate float64) {
	g.inFlight.add(float64(g.peak))
	g.done.add(rate)
	g.times.add(recent)
	if g.baseline == 0 {
		g.baseline = recent
		return
	}
	step := max(1, math.Log10(g.limit))
	queue := 0.0
	if recent > g.baseline {
		queue = g.limit * (1 - g.baseline/recent)
	}
	switch {
	case queue > 6*step || g.futile():
		g.limit -= step
	case queue < 3*step && float64(g.peak) >= 0.8*g.limit && g.limit < maxUnused*float64(g.peak):
		g.limit += step
	}
	g.limit = min(max(g.limit, float64(g.min)), float64(g.max))
	if recent > g.baseline {
		g.baseline += (recent - g.baseline) * rise
	} else {
		g.baseline += (recent - g.baseline) * fall
	}
}

// futile reports whether more in flight brought more time and nothing else.
func (g *gradient) futile() bool {
	return g.inFlight.n >= minHistory &&
		correlation(&g.inFlight, &g.times) > 0.7 && correlation(&g.inFlight, &g.done) < 0.5
}

// A ring is the last values of something.
type ring struct {
	v [history]float64
	n int // ever added
}

func (r *ring) add(v float64) {
	r.v[r.n%history] = v
	r.n++
}

func (r *ring) values() []float64 { return r.v[:min(r.n, history)] }

// correlation is Pearson's, 0 if one of the two does not vary. Variation below
// a hundredth of the mean is none.
func correlation(a, b *ring) float64 {
	x, y := a.values(), b.values()
	var mx, my float64
	for i := range x {
		mx += x[i]
		my += y[i]
	}
	n := float64(len(x))
	mx, my = mx/n, my/n
	var sxy, sxx, syy float64
	for i := range x {
		dx, dy := x[i]-mx, y[i]-my
		sxy, sxx, syy = sxy+dx*dy, sxx+dx*dx, syy+dy*dy
	}
	if sxx <= n*1e-4*mx*mx || syy <= n*1e-4*my*my {
		return 0
	}
	return sxy / math.Sqrt(sxx*syy)
}

// A histogram counts durations in buckets an eighth of a power of two wide.
type histogram struct {
	count [64 * 8]uint32
	n     uint32
}

func (h *histogram) add(d time.Duration) {
	v := uint64(max(d, 8))
	exp := bits.Len64(v) - 1
	h.count[exp*8+int(v>>(exp-3)&7)]++
	h.n++
}

// quantile returns the middle of the bucket in which that part of all lies.
func (h *histogram) quantile(q float64) time.Duration {
	want := uint32(math.Ceil(q * float64(h.n)))
	var seen uint32
	for i, c := range h.count {
		if seen += c; c > 0 && seen >= want {
			exp, part := i/8, i%8
			hi, lo := bits.Mul64(16+2*uint64(part)+1, 1<<exp)
			return time.Duration(hi<<60 | lo>>4)
		}
	}
	return 0
}
