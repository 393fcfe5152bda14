// SPDX-License-Identifier: Apache-2.0

package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"
)

// Leased is a [Shared] limit that decides without a round trip. Each gateway has a small
// part of the law on lease: what fits in it is admitted at once, and charged to the store
// afterwards, many at a time.
//
//	limit := &ratelimit.Leased[string]{Shared: &ratelimit.Shared[string]{
//		Store: store, Law: ratelimit.GCRA{Rate: ratelimit.PerSecond(10_000)}, Gateways: share.Count,
//	}}
//	go limit.Run(ctx)
//	d := limit.Take("acme", 1)
//
// What is not charged yet is at most Ahead of the law's limit (its burst or count), for all
// gateways together: they never admit more than that beyond what the store has granted. A gateway
// that is busy while the limit is far also takes from the store in advance what it will need during two
// questions. What it then does not use within 100 ms it gives back.
//
// A Take that does not fit in the lease asks the store, as a Shared does: at the
// beginning of a burst, mostly. Near the limit, with less than Ahead of it left, such a Take is
// refused instead, and so are all until the store can have some again.
//
// A lease is of 1 at least if the law's limit is Gateways/Ahead or more: 150 with three gateways.
// Of smaller laws each Take asks the store, and so it does under Window.CountRefused,
// GCRA.MaxWait, InFlight and laws of a host's own.
//
// While the store is away, or does not answer for a key, what the lease does not cover is
// decided by Shared.Local: an n-th of the law for each gateway, which begins with an n-th of what the
// store had given out. What was admitted so is charged when the store is back, but for
// what time has brought back since. Limits stay local for Shared.Retry after that, until all gateways
// have told the store. A gateway that starts while the store is away begins with an n-th of the whole. A store that has lost its state is told in this way what it should know. (A
// Window takes what was used as used just now, and admits less for a while around an
// outage than it would.)
//
// A lease takes about 400 bytes. A Decision's Remaining, Reset and Wait are those that the store
// last returned, without what others have taken since. All methods may be called at once; the
// fields must not change after first use.
type Leased[K comparable] struct {
	Shared *Shared[K] // the limit. Its Store and Gateways are needed

	Ahead       float64 // of a law's limit, for all gateways together, admitted before the store has heard of it; 0 means 0.02, at most 1
	Max         int     // leases kept at most; of what finds no place each Take is asked for. 0 means 65 536
	Concurrency int     // questions to the store at once; 0 means 64

	once    sync.Once
	seed    maphash.Seed
	shards  [leaseShards]leaseShard[K]
	lives   atomic.Uint32
	queue   leaseQueue[K]
	running atomic.Bool
}

// ErrRunning is the error of a Run beside another.
var ErrRunning = errors.New("ratelimit: it is running already")

const leaseShards = 64

// A leaseShard holds the leases of some keys.
type leaseShard[K comparable] struct {
	mu sync.Mutex
	m  map[K]*held[K]
	_  [48]byte // so that no two share a cache line
}

// held is a lease with what it takes to ask for it. All but what is said to be guarded by
// the queue is guarded by the shard.
type held[K comparable] struct {
	lease
	key   K
	text  string // in the store
	shard *leaseShard[K]
	life  uint32        // in decisions, to tell it from others of the same key
	queue uint8         // notQueued, queued, or queuedNow
	due   time.Duration // guarded by the queue
	index int           // in the heap, or -1; likewise
}

const (
	notQueued uint8 = iota
	queued
	queuedNow
)

func (l *Leased[K]) init() {
	l.once.Do(func() {
		l.Shared.init()
		l.seed = maphash.MakeSeed()
		l.queue.wake = make(chan struct{}, 1)
	})
}

func (l *Leased[K]) ahead() float64 {
	if l.Ahead == 0 {
		return 0.02
	}
	return l.Ahead
}

// late is after which a question makes what the lease does not cover local.
func (l *Leased[K]) late() time.Duration {
	if t := l.Shared.Timeout; t > 0 {
		return t / 4
	}
	return 25 * time.Millisecond
}

// Take takes n for key, or tells why not. It waits for the store only as said above, for
// Shared.Timeout at most. While Run does not run it is that of [Shared].
func (l *Leased[K]) Take(key K, n int) Decision {
	n = max(0, n)
	var d Decision
	l.init()
	if l.running.Load() {
		l.decide(&d, key, n)
	} else {
		d = l.Shared.decide(key, n)
	}
	l.Shared.count(&d, n)
	return d
}

func (l *Leased[K]) decide(d *Decision, key K, n int) {
	s := l.Shared
	key = s.keys.short(key)
	law := s.law(key)
	law, rate, ok := leasable(law)
	if !ok {
		*d = s.decide(key, n)
		return
	}
	now := s.clock.now()
	shard := l.shard(key)
	shard.mu.Lock()
	h := shard.m[key]
	if h == nil || h.law != law {
		shard.mu.Unlock()
		if h = l.lease(shard, key, law, rate, n); h == nil {
			*d = s.decide(key, n)
			return
		}
		shard.mu.Lock()
	}
	v := h.take(n, now, s.unsettled(now))
	put, due := h.enqueue(now)
	if v == verdictYes || v == verdictNo {
		h.tell(d, n, v == verdictYes, now)
		d.Life = h.life
	}
	shard.mu.Unlock()
	if put {
		l.queue.put(h, due)
	}
	switch v {
	case verdictAsk:
		l.ask(d, h, n)
	case verdictLocal:
		l.decideLocal(d, h, n)
	}
}

// enqueue reports whether to put h into the queue, and for when. The shard is locked.
func (h *held[K]) enqueue(now time.Duration) (put bool, due time.Duration) {
	if h.under || h.owed == 0 && !(h.alone && !h.trusted) || h.queue == queuedNow {
		return false, 0
	}
	due = h.lease.due(now)
	level := queued
	if due <= now {
		level = queuedNow
	}
	if level <= h.queue {
		return false, 0
	}
	h.queue = level
	return true, due
}

func (l *Leased[K]) shard(key K) *leaseShard[K] {
	return &l.shards[maphash.Comparable(l.seed, key)%leaseShards]
}

// lease returns the lease of key under law, which it makes if n is worth one and there is
// a place, or nil.
func (l *Leased[K]) lease(shard *leaseShard[K], key K, law Law, rate Rate, n int) *held[K] {
	_, d := law.Take(0, 0, 0)
	gateways := l.Shared.gateways()
	credit := creditOf(d.Limit, l.ahead(), gateways)
	if credit < 1 {
		return nil
	}
	text := l.Shared.text(key)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	h := shard.m[key]
	if h == nil {
		if n == 0 || !shard.room(l.Max) {
			return nil
		}
		h = &held[K]{key: l.Shared.keys.own(key), text: text, shard: shard, life: l.lives.Add(1) | leaseLife, index: -1}
		if shard.m == nil {
			shard.m = make(map[K]*held[K])
		}
		shard.m[h.key] = h
	}
	if h.law != law {
		h.law, h.rate, h.limit, h.known, h.until, h.late = law, rate, d.Limit, false, 0, l.late()
		h.margin = wholeOf(l.ahead() * float64(d.Limit))
		h.credit = credit
	}
	return h
}

// leaseLife marks the Life of what a lease took: no Keyed counts as far.
const leaseLife = 1 << 31

// room makes a place for another lease, if need be in the place of one that owes nothing.
func (s *leaseShard[K]) room(most int) bool {
	if most <= 0 {
		most = 1 << 16
	}
	if len(s.m) < (most+leaseShards-1)/leaseShards {
		return true
	}
	tries := 0
	for key, h := range s.m {
		if h.owed == 0 && !h.under && !h.alone && h.queue == notQueued {
			delete(s.m, key)
			return true
		}
		if tries++; tries == 16 {
			return false
		}
	}
	return false
}

// ask is Take that asks the store for n alone.
func (l *Leased[K]) ask(d *Decision, h *held[K], n int) {
	s := l.Shared
	asked, ok := s.ask()
	err := errAway
	if ok {
		ctx, cancel := s.deadline()
		*d, err = s.take(ctx, h.text, h.law, n)
		cancel()
		s.heard(asked, err)
	}
	h.shard.mu.Lock()
	now := s.clock.now()
	if err == nil {
		h.heard(*d, n, asked, now)
	} else if !h.alone {
		h.leave()
	}
	put, due := h.enqueue(now)
	h.shard.mu.Unlock()
	if put {
		l.queue.put(h, due)
	}
	if err != nil {
		l.decideLocal(d, h, n)
	}
}

var errAway = errors.New("ratelimit: the store is away")

// decideLocal is Take by the local law.
func (l *Leased[K]) decideLocal(d *Decision, h *held[K], n int) {
	s := l.Shared
	gateways := s.gateways()
	h.shard.mu.Lock()
	tells := h.told == notTold
	used := 0
	if tells {
		h.told, used = isTold, h.share(gateways, s.clock.now())
	}
	h.shard.mu.Unlock()
	if tells && s.Local == nil {
		s.local.Forget(h.key)
		s.local.Take(h.key, min(used, s.local.Take(h.key, 0).Remaining))
	}
	*d = s.takeLocal(h.key, n)
	if d.Cost == 0 && !tells {
		return
	}
	h.shard.mu.Lock()
	if tells {
		h.told = told
	}
	h.admit(d.Cost)
	put, due := h.enqueue(s.clock.now())
	h.shard.mu.Unlock()
	if put {
		l.queue.put(h, due)
	}
}

// Wait is that of [Keyed].
func (l *Leased[K]) Wait(ctx context.Context, key K, n int) (Decision, error) {
	d := l.Take(key, n)
	if !d.OK {
		return d, ErrRefused
	}
	if err := sleep(ctx, d.Wait); err != nil {
		l.Refund(key, d)
		return d, err
	}
	return d, nil
}

// Refund gives back what d took, because it was not used. It does not wait for the store, unless d was asked for.
// It must be called at most once for a Decision.
func (l *Leased[K]) Refund(key K, d Decision) {
	l.init()
	s := l.Shared
	if d.Cost <= 0 {
		return
	}
	if !d.Local && d.Life&leaseLife == 0 {
		s.Refund(key, d)
		return
	}
	key = s.keys.short(key)
	if d.Local {
		s.local.Refund(key, d)
	}
	shard := l.shard(key)
	shard.mu.Lock()
	h := shard.m[key]
	if h == nil || !d.Local && h.life != d.Life {
		shard.mu.Unlock()
		return
	}
	now := s.clock.now()
	h.refund(d, now)
	put, due := h.enqueue(now)
	shard.mu.Unlock()
	if put {
		l.queue.put(h, due)
	}
}

// Stats returns the totals of this process until now. Keys is how many leases there are;
// Asked falls behind Taken by what the leases save.
func (l *Leased[K]) Stats() Stats {
	l.init()
	st := l.Shared.Stats()
	st.Keys = 0
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.Lock()
		st.Keys += len(s.m)
		s.mu.Unlock()
	}
	return st
}

// Explain says in words how key stands with this gateway.
func (l *Leased[K]) Explain(key K) string {
	l.init()
	s := l.Shared
	key = s.keys.short(key)
	now := s.clock.now()
	away := s.unsettled(now)
	shard := l.shard(key)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	h := shard.m[key]
	switch {
	case !l.running.Load():
		return "each Take asks the store: Run does not run"
	case h == nil:
		return "no lease: the law is too small for one, or of a kind that has none, or the key is not known"
	case away:
		return fmt.Sprintf("local: the store is away, or has not been back for long; %d to be charged to it", h.owed)
	case h.alone && !h.trusted:
		return fmt.Sprintf("local: the store did not answer for this key; %d to be charged to it", h.owed)
	case !h.known:
		return fmt.Sprintf("on lease: %d of %d not charged yet; the store has not answered yet", h.owed, h.credit)
	}
	text := fmt.Sprintf("on lease: %d of %d not charged yet; of %d the store had %d left %v ago", h.owed, h.credit, h.limit, h.left, now-h.at)
	if h.until > now {
		text += fmt.Sprintf(", and refuses for %v", h.until-now)
	}
	return text
}
