// SPDX-License-Identifier: Apache-2.0

package ratelimit

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// slow is a store whose answers take a minute.
type slow struct{ MemoryStore }

func (s *slow) Take(ctx context.Context, key string, law Law, n int) (Decision, error) {
	select {
	case <-ctx.Done():
		return Decision{}, ctx.Err()
	case <-time.After(time.Minute):
		return s.MemoryStore.Take(ctx, key, law, n)
	}
}

// TestSharedTimeouts: 0 means 100ms, negative means none.
func TestSharedTimeouts(t *testing.T) {
	for timeout, want := range map[time.Duration]time.Duration{0: 100 * time.Millisecond, time.Second: time.Second, -1: time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			s := &Shared[string]{Store: &slow{}, Law: GCRA{Rate: PerSecond(1)}, Timeout: timeout, Logger: slog.New(slog.DiscardHandler)}
			start := time.Now()
			d := s.Take("a", 1)
			require.Equal(t, want, time.Since(start))
			require.Equal(t, timeout >= 0, d.Local)
		})
	}
}
