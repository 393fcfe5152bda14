// SPDX-License-Identifier: Apache-2.0

package ratelimit

import (
	"context"
	"iter"
	"sync"
	"sync/atomic"
	"time"
)

// Keyed is a limit for each key: each client address, tenant, token. The zero
// Keyed refuses everything.
//
// Memory is bounded: at most Max keys are kept, in 10 bytes a place and 48 a
// key (an address or a string, and the text of the string): 100 000 addresses
// with a Max of 200 000 take 6.7 MB. A key is forgotten only when its place is
// wanted for another. Then one goes whose state is as good as none (a full
// bucket, an empty window), so that nothing is lost. If there is none, the key
// goes that has used up the least of its limit, and [Stats].Lost counts it: a
// flood of new keys does not reset one that has used up its limit. Keys are spread over
// sets of sixteen, so some of those sets
// are full before the table is: with Max/2 live keys about one in a thousand
// is lost, with Max about one in ten. Under a law that waits for a release
// (InFlight) live keys are never forgotten: what finds no place is admitted
// and not counted, as told by Stats.Untracked.
//
// All methods may be called at once by several goroutines. A known key takes
// no lock and no allocation; a new one allocates its entry and locks sixteen
// keys' worth of table. There is nothing to close. The fields must not change
// after first use, and a Keyed must not be copied.
//
// Strings in keys, fields of structs too, are copied, so that they do not hold
// on to the request they came from, and bounded: of one longer than 256 bytes
// its first 64 and a SHA-256 hash stand for it, in LawOf and All as well.
// What an interface in a key holds is neither copied nor bounded. An address
// should be unmapped (netip.Addr.Unmap): two forms of one address are two keys.
type Keyed[K comparable] struct {
	Law   Law         // for every key; nil refuses everything
	LawOf func(K) Law // if set, for one key; nil of it means Law. Called for each Take: return values made before
	Max   int         // keys kept at most, rounded up to sixteens; 0 means 65 536
	Ban   Ban         // what repeated refusals lead to; the zero Ban is nothing

	// CountOnly admits everything and tells by Decision.Over and Stats what
	// would have been refused: to try a limit on live traffic first.
	CountOnly bool

	once  sync.Once
	tab   *table[K]
	clock clock

	held                                     atomic.Int64
	taken                                    spread
	refused, bans, lost, lostBans, untracked atomic.Uint64
}

// Stats are totals since the start, but for Keys, Held, Places and Queued, which are as of
// now. What a kind of limit does not have is 0.
type Stats struct {
	Taken     uint64 // Takes of more than 0 that were within the limit
	Refused   uint64 // Takes refused, or that would have been under CountOnly
	Keys      int    // kept now
	Bans      uint64 // bans begun
	Lost      uint64 // keys forgotten although their state said something
	LostBans  uint64 // of them, those that were banned
	Untracked uint64 // Takes admitted uncounted because there was no place
	Local     uint64 // Takes that a Shared or Leased has decided alone, as its store was away
	Asked     uint64 // questions that a Shared or Leased has put to its store

	// Of Concurrency and Adaptive, whose Taken are places given, and Refused those that
	// were not there in time.
	Held   int // places that are taken
	Places int // places there are
	Queued int // how many wait for a place

	// Of Bandwidth, while it has a limit.
	Bytes   uint64 // that have asked for a turn
	Delayed uint64 // of them, those that had to wait
}

// Stats returns the totals until now.
func (l *Keyed[K]) Stats() Stats {
	return Stats{
		Taken: l.taken.sum(), Refused: l.refused.Load(), Keys: int(l.held.Load()),
		Bans: l.bans.Load(), Lost: l.lost.Load(), LostBans: l.lostBans.Load(), Untracked: l.untracked.Load(),
	}
}

func (l *Keyed[K]) table() *table[K] {
	l.once.Do(func() {
		l.tab = newTable[K](orDefault(l.Max, 1<<16), &l.held)
	})
	return l.tab
}

func (l *Keyed[K]) law(key K) Law {
	if l.LawOf != nil {
		if law := l.LawOf(key); law != nil {
			return law
		}
	}
	return l.Law
}

// Take takes n for key now, or tells why not. N of 0 takes nothing, keeps
// nothing, and tells how things stand; a negative n counts as 0.
func (l *Keyed[K]) Take(key K, n int) (d Decision) {
	l.TakeTo(&d, key, n)
	return d
}

// TakeTo is Take that puts its answer where it is wanted, as a copy of it costs
// a fifth of the whole.
func (l *Keyed[K]) TakeTo(d *Decision, key K, n int) {
	n = max(0, n)
	tab := l.table()
	key = tab.keys.short(key)
	law := l.law(key)
	if law == nil {
		*d = nothing(n)
		l.enforce(d, n, 0)
		return
	}
	now := l.clock.now()
	for {
		e := tab.find(key)
		if e == nil {
			if n > 0 {
				e = l.add(tab, key, now)
			}
			if e == nil { // nothing to keep, or no place to
				*d = Decision{}
				decide(law, 0, now, n, d)
				if n > 0 {
					d.Cost = 0
					l.untracked.Add(1)
				}
				l.enforce(d, n, 0)
				return
			}
		}
		if l.takeFrom(e, law, now, n, d) {
			l.enforce(d, n, e.lane)
			return
		}
	}
}

// takeFrom is Take for an entry. It fails if the entry is dead.
func (l *Keyed[K]) takeFrom(e *entry[K], law Law, now time.Duration, n int, d *Decision) bool {
	if l.Ban.After > 0 {
		if wait, _ := l.Ban.status(e.strikes.Load(), now); wait > 0 {
			*d = Decision{Over: true, Banned: true, Wait: wait, Reset: wait, At: now}
			return true
		}
	}
	for {
		state := e.state.Load()
		if state == dead {
			return false
		}
		*d = Decision{}
		next := decide(law, state, now, n, d)
		if next == state || e.state.CompareAndSwap(state, next) {
			d.Life = e.life
			if d.Over && n > 0 && l.Ban.After > 0 {
				l.strike(e, now)
				return e.state.Load() != dead // else the strike is lost: strike what took its place
			}
			return true
		}
	}
}

func (l *Keyed[K]) strike(e *entry[K], now time.Duration) {
	for {
		s := e.strikes.Load()
		next := l.Ban.strike(s, now)
		if next == s {
			return
		}
		if e.strikes.CompareAndSwap(s, next) {
			if next>>strikeTimeBits == banned {
				l.bans.Add(1)
			}
			return
		}
	}
}

// enforce counts the answer to a Take of n, and under CountOnly turns a no into a yes.
func (l *Keyed[K]) enforce(d *Decision, n int, lane uint8) {
	if d.Over {
		l.refused.Add(1)
	} else if n > 0 {
		l.taken.add(lane)
	}
	if l.CountOnly {
		d.OK, d.Wait = true, 0
	}
}

// Wait takes n for key and waits as long as the law asks for. It returns
// ErrRefused if the answer is no, and the error of ctx if that ends first, in
// which case what was taken is given back.
func (l *Keyed[K]) Wait(ctx context.Context, key K, n int) (Decision, error) {
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

// Refund gives back what d took from key: because nothing reached a server
// or, under [InFlight], because the work is done. It must be called at most
// once for a Decision.
func (l *Keyed[K]) Refund(key K, d Decision) {
	tab := l.table()
	key = tab.keys.short(key)
	law := l.law(key)
	if law == nil || d.Cost <= 0 {
		return
	}
	e := tab.find(key)
	if e == nil || e.life != d.Life { // it was forgotten, and d with it
		return
	}
	now := l.clock.now()
	for {
		state := e.state.Load()
		if state == dead || e.state.CompareAndSwap(state, law.Refund(state, now, d)) {
			return
		}
	}
}

// Forget drops all that is known of key, a ban too.
func (l *Keyed[K]) Forget(key K) {
	tab := l.table()
	key = tab.keys.short(key)
	s, tag := tab.place(tab.hash(key))
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.find(tag, key); e != nil {
		e.state.Store(dead)
		s.remove(e)
		tab.held.Add(-1)
	}
}

// All returns the keys that are kept and how each stands, in no order. Keys
// that come or go meanwhile may or may not be among them.
func (l *Keyed[K]) All() iter.Seq2[K, Decision] {
	return func(yield func(K, Decision) bool) {
		tab, now := l.table(), l.clock.now()
		for i := range tab.sets {
			for w := range tab.sets[i].way {
				e := tab.sets[i].way[w].Load()
				if e == nil {
					continue
				}
				law := l.law(e.key)
				if law == nil {
					continue
				}
				var d Decision
				if l.takeFrom(e, law, now, 0, &d) && !yield(e.key, d) {
					return
				}
			}
		}
	}
}
