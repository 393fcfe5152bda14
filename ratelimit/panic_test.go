// SPDX-License-Identifier: Apache-2.0

package ratelimit_test

import (
	"context"
	"io"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-lb/penstock/ratelimit"
)

type brokenStore struct{}

func (brokenStore) Take(context.Context, string, ratelimit.Law, int) (ratelimit.Decision, error) {
	panic("boom")
}

func (brokenStore) Refund(context.Context, string, ratelimit.Law, ratelimit.Decision) error {
	panic("boom")
}

// A store that panics is one that is away, and a callback that panics has been
// told.
func TestSharedSurvivesHostPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		told := 0
		s := &ratelimit.Shared[string]{
			Store: brokenStore{}, Law: ratelimit.GCRA{Rate: ratelimit.PerSecond(1)}, Retry: time.Second, Failures: 1,
			OnOutage: func(error) { told++; panic("boom") }, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
		}
		if d := s.Take("k", 1); !d.OK || !d.Local {
			t.Errorf("= %+v; want a local yes", d)
		}
		time.Sleep(2 * time.Second)
		s.Refund("k", ratelimit.Decision{OK: true, Cost: 1})
		if told != 1 {
			t.Errorf("told %d times", told)
		}
	})
}
