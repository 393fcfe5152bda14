// SPDX-License-Identifier: Apache-2.0

package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// A Store keeps the state of keys where several gateways find it. [MemoryStore]
// is one for a single process, package redisstore one for Redis. Its methods
// may be called at once.
type Store interface {
	// Take is Law.Take on the state of key, on the clock of the store. An
	// error means that nothing was decided; it wraps ErrLaw if the store
	// cannot keep that law.
	Take(ctx context.Context, key string, law Law, n int) (Decision, error)

	// Refund is Law.Refund.
	Refund(ctx context.Context, key string, law Law, d Decision) error
}

// ErrLaw is the error of a [Store] that is asked to keep a law that it cannot.
var ErrLaw = errors.New("ratelimit: the store does not know this law")

// Shared is a limit for each key that all gateways with the same Store keep
// together. While the store is away each gateway keeps to limits of its own,
// so that no request fails or waits for it: Decision.Local, Logger and
// OnOutage say so. One slow answer does not make it so: what fails is decided
// locally, but only several failures in a row mean that the store is away.
//
// All methods may be called at once; the fields must not change after first
// use.
type Shared[K comparable] struct {
	Store Store       // nil means that limits are local
	Law   Law         // for every key; nil refuses everything
	LawOf func(K) Law // if set, the law of one key; Law applies where it returns nil, as in Keyed

	Prefix string         // of keys in the store, to tell limits apart
	Key    func(K) string // the key in the store; nil means the text of it

	// Local decides while the store is away. Nil means a Keyed under the same
	// laws, of which each gateway keeps its part, see Gateways.
	Local *Keyed[K]

	// Gateways tells how many gateways keep the limit together, which may change
	// ((*balance.Share).Count is such a func). While the store is away each then
	// keeps to an n-th of a law that is [Divisible], so that together they admit
	// what the law says. Nil, or less than 2, means that each keeps the whole. It
	// is asked for each decision while the store is away, and must not block.
	Gateways func() int

	Timeout  time.Duration // for one answer of the store; 0 means 100ms, negative means none
	Failures int           // in a row, each asked for after the one before was known, that mean it is away; 0 means 3
	Retry    time.Duration // after which a store that is away is asked again; 0 means 1s

	Logger   *slog.Logger    // told when the store goes and comes back; nil means slog.Default()
	OnOutage func(err error) // likewise, nil meaning that it is back; must not block

	once  sync.Once
	local *Keyed[K]
	keys  keys[K]
	clock clock

	mu     sync.Mutex
	outage outage
	untold []error      // what Logger and OnOutage are still to be told, nil for a store that is back
	tells  bool         // a goroutine does that
	gone   atomic.Bool  // outage.away, for those that only want to know
	shared atomic.Int64 // since when the store has been back for Retry

	taken, refused, alone, asked atomic.Uint64
}

// Stats returns the totals of this process until now. Keys, and what is said of keys and
// bans, is about Local: the store keeps its own.
func (s *Shared[K]) Stats() Stats {
	s.init()
	st := s.local.Stats()
	st.Taken, st.Refused, st.Local, st.Asked = s.taken.Load(), s.refused.Load(), s.alone.Load(), s.asked.Load()
	return st
}

// count counts the answer to a Take of n.
func (s *Shared[K]) count(d *Decision, n int) {
	switch {
	case d.Over:
		s.refused.Add(1)
	case n > 0:
		s.taken.Add(1)
	}
	if d.Local && n > 0 {
		s.alone.Add(1)
	}
}

func (s *Shared[K]) init() {
	s.once.Do(func() {
		if s.local = s.Local; s.local == nil {
			s.local = &Keyed[K]{Law: s.Law, LawOf: s.LawOf}
			if s.Gateways != nil {
				s.local = &Keyed[K]{Law: s.Law, LawOf: s.part}
			}
		}
		s.keys = keysOf[K]()
		s.outage = outage{limit: orDefault(s.Failures, 3), pause: s.Retry}
		if s.outage.pause <= 0 {
			s.outage.pause = time.Second
		}
	})
}

func (s *Shared[K]) law(key K) Law {
	if s.LawOf != nil {
		if law := s.LawOf(key); law != nil {
			return law
		}
	}
	return s.Law
}

// part returns what this gateway keeps of the law for key while the store is away.
func (s *Shared[K]) part(key K) Law {
	law := s.law(key)
	if law == nil {
		return nil
	}
	return part(law, s.gateways())
}

// gateways is Gateways, of which a panic means 1.
func (s *Shared[K]) gateways() (n int) {
	if s.Gateways == nil {
		return 1
	}
	var failed error
	defer caught(s.logger(), "Gateways", &failed)
	return s.Gateways()
}

// Take takes n for key, or tells why not. It blocks for Timeout at most.
func (s *Shared[K]) Take(key K, n int) Decision {
	d := s.decide(key, max(0, n))
	s.count(&d, n)
	return d
}

func (s *Shared[K]) decide(key K, n int) Decision {
	s.init()
	key = s.keys.short(key)
	law := s.law(key)
	if law == nil {
		return nothing(n)
	}
	asked, ok := s.ask()
	if !ok {
		return s.takeLocal(key, n)
	}
	ctx, cancel := s.deadline()
	defer cancel()
	d, err := s.take(ctx, s.text(key), law, n)
	s.heard(asked, err)
	if err != nil {
		return s.takeLocal(key, n)
	}
	return d
}

func (s *Shared[K]) takeLocal(key K, n int) Decision {
	d := s.local.Take(key, n)
	d.Local = true
	return d
}

// Wait is that of [Keyed].
func (s *Shared[K]) Wait(ctx context.Context, key K, n int) (Decision, error) {
	d := s.Take(key, n)
	if !d.OK {
		return d, ErrRefused
	}
	if err := sleep(ctx, d.Wait); err != nil {
		s.Refund(key, d)
		return d, err
	}
	return d, nil
}

// Refund gives back what d took. If the store is away now, what it took is
// not given back.
func (s *Shared[K]) Refund(key K, d Decision) {
	s.init()
	key = s.keys.short(key)
	law := s.law(key)
	if d.Cost <= 0 || law == nil {
		return
	}
	if d.Local {
		s.local.Refund(key, d)
		return
	}
	if asked, ok := s.ask(); ok {
		ctx, cancel := s.deadline()
		defer cancel()
		s.heard(asked, s.refund(ctx, s.text(key), law, d))
	}
}

// take asks the store. A store that panics is away.
func (s *Shared[K]) take(ctx context.Context, key string, law Law, n int) (d Decision, err error) {
	defer caught(s.logger(), "Store", &err)
	s.asked.Add(1)
	return s.Store.Take(ctx, key, law, n)
}

func (s *Shared[K]) refund(ctx context.Context, key string, law Law, d Decision) (err error) {
	defer caught(s.logger(), "Store", &err)
	s.asked.Add(1)
	return s.Store.Refund(ctx, key, law, d)
}

// caught is deferred around a call of the host's code, of which a panic is
// logged and becomes an error.
func caught(log *slog.Logger, what string, err *error) {
	p := recover()
	if p == nil {
		return
	}
	*err = fmt.Errorf("ratelimit: %s panicked: %v", what, p)
	log.Error("ratelimit: "+what+" panicked", "panic", p, "stack", string(debug.Stack()))
}

func (s *Shared[K]) logger() *slog.Logger {
	if s.Logger != nil {
		return s.Logger
	}
	return slog.Default()
}

// ask reports whether to ask the store, and the time.
func (s *Shared[K]) ask() (now time.Duration, ok bool) {
	now, _, ok = s.askOr()
	return now, ok
}

// askOr is ask which, if the store is not to be asked, also says when it will be.
func (s *Shared[K]) askOr() (now, retry time.Duration, ok bool) {
	if s.Store == nil {
		return 0, Never, false
	}
	now = s.clock.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	ok = s.outage.ask(now)
	return now, s.outage.retry, ok
}

// unsettled reports whether the store is away or has not been back for Retry: some
// gateways may still be without it.
func (s *Shared[K]) unsettled(now time.Duration) bool {
	return s.gone.Load() || int64(now) < s.shared.Load()
}

// sinceBack returns for how long the store has been back while limits are still local, and 0
// at other times.
func (s *Shared[K]) sinceBack(now time.Duration) time.Duration {
	left := time.Duration(s.shared.Load()) - now
	if s.gone.Load() || left <= 0 {
		return 0
	}
	return max(0, s.outage.pause-left)
}

// heard notes an answer of the store, or that there was none.
func (s *Shared[K]) heard(asked time.Duration, err error) {
	if s.note(asked, err) {
		s.tell()
	}
}

// note reports whether the store has gone or come back.
func (s *Shared[K]) note(asked time.Duration, err error) (changed bool) {
	now := s.clock.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		if changed = s.outage.answered(asked); changed {
			s.shared.Store(int64(later(now, s.outage.pause)))
		}
	} else {
		changed = s.outage.missed(asked, now)
	}
	if changed {
		if len(s.untold) >= 16 { // a host that blocks misses an outage and its end
			s.untold = append(s.untold[:0], s.untold[2:]...)
		}
		s.untold = append(s.untold, err)
	}
	s.gone.Store(s.outage.away)
	return changed
}

// tell tells the host what has changed, in that order: one goroutine does, also for those that
// have changes to tell meanwhile.
func (s *Shared[K]) tell() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tells {
		return
	}
	s.tells = true
	defer func() { s.tells = false }()
	for len(s.untold) > 0 {
		err := s.untold[0]
		s.untold = append(s.untold[:0], s.untold[1:]...)
		func() {
			s.mu.Unlock()
			defer s.mu.Lock()
			s.say(err)
		}()
	}
}

func (s *Shared[K]) say(err error) {
	l := s.logger()
	if err != nil {
		l.Warn("rate limits are local: the store is away", "prefix", s.Prefix, "error", err)
	} else {
		l.Info("rate limits are shared again", "prefix", s.Prefix)
	}
	if s.OnOutage != nil {
		var failed error
		defer caught(l, "OnOutage", &failed)
		s.OnOutage(err)
	}
}

func (s *Shared[K]) deadline() (context.Context, context.CancelFunc) {
	d := s.Timeout
	if d == 0 {
		d = 100 * time.Millisecond
	} else if d < 0 {
		return context.WithCancel(context.Background())
	}
	return context.WithTimeout(context.Background(), d)
}

// text returns the key in the store, which is bounded like those of a Keyed.
func (s *Shared[K]) text(key K) string {
	if s.Key != nil {
		return s.Prefix + shortKey(s.Key(key))
	}
	switch k := any(key).(type) {
	case string:
		return s.Prefix + shortKey(k)
	case netip.Addr:
		return s.Prefix + shortKey(k.String())
	}
	return s.Prefix + shortKey(fmt.Sprint(key))
}
