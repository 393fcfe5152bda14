// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"context"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// The longest duration there is means a long time, wherever something is added
// to it.
func TestLongestDurations(t *testing.T) {
	const most = time.Duration(math.MaxInt64)
	r := seeded(1)
	for range 100 {
		require.Positive(t, r.around(most, 1))
	}
	for _, at := range []time.Duration{0, time.Hour, most / 2, most - 1} {
		if _, next := (SlowStart{Window: most}).part(at); next != 0 {
			require.Positive(t, next, "at %v", at)
		}
	}
	part, next := SlowStart{Window: most, Aggression: 0.01}.part(time.Hour)
	require.True(t, part <= 1 && next > time.Hour, "%v for %v", part, next)
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		calls := 0
		_ = Poll{Interval: most, Jitter: 1, Func: func(context.Context) ([]Endpoint, error) {
			calls++
			return nil, nil
		}}.Watch(ctx, func([]Endpoint, error) {})
		require.Equal(t, 1, calls)
		p := &Pool{Queue: Queue{Timeout: most}}
		require.NoError(t, p.Set(Endpoint{Addr: "a:1", MaxConns: 1}))
		l, err := p.Acquire(t.Context(), Request{})
		require.NoError(t, err)
		time.AfterFunc(time.Minute, func() { l.Done(Outcome{}) })
		l, err = p.Acquire(t.Context(), Request{})
		require.NoError(t, err)
		l.Done(Outcome{})
	})
}
