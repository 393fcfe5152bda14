// SPDX-License-Identifier: Apache-2.0

package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// far is a store that is some way away and can be killed: then what it knows is lost.
type far struct {
	*MemoryStore
	rtt  time.Duration
	down atomic.Bool
	hang bool // when down, instead of an error
	mu   sync.Mutex
	came int // questions
	gave int // what it has granted
}

func (f *far) way(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(f.rtt / 2):
	}
	if f.down.Load() && f.hang {
		<-ctx.Done()
		return ctx.Err()
	}
	if f.down.Load() {
		return errors.New("refused")
	}
	return nil
}

func (f *far) Take(ctx context.Context, key string, law Law, n int) (d Decision, err error) {
	if err = f.way(ctx); err != nil {
		return d, err
	}
	d, err = f.MemoryStore.Take(ctx, key, law, n)
	f.count(d.Cost)
	if err == nil {
		err = f.way(ctx)
	}
	return d, err
}

func (f *far) count(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.came++
	f.gave += n
}

func (f *far) Refund(ctx context.Context, key string, law Law, d Decision) (err error) {
	if err = f.way(ctx); err == nil {
		f.count(-d.Cost)
		err = f.MemoryStore.Refund(ctx, key, law, d)
	}
	return err
}

// fleetOf runs n gateways over store for the length of f.
func fleetOf(t *testing.T, n int, store Store, law Law, f func([]*Leased[string])) {
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var gateways []*Leased[string]
	for range n {
		l := &Leased[string]{Shared: &Shared[string]{Store: store, Law: law, Gateways: func() int { return n }, Logger: slog.New(slog.DiscardHandler)}}
		require.NoError(t, l.Check())
		gateways = append(gateways, l)
		wg.Go(func() { require.ErrorIs(t, l.Run(ctx), context.Canceled) })
	}
	synctest.Wait()
	f(gateways)
	cancel()
	wg.Wait()
}

// load has rate requests a second at one gateway, at random times, and tells how each
// went, and whether it waited.
func load(l *Leased[string], rng *rand.Rand, rate float64, length time.Duration, each func(time.Duration, Decision, bool)) {
	start := time.Now()
	var mu sync.Mutex // around each
	var wg sync.WaitGroup
	defer wg.Wait()
	for at := time.Duration(0); ; {
		at += time.Duration(rng.ExpFloat64() / rate * float64(time.Second))
		if at > length {
			return
		}
		time.Sleep(time.Until(start.Add(at)))
		wg.Go(func() {
			d := l.Take("k", 1)
			now := time.Since(start)
			mu.Lock()
			defer mu.Unlock()
			each(now, d, now > at)
		})
	}
}

// TestLeasedModel has three gateways whose store is 5 ms away, under even and uneven load
// above and below the law, and a store that is killed for 10 s meanwhile and has forgotten
// everything then. Together they admit what the law does, within 2 %.
func TestLeasedModel(t *testing.T) {
	const rate = 2000
	gcra, window := GCRA{Rate: PerSecond(rate)}, Window{Rate: PerSecond(rate)}
	for _, c := range []struct {
		name  string
		law   Law
		loads [3]float64    // as parts of the law
		down  time.Duration // for which the store is killed
		least float64       // of the law, or of the load if that is below it
	}{
		{"even below", gcra, [3]float64{0.3, 0.3, 0.3}, 0, 1},
		{"one alone", gcra, [3]float64{0.9, 0, 0}, 0, 1},
		{"even above", gcra, [3]float64{1, 1, 1}, 0, 0.99},
		{"uneven above", gcra, [3]float64{3, 0.3, 0.03}, 0, 0.99},
		{"one far above", gcra, [3]float64{5, 0, 0}, 0, 0.99},
		{"even above, killed", gcra, [3]float64{1, 1, 1}, 10 * time.Second, 0.97},
		{"uneven above, killed", gcra, [3]float64{3, 0.3, 0.03}, 10 * time.Second, 0.7}, // while it is away the first has its third
		{"even below, killed", gcra, [3]float64{0.25, 0.25, 0.25}, 10 * time.Second, 1},
		{"even above, killed for a moment", gcra, [3]float64{1, 1, 1}, time.Second, 0.95},
		{"even below", window, [3]float64{0.3, 0.3, 0.3}, 0, 1},
		{"even above", window, [3]float64{1, 1, 1}, 0, 0.7}, // a Window has no burst beside its rate
		{"uneven above, killed", window, [3]float64{3, 0.3, 0.03}, 10 * time.Second, 0.5},
	} {
		t.Run(fmt.Sprintf("%T %s", c.law, c.name), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := model{law: c.law, loads: c.loads, rate: rate, length: 5 * time.Second}
				if c.down > 0 {
					m.length, m.down = c.down+4*time.Second, c.down
				}
				m.run(t)
				sum, span := 0.0, m.length.Seconds()
				for _, l := range c.loads {
					sum += l
				}
				whole, bound := float64(len(m.admitted)), rate*(span+1)
				t.Logf("%d questions for %d takes; %d waited; admitted %.4f of the law, %v of %v, later %v; worst second %d",
					m.store.came, m.takes, m.waited, whole/bound, m.yes, m.asked, m.later, m.worst(time.Second))
				if sum < 1 {
					bound = float64(m.takes)
				}
				require.LessOrEqual(t, whole, 1.02*bound)
				if c.down > 0 && c.loads[0] == c.loads[2] {
					require.LessOrEqual(t, whole, bound+0.03*rate, "little more than Ahead, for what the store does not know yet")
				}
				require.GreaterOrEqual(t, whole, c.least*bound)
				require.LessOrEqual(t, m.worst(time.Second), int(2*rate*1.02), "a burst, and what a second brings")
				require.Less(t, float64(m.waited), 0.01*float64(m.takes), "99 of 100 wait for nothing")
				require.Less(t, m.store.came, m.takes/5)
				if m.loads[0] == m.loads[2] {
					mean := float64(m.later[0]+m.later[1]+m.later[2]) / 3
					require.GreaterOrEqual(t, float64(slices.Min(m.later[:])), 0.5*mean, "none is left with little: %v", m.later)
				} else if m.loads[2] > 0 {
					require.GreaterOrEqual(t, float64(m.yes[2]), 0.95*float64(m.asked[2]), "one that wants little gets it")
				}
			})
		})
	}
}

// A model is three gateways under load.
type model struct {
	law    Law
	loads  [3]float64 // times rate
	rate   float64
	length time.Duration
	down   time.Duration // for which the store is killed, after 2 s

	store         *far
	mu            sync.Mutex
	asked, yes    [3]int
	later         [3]int // yes after the first burst
	takes, waited int
	admitted      []time.Duration
}

func (m *model) run(t *testing.T) {
	m.store = &far{MemoryStore: new(MemoryStore), rtt: 5 * time.Millisecond}
	fleetOf(t, 3, m.store, m.law, func(gateways []*Leased[string]) {
		var wg sync.WaitGroup
		defer wg.Wait()
		for i, l := range gateways {
			if m.loads[i] > 0 {
				wg.Go(func() {
					load(l, rand.New(rand.NewPCG(1, uint64(i))), m.loads[i]*m.rate, m.length, func(at time.Duration, d Decision, waited bool) {
						m.saw(i, at, d, waited)
					})
				})
			}
		}
		if m.down > 0 {
			time.Sleep(2 * time.Second)
			m.store.down.Store(true)
			time.Sleep(m.down)
			m.store.MemoryStore = new(MemoryStore)
			m.store.down.Store(false)
		}
	})
	slices.Sort(m.admitted)
}

func (m *model) saw(i int, at time.Duration, d Decision, waited bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.takes++
	m.asked[i]++
	if d.OK {
		m.yes[i]++
		if at > 2*time.Second {
			m.later[i]++
		}
		m.admitted = append(m.admitted, at)
	}
	if waited {
		m.waited++
	}
}

// worst returns how many were admitted in the worst span.
func (m *model) worst(span time.Duration) (worst int) {
	j := 0
	for i, at := range m.admitted {
		for at-m.admitted[j] >= span {
			j++
		}
		worst = max(worst, i-j+1)
	}
	return worst
}
