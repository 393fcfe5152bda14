// SPDX-License-Identifier: Apache-2.0

package ratelimit

import (
	"container/heap"
	"context"
	"math"
	"sync"
	"time"
)

// A leaseQueue holds the leases that owe something, by when to charge it.
type leaseQueue[K comparable] struct {
	mu   sync.Mutex
	heap leaseHeap[K]
	wake chan struct{}
}

// put puts h into the queue for due, or brings it forward.
func (q *leaseQueue[K]) put(h *held[K], due time.Duration) {
	q.mu.Lock()
	switch {
	case h.index < 0:
		h.due = due
		heap.Push(&q.heap, h)
	case due < h.due:
		h.due = due
		heap.Fix(&q.heap, h.index)
	}
	first := h.index == 0
	q.mu.Unlock()
	if first {
		select {
		case q.wake <- struct{}{}:
		default:
		}
	}
}

// next returns when the first is due, Never if there is none.
func (q *leaseQueue[K]) next() time.Duration {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.heap) == 0 {
		return Never
	}
	return q.heap[0].due
}

// spread has what is due at now be due evenly until now+span.
func (q *leaseQueue[K]) spread(now, span time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i, h := range q.heap {
		if h.due <= now {
			h.due = later(now, time.Duration(float64(span)*float64(i)/float64(len(q.heap))))
		}
	}
	heap.Init(&q.heap)
}

// pop takes out the first.
func (q *leaseQueue[K]) pop() *held[K] {
	q.mu.Lock()
	defer q.mu.Unlock()
	return heap.Pop(&q.heap).(*held[K])
}

// leaseHeap implements heap.Interface.
type leaseHeap[K comparable] []*held[K]

func (q leaseHeap[K]) Len() int           { return len(q) }
func (q leaseHeap[K]) Less(i, j int) bool { return q[i].due < q[j].due }
func (q leaseHeap[K]) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}
func (q *leaseHeap[K]) Push(x any) {
	h := x.(*held[K])
	h.index = len(*q)
	*q = append(*q, h)
}
func (q *leaseHeap[K]) Pop() any {
	last := len(*q) - 1
	h := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	h.index = -1
	return h
}

// Run charges the store for what was admitted, until ctx ends, and returns its cause. Before it returns
// it charges what is left, for a second at most. It returns at once what Check says, and [ErrRunning]
// if another Run is active.
func (l *Leased[K]) Run(ctx context.Context) error {
	if err := l.Check(); err != nil {
		return err
	}
	l.init()
	if !l.running.CompareAndSwap(false, true) {
		return ErrRunning
	}
	r := leaseRun[K]{Leased: l, free: l.Concurrency}
	if r.free == 0 {
		r.free = 64
	}
	r.done = make(chan struct{}, r.free)
	defer r.questions.Wait()
	r.loop(ctx, Never)
	l.running.Store(false)
	l.close()
	r.loop(context.Background(), later(l.Shared.clock.now(), time.Second))
	return context.Cause(ctx)
}

// close has all that is owed charged at once.
func (l *Leased[K]) close() {
	now := l.Shared.clock.now()
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.Lock()
		for _, h := range s.m {
			if h.owed != 0 && !h.under { // else it comes again by itself
				l.queue.put(h, now)
			}
		}
		clear(s.m)
		s.mu.Unlock()
	}
}

// A leaseRun is one Run.
type leaseRun[K comparable] struct {
	*Leased[K]
	free      int // questions more that may be under way
	busy      int // questions under way
	away      bool
	done      chan struct{}
	questions sync.WaitGroup
}

// loop asks what is due, until ctx ends, or until end or nothing is left to ask before it.
func (r *leaseRun[K]) loop(ctx context.Context, end time.Duration) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		wait := r.start(end != Never)
		if end != Never {
			left := end - r.Shared.clock.now()
			if wait == Never && r.busy == 0 || left <= 0 {
				return
			}
			wait = min(wait, left)
		}
		timer.Reset(min(wait, time.Hour))
		select {
		case <-ctx.Done():
			return
		case <-r.done:
			r.busy--
			r.free++
		case <-r.queue.wake:
		case <-timer.C:
		}
	}
}

// start begins the questions that are due, and returns after how long to come again. Ending
// means that what failed is not asked again.
func (r *leaseRun[K]) start(ending bool) time.Duration {
	for {
		due := r.queue.next()
		if due == Never || r.free == 0 {
			return Never
		}
		now := r.Shared.clock.now()
		if due > now && !ending {
			return due - now
		}
		if gone := r.Shared.gone.Load(); gone != r.away {
			// What was admitted meanwhile, of all keys, is not charged at once when the store is
			// back, but before the limits are shared again.
			if r.away = gone; !gone && !ending {
				r.queue.spread(now, r.Shared.outage.pause*3/4)
				continue
			}
		}
		asked, retry, ok := r.Shared.askOr()
		if !ok {
			if ending {
				return Never
			}
			return max(retry-now, time.Millisecond)
		}
		h := r.queue.pop()
		r.free--
		r.busy++
		r.questions.Go(func() {
			r.charge(h, asked, ending)
			r.done <- struct{}{}
		})
	}
}

// charge puts one question.
func (l *Leased[K]) charge(h *held[K], asked time.Duration, ending bool) {
	s := l.Shared
	gateways := s.gateways()
	used := l.usedLocally(h)
	h.shard.mu.Lock()
	h.queue = notQueued
	h.credit = creditOf(h.limit, l.ahead(), gateways)
	if used > 0 && used < h.limit { // of a key at rest there is nothing to tell, and keys at rest are many
		used += h.regained(gateways, s.sinceBack(asked))
	}
	n, some := h.lease.ask(asked, used)
	law, of := h.law, Decision{Cost: -n, At: h.last.at, Reset: h.last.reset, Life: h.last.life}
	h.shard.mu.Unlock()
	if !some {
		return
	}
	d, err := l.put(h.text, law, n, of)
	now := s.clock.now()
	h.shard.mu.Lock()
	if err == nil {
		h.answered(law, d, now)
	} else {
		h.failed()
	}
	again, due := h.enqueue(now)
	h.shard.mu.Unlock()
	s.heard(asked, err)
	if again && !ending {
		l.queue.put(h, due)
	}
}

// usedLocally returns what the local law holds for h, if that is alone.
func (l *Leased[K]) usedLocally(h *held[K]) (used int) {
	h.shard.mu.Lock()
	alone := h.alone
	h.shard.mu.Unlock()
	if !alone {
		return math.MaxInt
	}
	failed := errAway // or what LawOf panics with
	defer func() {
		if failed != nil {
			used = math.MaxInt
		}
	}()
	defer caught(l.Shared.logger(), "LawOf", &failed)
	d := l.Shared.local.Take(h.key, 0)
	failed = nil
	return d.Limit - d.Remaining
}

// put asks the store for n, or gives back of.
func (l *Leased[K]) put(text string, law Law, n int, of Decision) (Decision, error) {
	s := l.Shared
	ctx, cancel := s.deadline()
	defer cancel()
	if n < 0 {
		return Decision{}, s.refund(ctx, text, law, of)
	}
	return s.take(ctx, text, law, n)
}
