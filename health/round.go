// SPDX-License-Identifier: Apache-2.0

package health

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/penstock-lb/penstock/balance"
)

// A round is one Run of a Checker. Its goroutine owns all targets: it starts
// the probes that are due, takes in what they found, and sleeps. Each probe runs
// in a goroutine that ends with it, so that 1000 servers at rest cost one; one
// that the kernel answers at once needs none.
type round struct {
	settings
	c       *Checker
	quick   starter     // the probe, if it is one
	sockets idleSockets // for it
	targets map[key]*target
	due     dueHeap
	busy    int          // probes running
	found   chan finding // has room for all of them: no probe waits to report
	rand    *rand.Rand
	// unprobed counts the targets that cannot be probed, by the reason.
	unprobed map[string]int

	// grid is what the times of many servers are cut to, so that they are
	// probed in small batches: a process that wakes up for each of a thousand
	// servers spends more on waking than on probing.
	grid time.Duration

	members chan struct{} // a pool changed
	wake    chan struct{} // something is in rows or asked
	mu      sync.Mutex    // guards rows and asked
	rows    []*target     // with a row of errors in live traffic
	asked   []*target     // to be probed now
}

// A starter is a probe that may have its result without waiting; see TCP.start.
type starter interface {
	start(balance.Endpoint, *idleSockets) (wait func(context.Context) error, ok bool, err error)
}

// A finding is what one probe brought back.
type finding struct {
	t     *target
	epoch int       // of t when it began
	at    time.Time // when it began
	took  time.Duration
	err   error
}

func newRound(c *Checker, s settings) *round {
	seed := c.Seed
	if seed == 0 {
		seed = rand.Uint64()
	}
	quick, _ := s.probe.(starter)
	return &round{
		settings: s,
		c:        c,
		quick:    quick,
		targets:  make(map[key]*target),
		found:    make(chan finding, s.concurrency),
		rand:     rand.New(rand.NewPCG(seed, seed)),
		grid:     min(s.interval/20, 100*time.Millisecond),
		unprobed: make(map[string]int),
		members:  make(chan struct{}, 1),
		wake:     make(chan struct{}, 1),
	}
}

// run is the loop.
func (r *round) run(ctx context.Context) error {
	var probes sync.WaitGroup
	defer probes.Wait()
	defer r.sockets.close()
	ctx, cancel := context.WithCancel(context.WithValue(ctx, givenTime{}, r.timeout))
	defer cancel()

	for _, p := range r.c.Pools {
		defer p.Watch(func() { poke(r.members) })()
	}
	now := time.Now()
	r.sync(now)
	r.spread(now)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		now = time.Now()
		for r.busy < r.concurrency && ctx.Err() == nil {
			t := r.due.next()
			if t == nil || t.due.After(now) {
				break
			}
			r.start(ctx, &probes, t, now)
		}
		timer.Stop()
		if t := r.due.next(); t != nil && r.busy < r.concurrency {
			timer.Reset(t.due.Sub(now))
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case f := <-r.found:
			r.busy--
			r.finish(f)
		case <-r.members:
			r.sync(time.Now())
		case <-r.wake:
			r.observed(time.Now())
			r.hurry(time.Now())
		case <-timer.C:
		}
	}
}

// poke wakes the goroutine that waits for c, now or at its next check.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// start probes t, or pauses it if all its servers are in maintenance.
func (r *round) start(ctx context.Context, probes *sync.WaitGroup, t *target, now time.Time) {
	i := slices.IndexFunc(t.servers, func(s *balance.Server) bool { return s.State() != balance.StateMaint })
	if i < 0 {
		t.paused = true
		t.due = now.Add(r.interval)
		r.due.set(t)
		return
	}
	if t.paused {
		t.paused = false
		r.begin(t, now, true)
	}
	e, f := t.servers[i].Endpoint(), finding{t: t, epoch: t.epoch, at: now}
	probe := func(ctx context.Context) error { return r.probe.Probe(ctx, e) }
	if r.quick != nil {
		begin := time.Now() // others may have been quick since now
		wait, ok, err := r.quick.start(e, &r.sockets)
		switch {
		case wait != nil:
			probe = wait
		case ok:
			f.err, f.took = err, time.Since(begin)
			r.finish(f)
			return
		}
	}
	r.due.remove(t)
	r.busy++
	t.busy = true
	probes.Go(func() {
		ctx, cancel := ctx, func() {}
		if r.timeout > 0 {
			ctx, cancel = context.WithTimeout(ctx, r.timeout)
		}
		f.err = askGuarded(ctx, r.log, probe)
		cancel()
		f.took = time.Since(f.at)
		r.found <- f
	})
}

// finish takes in what a probe found and sets the time of the next.
func (r *round) finish(f finding) {
	t := f.t
	t.busy = false
	if t.gone {
		return
	}
	if f.epoch != t.epoch {
		r.due.set(t) // it is due already
		return
	}
	r.trouble(t, f.err)
	if r.c.agents != nil {
		r.c.agents.take(t, f.err, r.log)
		r.after(&f, r.interval)
		return
	}
	switch CodeOf(f.err) {
	case CodeOK:
		t.machine.pass()
		t.errors.Store(0)
	case CodeStopping:
		t.machine.stopping()
		t.errors.Store(0)
	case CodeInternal:
		// Not the server's fault: out of descriptors, a pool must not be emptied.
	default:
		t.failed++
		t.machine.fail()
	}
	t.probes++
	r.after(&f, t.machine.interval(r.interval, r.fast, r.down))
	r.tell(Result{Err: f.err, Took: f.took}, t, f.at.Add(f.took))
}

// after sets the time of the next probe: d after the start of the last, longer or
// shorter by at most the jitter.
func (r *round) after(f *finding, d time.Duration) {
	d = min(d, math.MaxInt64/2) // room for the jitter
	if r.c.Jitter > 0 {
		by := time.Duration(float64(d) * r.c.Jitter * (2*r.rand.Float64() - 1))
		d += by.Truncate(r.grid)
	}
	begin := f.t.due // not the start, or the little by which it was late would add up
	if f.at.Sub(begin) > r.grid {
		begin = f.at
	}
	f.t.due = begin.Add(d)
	r.due.set(f.t)
}

// begin gives t its initial state. One that is up is reported only if report is
// set: a new server may have begun unproven, see [balance.Pool.Unproven].
func (r *round) begin(t *target, now time.Time, report bool) {
	t.epoch++
	r.calm(t)
	if r.c.agents != nil {
		return
	}
	t.machine = machine{rise: r.rise, fall: r.fall}
	t.machine.start(r.c.Initial)
	n, of := t.machine.progress()
	t.mu.Lock()
	t.status = Status{Health: t.machine.state, Since: now, Reason: "not checked yet", Due: t.due, Probes: t.probes, Failed: t.failed, Count: n, Of: of, Pending: true}
	t.mu.Unlock()
	for _, s := range t.servers {
		if report || t.machine.state != balance.Up {
			s.Report(balance.Check, t.machine.state, "not checked yet")
		}
	}
}

// tell makes what was found known: to the servers, the status, the log, the host.
func (r *round) tell(res Result, t *target, now time.Time) {
	t.mu.Lock()
	old := t.status
	st := old
	st.Health = t.machine.state
	st.Count, st.Of = t.machine.progress()
	st.Reason = reason(res.Err, &t.machine, old)
	if st.Health != old.Health {
		st.Since = now
	}
	if !res.Passive {
		st.Last, st.Err, st.Took, st.Pending = now, res.Err, res.Took, false
	}
	st.Due, st.Probes, st.Failed = t.due, t.probes, t.failed
	t.status = st
	t.mu.Unlock()

	// Each time, though it is seldom news: a server that left and came back between
	// two probes has forgotten what was said of it.
	health := st.Health
	if health == balance.Up && CodeOf(st.Err) == CodeInternal {
		health = balance.Unknown // it is in use without being checked, which should be visible
	}
	for _, s := range t.servers {
		s.Report(balance.Check, health, st.Reason)
	}
	if st.Health != old.Health {
		r.changed(t, st)
	}
	if r.c.OnResult != nil {
		res.Servers, res.Status = t.servers, st
		tell(r.log, "OnResult", func() { r.c.OnResult(res) })
	}
}

// trouble logs that servers cannot be probed, once for each cause, and once again when
// the last of them can be.
func (r *round) trouble(t *target, err error) {
	before, after := t.unprobed, ""
	if CodeOf(err) == CodeInternal {
		after = AsError(err).Error()
	}
	if before == after {
		return
	}
	last := r.calm(t)
	if t.unprobed = after; after != "" {
		if r.unprobed[after]++; r.unprobed[after] == 1 {
			r.log.Warn("cannot check health", append(whose(r.c.Pools, t.servers[0]), "reason", after)...)
		}
	} else if last {
		r.log.Info("can check health again", append(whose(r.c.Pools, t.servers[0]), "reason was", before)...)
	}
}

// calm forgets that t could not be probed, and reports whether it was the last with that
// reason.
func (r *round) calm(t *target) (last bool) {
	was := t.unprobed
	if was == "" {
		return false
	}
	t.unprobed = ""
	if r.unprobed[was]--; r.unprobed[was] > 0 {
		return false
	}
	delete(r.unprobed, was)
	return true
}

// reason says in words where a server stands and why.
func reason(err error, m *machine, old Status) string {
	n, of := m.progress()
	switch CodeOf(err) {
	case CodeOK:
		if m.state == balance.Down {
			return fmt.Sprintf("passed, %d of %d", n, of)
		}
		return "passed"
	case CodeStopping:
		return AsError(err).Error()
	case CodeInternal:
		return "could not check: " + AsError(err).Error()
	}
	if m.state == balance.Down {
		if old.Health == balance.Down || old.Pending {
			return AsError(err).Error() // one failure was enough, or one more changes nothing
		}
		n, of = m.fall, m.fall
	}
	return fmt.Sprintf("%s, %d of %d", AsError(err).Error(), n, of)
}

// levelOf is the level at which a change to a health is logged.
func levelOf(h balance.Health) slog.Level {
	if h == balance.Down {
		return slog.LevelWarn
	}
	return slog.LevelInfo
}

// changed logs a change of health and cuts what is to be cut.
func (r *round) changed(t *target, st Status) {
	for _, s := range t.servers {
		r.log.Log(context.Background(), levelOf(st.Health), "health changed", append(whose(r.c.Pools, s), "health", st.Health.String(), "reason", st.Reason)...)
		switch {
		case st.Health == balance.Down && r.c.CutDown:
			s.Cut(true, st.Reason)
		case st.Health == balance.Up && r.c.CutBackups && s.Usable(): // it was down or stopping
			r.cutBackups(s)
		}
	}
}

// cutBackups cuts the live connections to the servers that s is preferred to.
func (r *round) cutBackups(s *balance.Server) {
	tier := s.Endpoint().Tier
	for _, p := range r.c.Pools {
		if !slices.Contains(slices.Collect(p.All()), s) {
			continue
		}
		for b := range p.All() {
			if b.Endpoint().Tier > tier {
				b.Cut(true, s.Name()+" is back")
			}
		}
	}
}
