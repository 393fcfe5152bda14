// SPDX-License-Identifier: Apache-2.0

package health

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/penstock-lb/penstock/balance"
)

// An outlierRun is one Run of an Outlier. Its goroutine owns all ejections.
type outlierRun struct {
	o        *Outlier
	interval time.Duration
	base     time.Duration
	max      time.Duration
	trial    time.Duration // 0 means without end
	volume   int
	servers  int
	share    float64
	keep     int
	log      *slog.Logger
	rand     *rand.Rand

	order      []*balance.Server // the members, in the order of the pool
	candidates map[*balance.Server]*candidate
	members    chan struct{} // the pool changed
	wake       chan struct{} // Observe has told something
}

func newOutlierRun(o *Outlier) *outlierRun {
	seed := o.Seed
	if seed == 0 {
		seed = rand.Uint64()
	}
	base := or(o.Base, 30*time.Second)
	t := &outlierRun{
		o:          o,
		interval:   or(o.Interval, 10*time.Second),
		base:       base,
		max:        max(or(o.Max, 300*time.Second), base),
		trial:      max(or(o.Trial, base), 0),
		volume:     or(o.Volume, 100),
		servers:    or(o.Servers, 5),
		share:      or(o.MaxShare, 0.1),
		keep:       or(o.Keep, 1),
		log:        o.logger(),
		rand:       rand.New(rand.NewPCG(seed, seed)),
		candidates: make(map[*balance.Server]*candidate),
		members:    make(chan struct{}, 1),
		wake:       make(chan struct{}, 1),
	}
	return t
}

func (t *outlierRun) run(ctx context.Context) error {
	defer t.o.Pool.Watch(func() { poke(t.members) })()
	t.o.wake.Store(&t.wake)
	t.sync()
	defer t.release()

	sweep := time.Now().Add(t.interval)
	timer := time.NewTimer(t.interval)
	defer timer.Stop()
	var refill time.Time // when to look whether too few are left; zero: all are in
	for {
		next, anyOut := sweep, false
		for _, x := range t.candidates {
			if x.timed() && x.until.Before(next) {
				next = x.until
			}
			anyOut = anyOut || x.now != isIn
		}
		if !anyOut {
			refill = time.Time{}
		} else if refill.IsZero() { // else observations that keep coming would put it off
			refill = time.Now().Add(time.Second)
		}
		if anyOut && refill.Before(next) {
			next = refill
		}
		timer.Reset(time.Until(next))
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-t.members:
			t.sync()
		case <-t.wake:
			t.takeNews(time.Now())
		case <-timer.C:
			now := time.Now()
			t.end(now)
			t.try(now)
			t.refill()
			refill = time.Time{}
			if !now.Before(sweep) {
				t.sweep(now)
				sweep = now.Add(t.interval)
			}
		}
	}
}

// sync brings the candidates in line with the pool.
func (t *outlierRun) sync() {
	t.order = slices.Collect(t.o.Pool.All())
	seen := make(map[*balance.Server]*candidate, len(t.order))
	for _, s := range t.order {
		x := t.candidates[s]
		if x == nil {
			x = new(candidate)
		}
		seen[s] = x
	}
	for s, x := range t.candidates {
		if seen[s] == nil {
			t.restore(s, x, "left the set") // it may come back
		}
	}
	t.candidates = seen
	t.o.watched.Store(&seen)
}

// release ends all ejections.
func (t *outlierRun) release() {
	t.o.watched.Store(nil)
	for s, x := range t.candidates {
		t.restore(s, x, "outlier ejection ended")
	}
}

// restore puts s into full use.
func (t *outlierRun) restore(s *balance.Server, x *candidate, reason string) {
	if x.now == isIn {
		return
	}
	x.set(isIn)
	s.SetTrial(false)
	s.Report(balance.Outlier, balance.Up, reason)
}

// set changes the phase, and begins to count anew.
func (x *candidate) set(p phase) {
	x.now = p
	x.phase.Store(uint32(p))
	x.good.Store(0)
	x.bad.Store(0)
	x.row.Store(0)
	x.gateway.Store(0)
}

// takeNews takes in what Observe had to tell.
func (t *outlierRun) takeNews(now time.Time) {
	for _, s := range t.order {
		x := t.candidates[s]
		n := x.observed.Swap(nil)
		pardon := x.returnReason.Swap(nil)
		switch {
		case pardon != nil && x.now != isIn:
			t.restore(s, x, *pardon)
			x.times = 0
			t.announce(s, x, Returned, *pardon, 0)
		case n == nil:
		case x.now == onTrial && n.good:
			t.restore(s, x, "well again")
			t.announce(s, x, Returned, "well again", 0)
		case x.now == onTrial && n.row == 0:
			t.ejectIfAllowed(now, s, x, "failed on trial: "+describe(n.last))
		case x.now == isIn && n.row > 0:
			t.ejectIfAllowed(now, s, x, fmt.Sprintf("%d errors in a row, last %s", n.row, describe(n.last)))
		}
	}
}

// ejectIfAllowed ejects s if one more may be out. If not it stays in use, in full use if it was
// on trial.
func (t *outlierRun) ejectIfAllowed(now time.Time, s *balance.Server, x *candidate, reason string) {
	out, left := 0, 0 // of the others
	for _, other := range t.order {
		switch {
		case other == s:
		case t.candidates[other].now != isIn:
			out++ // on trial too: that is no place for all the work
		case other.Usable():
			left++
		}
	}
	if mayEject(len(t.order), out, left, t.share, t.keep) {
		t.eject(now, s, x, reason)
		return
	}
	t.restore(s, x, "kept")
	x.row.Store(0)
	x.gateway.Store(0)
	if !x.kept {
		x.kept = true
		t.announce(s, x, Kept, fmt.Sprintf("%s; %d of %d are out, %d would be left", reason, out, len(t.order), left), 0)
	}
}

// eject takes s out of use.
func (t *outlierRun) eject(now time.Time, s *balance.Server, x *candidate, reason string) {
	var extra time.Duration
	if t.o.Jitter > 0 {
		extra = time.Duration(t.rand.Int64N(int64(t.o.Jitter)))
	}
	span := x.eject(now, t.base, t.max, extra)
	x.set(isOut)
	s.Report(balance.Outlier, balance.Down, reason)
	s.SetTrial(false)
	t.announce(s, x, Ejected, reason, span)
}

// try puts those on trial whose time is up.
func (t *outlierRun) try(now time.Time) {
	for _, s := range t.order {
		if x := t.candidates[s]; x.due(now) {
			s.SetTrial(true) // first: what ends from now on knows whether it is of the trial
			x.observed.Store(nil)
			x.set(onTrial)
			x.try(now, t.trial)
			s.Report(balance.Outlier, balance.Up, "on trial")
			t.announce(s, x, OnTrial, "time is up", 0)
		}
	}
}

// end ends the trials that have lasted long enough, of servers that work on what was
// taken since. The others go on: there is nothing to judge by.
func (t *outlierRun) end(now time.Time) {
	for _, s := range t.order {
		x := t.candidates[s]
		if !x.tried(now) {
			continue
		}
		if !s.Trying() {
			x.try(now, t.trial)
			continue
		}
		t.restore(s, x, "trial is over")
		t.announce(s, x, Returned, "no failure on trial", 0)
	}
}

// refill brings servers back, those that were on trial or are out for the longest time
// first, if fewer than Keep are left because others went out of use for another reason.
func (t *outlierRun) refill() {
	var back []*balance.Server
	left := 0
	for _, s := range t.order {
		if t.candidates[s].now == isIn && s.Usable() {
			left++
		}
	}
	if left >= t.keep {
		return
	}
	for _, e := range t.o.Pool.Explain() {
		if x := t.candidates[e.Server]; x != nil && x.now != isIn && onlyOutlier(&e) {
			back = append(back, e.Server)
		}
	}
	slices.SortStableFunc(back, func(a, b *balance.Server) int {
		xa, xb := t.candidates[a], t.candidates[b]
		return cmp.Or(cmp.Compare(xb.now, xa.now), xa.until.Compare(xb.until))
	})
	for _, s := range back[:min(len(back), t.keep-left)] {
		x := t.candidates[s]
		t.restore(s, x, "too few servers are left")
		t.announce(s, x, Returned, "too few servers are left", 0)
	}
}

// onlyOutlier reports whether only an outlier detector keeps a server out of use.
func onlyOutlier(e *balance.Explanation) bool {
	return e.Operator.Admin == balance.Ready && !slices.ContainsFunc(e.Reports, func(r balance.Report) bool {
		return r.By != balance.Outlier && r.Health != balance.Up && r.Health != balance.Unknown
	})
}

// sweep ends an interval: it compares the shares of those with enough volume,
// and ejects the worst first.
func (t *outlierRun) sweep(now time.Time) {
	type share struct {
		s    *balance.Server
		x    *candidate
		rate float64 // of success
		bad  float64 // share of errors
	}
	var shares []share
	var rates []float64
	for _, s := range t.order {
		x := t.candidates[s]
		good, bad := float64(x.good.Swap(0)), float64(x.bad.Swap(0))
		if x.now == isIn && good+bad >= float64(t.volume) {
			shares = append(shares, share{s, x, good / (good + bad), bad / (good + bad)})
			rates = append(rates, good/(good+bad))
		}
		x.sweep()
	}
	if len(shares) < t.servers {
		return
	}
	slices.SortStableFunc(shares, func(a, b share) int { return cmp.Compare(a.rate, b.rate) })
	factor := or(t.o.Deviation, 1.9)
	low := bound(rates, factor)
	for _, h := range shares {
		switch {
		case t.o.FailureShare > 0 && h.bad >= t.o.FailureShare:
			t.ejectIfAllowed(now, h.s, h.x, fmt.Sprintf("%.1f%% errors", 100*h.bad))
		case factor > 0 && h.rate < low:
			t.ejectIfAllowed(now, h.s, h.x, fmt.Sprintf("%.1f%% success where %.1f%% is the least", 100*h.rate, 100*low))
		}
	}
}

// announce makes a change known.
func (t *outlierRun) announce(s *balance.Server, x *candidate, kind EjectionKind, reason string, span time.Duration) {
	level := slog.LevelInfo
	if kind == Ejected || kind == Kept {
		level = slog.LevelWarn
	}
	t.log.Log(context.Background(), level, "outlier "+kind.String(), append(whose([]*balance.Pool{t.o.Pool}, s), "reason", reason, "times", x.times, "for", span)...)
	if t.o.OnEjection != nil {
		tell(t.log, "OnEjection", func() {
			t.o.OnEjection(Ejection{Server: s, Kind: kind, Reason: reason, For: span, Times: x.times})
		})
	}
}
