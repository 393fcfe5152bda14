// SPDX-License-Identifier: Apache-2.0

package ratelimit

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestBandwidth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := Bandwidth{BytesPerSecond: 1000, BurstBytes: 500}
		require.Zero(t, b.Reserve(500))
		require.Equal(t, 300*ms, b.Reserve(300))
		require.Equal(t, 400*ms, b.Reserve(100))
		b.Unreserve(100)
		require.Equal(t, 400*ms, b.Reserve(100))
		require.Equal(t, 900*ms, b.Reserve(2000), "more than the burst waits until all before it is paid for")

		ctx, cancel := context.WithTimeout(t.Context(), 10*ms)
		defer cancel()
		require.ErrorIs(t, b.Wait(ctx, 100), context.DeadlineExceeded)
		require.Equal(t, 2490*ms, b.Reserve(100), "what did not pass is not counted")

		b.SetRate(0)
		require.Zero(t, b.Reserve(1<<30))
		b.SetRate(1 << 40)
		require.Equal(t, int64(1<<40), b.Rate())
		var none Bandwidth
		require.Zero(t, none.Reserve(1<<30))
		require.Zero(t, none.Reserve(-1))
		require.Equal(t, 64<<10, none.Chunk())
	})
}

// In any span at most the burst, the rate, and one chunk.
func TestBandwidthHoldsItsLaw(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rnd := rand.New(rand.NewPCG(7, 8))
		for range 20 {
			b := Bandwidth{BytesPerSecond: 1 + rnd.Int64N(1_000_000), BurstBytes: rnd.Int64N(50_000) - 1}
			type passed struct {
				at time.Duration
				n  int
			}
			var log []passed
			start := time.Now()
			for range 200 {
				n := 1 + rnd.IntN(20_000)
				log = append(log, passed{time.Since(start) + b.Reserve(n), n})
				time.Sleep(time.Duration(rnd.ExpFloat64() * 10 * float64(ms)))
			}
			burst := float64(max(0, b.BurstBytes))
			if b.BurstBytes == 0 {
				burst = float64(b.BytesPerSecond) / 10
			}
			for i := range log {
				sum := 0
				for _, p := range log[i:] {
					sum += p.n
					may := burst + (p.at-log[i].at).Seconds()*float64(b.BytesPerSecond) + 2*20_000
					if float64(sum) > may {
						t.Fatalf("%d of %d, burst %v, passed %d in %v", i, b.BytesPerSecond, burst, sum, p.at-log[i].at)
					}
				}
			}
		}
	})
}

// Two streams that share a limit share it evenly.
func TestBandwidthStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &Bandwidth{BytesPerSecond: 100_000}
		var took [2]time.Duration
		var wg sync.WaitGroup
		start := time.Now()
		for i := range took {
			wg.Go(func() {
				var out bytes.Buffer
				if i == 0 {
					n, err := io.Copy(&out, b.Reader(t.Context(), strings.NewReader(strings.Repeat("x", 500_000))))
					require.NoError(t, err)
					require.Equal(t, int64(500_000), n)
				} else {
					n, err := b.Writer(t.Context(), &out).Write(make([]byte, 500_000))
					require.NoError(t, err)
					require.Equal(t, 500_000, n)
				}
				took[i] = time.Since(start)
			})
		}
		wg.Wait()
		require.InDelta(t, 9.5, took[0].Seconds(), 0.5)
		require.InDelta(t, 9.5, took[1].Seconds(), 0.5)

		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := b.Writer(ctx, io.Discard).Write(make([]byte, 500_000))
		require.ErrorIs(t, err, context.Canceled)
		_, err = io.Copy(io.Discard, b.Reader(ctx, strings.NewReader(strings.Repeat("x", 500_000))))
		require.ErrorIs(t, err, context.Canceled)
	})
}
