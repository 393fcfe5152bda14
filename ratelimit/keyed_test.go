// SPDX-License-Identifier: Apache-2.0

package ratelimit

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func allowed[K comparable](t *testing.T, l *Keyed[K], key K, n int) Decision {
	t.Helper()
	d := l.Take(key, n)
	require.True(t, d.OK, "Take(%v, %d) = %+v; want yes", key, n, d)
	return d
}

func denied[K comparable](t *testing.T, l *Keyed[K], key K, n int) Decision {
	t.Helper()
	d := l.Take(key, n)
	require.False(t, d.OK, "Take(%v, %d) = %+v; want no", key, n, d)
	return d
}

func TestKeyed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &Keyed[string]{Law: GCRA{Rate: PerSecond(2)}}
		allowed(t, l, "a", 2)
		denied(t, l, "a", 1)
		allowed(t, l, "b", 1) // its own limit
		time.Sleep(500 * ms)
		allowed(t, l, "a", 1)
		d := denied(t, l, "a", 1)
		require.Equal(t, 500*ms, d.Wait)
		require.Equal(t, 1, d.RetryAfter())

		d = allowed(t, l, "b", 2)
		l.Refund("b", d)
		require.Equal(t, 2, l.Take("b", 0).Remaining)
		l.Refund("b", l.Take("b", 3)) // a refusal took nothing
		require.Equal(t, 2, l.Take("b", 0).Remaining)

		l.Forget("a")
		allowed(t, l, "a", 2)
		require.Equal(t, Stats{Taken: 5, Refused: 3, Keys: 2}, l.Stats())
	})
}

func TestKeyedZeroRefuses(t *testing.T) {
	var l Keyed[string]
	require.Equal(t, Never, denied(t, &l, "a", 1).Wait)
	allowed(t, &l, "a", 0)
	var one Limiter
	require.False(t, one.Take(1).OK)
}

// P5: a look at an absent key finds nothing, keeps nothing, fails nothing.
func TestP5_PeekKeepsNothing(t *testing.T) {
	l := &Keyed[string]{Law: GCRA{Rate: PerSecond(2)}}
	d := allowed(t, l, "nobody", 0)
	require.Equal(t, 2, d.Remaining)
	for k := range l.All() {
		t.Errorf("All has %q; want none", k)
	}
	l.Refund("nobody", Decision{Cost: 1})
	l.Forget("nobody")
}

func TestKeyedLawOf(t *testing.T) {
	free, gold := Law(GCRA{Rate: PerSecond(1)}), Law(GCRA{Rate: PerSecond(5)})
	l := &Keyed[string]{
		Law: free,
		LawOf: func(tenant string) Law {
			switch tenant {
			case "gold":
				return gold
			case "ourselves":
				return Unlimited{}
			}
			return nil
		},
	}
	allowed(t, l, "gold", 5)
	denied(t, l, "gold", 1)
	allowed(t, l, "ourselves", 1_000_000)
	allowed(t, l, "somebody", 1)
	denied(t, l, "somebody", 1)
}

func TestKeyedWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &Keyed[string]{Law: GCRA{Rate: PerSecond(10), Burst: 1, MaxWait: 250 * ms}}
		start := time.Now()
		for i := range 3 {
			_, err := l.Wait(t.Context(), "a", 1)
			require.NoError(t, err)
			require.Equal(t, time.Duration(i)*100*ms, time.Since(start))
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*ms)
		defer cancel()
		_, err := l.Wait(ctx, "a", 1)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 50*ms, l.Take("a", 0).Reset, "the place in the line is given back")

		for range 3 {
			l.Take("a", 1)
		}
		_, err = l.Wait(t.Context(), "a", 1)
		require.ErrorIs(t, err, ErrRefused)
	})
}

func TestKeyedCountOnly(t *testing.T) {
	l := &Keyed[string]{Law: GCRA{Rate: PerSecond(1)}, CountOnly: true, Ban: Ban{After: 2}}
	require.False(t, allowed(t, l, "a", 1).Over)
	for range 3 {
		d := allowed(t, l, "a", 1)
		require.True(t, d.Over)
		require.Zero(t, d.Cost)
	}
	require.True(t, allowed(t, l, "a", 1).Banned)
	require.Equal(t, Stats{Taken: 1, Refused: 4, Keys: 1, Bans: 1}, l.Stats())
}

func TestKeyedBan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &Keyed[string]{
			Law: GCRA{Rate: PerSecond(1)},
			Ban: Ban{After: 3, Within: 10 * time.Second, For: time.Hour},
		}
		refuse := func(times int) {
			t.Helper()
			for l.Take("a", 1).OK {
			}
			for range times - 1 {
				require.False(t, denied(t, l, "a", 1).Banned)
			}
		}
		refuse(2)
		time.Sleep(10 * time.Second) // the strikes are forgotten
		refuse(2)
		time.Sleep(9 * time.Second)
		allowed(t, l, "a", 1)
		require.False(t, denied(t, l, "a", 1).Banned, "the third refusal is one of the law")
		d := denied(t, l, "a", 1)
		require.True(t, d.Banned)
		require.Equal(t, time.Hour, d.Wait)
		time.Sleep(30 * time.Minute)
		require.Equal(t, 30*time.Minute, denied(t, l, "a", 1).Wait, "asking makes it no longer")
		allowed(t, l, "b", 1)
		time.Sleep(30 * time.Minute)
		allowed(t, l, "a", 1)
		require.Equal(t, uint64(1), l.Stats().Bans)
	})
}

// What says nothing any more makes place for the new; while the table has
// such keys, no limit is lost.
func TestKeyedForgetsWithoutLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &Keyed[int]{Law: GCRA{Rate: PerSecond(10)}, Max: 16}
		for round := range 100 {
			for k := range 16 {
				allowed(t, l, round*16+k, 10)
			}
			for k := range 16 {
				denied(t, l, round*16+k, 1)
			}
			time.Sleep(time.Second)
		}
		require.Zero(t, l.Stats().Lost)

		for k := range 17 { // more live keys than places: the one closest to full goes
			allowed(t, l, -k, 10-k%2)
		}
		require.Equal(t, uint64(1), l.Stats().Lost)
		kept := 0
		for range l.All() {
			kept++
		}
		require.Equal(t, 16, kept)
	})
}

func TestKeyedBansOutliveTheFlood(t *testing.T) {
	l := &Keyed[int]{Law: GCRA{Rate: PerSecond(10)}, Max: 16, Ban: Ban{After: 1, For: time.Hour}}
	allowed(t, l, -1, 10)
	denied(t, l, -1, 1)
	for k := range 10_000 {
		l.Take(k, 1)
	}
	require.True(t, denied(t, l, -1, 1).Banned)
}

func TestKeyedInFlight(t *testing.T) {
	l := &Keyed[int]{Law: InFlight{Max: 1}, Max: 16}
	held := make([]Decision, 20)
	for k := range held {
		held[k] = allowed(t, l, k, 1)
	}
	require.Equal(t, uint64(4), l.Stats().Untracked, "held places are not forgotten")
	for k := range 16 {
		denied(t, l, k, 1)
	}
	for k, d := range held {
		l.Refund(k, d)
	}
	for k := range held {
		allowed(t, l, k, 1)
	}
}

// With half as many live keys as places hardly any is lost.
func TestKeyedSpreads(t *testing.T) {
	const keys = 50_000
	l := &Keyed[int]{Law: GCRA{Rate: PerHour(1)}, Max: 2 * keys}
	for k := range keys {
		l.Take(k, 1)
	}
	require.Less(t, l.Stats().Lost, uint64(keys/500))
	t.Logf("%d of %d lost at half load", l.Stats().Lost, keys)
	for k := range keys {
		l.Take(-k, 1)
	}
	require.Less(t, l.Stats().Lost, uint64(2*keys/6))
	t.Logf("%d of %d lost at full load", l.Stats().Lost, 2*keys)
}

// A string key does not hold on to the text it was cut from.
func TestKeyedOwnsItsStrings(t *testing.T) {
	head := []byte("GET /tenant")
	l := &Keyed[string]{Law: GCRA{Rate: PerSecond(1)}}
	key := string(head)[5:]
	allowed(t, l, key, 1)
	for k := range l.All() {
		require.Equal(t, key, k)
		require.Len(t, k, 6)
	}
}

// The same keys from many goroutines, with places wanted all the time: never
// more than the law, however they meet.
func TestKeyedConcurrently(t *testing.T) {
	const keys, goroutines, burst = 64, 8, 50
	l := &Keyed[int]{Law: GCRA{Rate: PerHour(1), Burst: burst}, Max: 128}
	var admitted [keys]atomic.Int64
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(g), 0))
			for range 10_000 {
				k := rnd.IntN(keys)
				d := l.Take(k, 1)
				if !d.OK {
					continue
				}
				if rnd.IntN(10) == 0 {
					l.Refund(k, d)
				} else {
					admitted[k].Add(1)
				}
			}
		})
	}
	wg.Wait()
	if l.Stats().Lost > 0 {
		t.Skipf("%d keys met in one set", l.Stats().Lost)
	}
	for k := range admitted {
		require.Equal(t, int64(burst), admitted[k].Load(), "key %d", k)
	}
}

// Eviction against use: an entry that is charged while it leaves is charged
// in the table, not in the air.
func TestKeyedEvictsConcurrently(t *testing.T) {
	l := &Keyed[int]{Law: InFlight{Max: 4}, Max: 16}
	var wg sync.WaitGroup
	var atOnce [40]atomic.Int64
	for g := range 4 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(g), 1))
			for range 20_000 {
				k := rnd.IntN(len(atOnce))
				if d := l.Take(k, 1); d.OK && d.Cost == 1 {
					if n := atOnce[k].Add(1); n > 4 {
						t.Errorf("%d at once", n)
					}
					atOnce[k].Add(-1)
					l.Refund(k, d)
				}
			}
		})
	}
	wg.Wait()
	require.Zero(t, l.Stats().Lost)
	for k, d := range l.All() {
		require.Equal(t, 4, d.Remaining, "key %d", k)
	}
}

func TestKeyedAllocatesNothing(t *testing.T) {
	l := &Keyed[netip.Addr]{Law: GCRA{Rate: PerSecond(1000)}, Ban: Ban{After: 3}}
	a := netip.MustParseAddr("2001:db8::1")
	l.Take(a, 1)
	require.Zero(t, testing.AllocsPerRun(1000, func() { l.Refund(a, l.Take(a, 1)) }))

	s := &Keyed[string]{Law: Window{Rate: PerSecond(10)}}
	k := "tenant-" + strconv.Itoa(7)
	s.Take(k, 1)
	require.Zero(t, testing.AllocsPerRun(1000, func() { s.Take(k, 1) }))
}

func TestTags(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	for range 10_000 {
		word, tag := rnd.Uint64(), byte(rnd.Uint64())|1
		m := matches(word, tag)
		for i := range 8 {
			if byte(word>>(8*i)) == tag {
				require.NotZero(t, m&(0x80<<(8*i)), "%x in %x", tag, word)
			}
		}
	}
}
