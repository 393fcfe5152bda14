// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"context"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestCost has values computed by hand from Finagle's formula: cost = rtt if rtt >
// cost, else cost*k + rtt*(1-k), with k = exp(-td/tau).
func TestCost(t *testing.T) {
	const tau = 10 * time.Second
	var c cost
	for _, step := range []struct {
		at   time.Duration
		rtt  time.Duration
		want float64 // seconds
	}{
		{0, 100 * time.Millisecond, 0.1},
		{time.Second, 500 * time.Millisecond, 0.5},              // a peak counts at once
		{time.Second, 100 * time.Millisecond, 0.5},              // no time has passed
		{11 * time.Second, 100 * time.Millisecond, 0.247151776}, // 0.5*e^-1 + 0.1*(1-e^-1)
		{16 * time.Second, 100 * time.Millisecond, 0.189252066}, // 0.247151776*e^-0.5 + 0.1*(1-e^-0.5)
		{6 * time.Second, 100 * time.Millisecond, 0.189252066},  // late news
	} {
		c = c.observe(step.rtt, uint32(step.at/time.Millisecond), tau)
		require.InDelta(t, step.want, c.seconds, 1e-6, "at %v", step.at)
	}
	require.InDelta(t, 0.189252066*math.Exp(-2), c.decayed(36000, tau), 1e-6)
	require.Equal(t, c, unpackCost(c.pack()))
	wrapped := cost{1, math.MaxUint32 - 4999}
	require.InDelta(t, math.Exp(-1), wrapped.keep(5000, tau), 1e-9, "time wraps after 49 days")
}

func TestPeakEWMA(t *testing.T) {
	ctx := context.Background()
	p := &Pool{Policy: PeakEWMA{}, Seed: 1}
	require.NoError(t, p.Set(Endpoint{Addr: "a:1"}, Endpoint{Addr: "b:1"}))
	done := func(l Lease, d time.Duration, class Class) {
		l.Done(Outcome{Class: class, Latency: d, At: p.core.born})
	}
	// Not measured yet: one lease each, and no second one while the other is free.
	first, err := p.Acquire(ctx, Request{})
	require.NoError(t, err)
	second, err := p.Acquire(ctx, Request{})
	require.NoError(t, err)
	require.NotSame(t, first.s, second.s)
	done(first, 10*time.Millisecond, OK)
	done(second, 100*time.Millisecond, OK)

	// One is ten times as fast: it is picked until it has ten times the work.
	fast, slow := 0, 0
	var leases []Lease
	for range 110 {
		l, err := p.Acquire(ctx, Request{})
		require.NoError(t, err)
		if leases = append(leases, l); l.s == first.s {
			fast++
		} else {
			slow++
		}
	}
	require.InDelta(t, 100, fast, 3)
	for _, l := range leases {
		done(l, 0, OK)
	}

	// Failing fast is not being fast.
	l, err := p.Acquire(ctx, Request{Prefer: first.s.name})
	require.NoError(t, err)
	done(l, time.Millisecond, StatusError)
	l, err = p.Acquire(ctx, Request{})
	require.NoError(t, err)
	require.Same(t, second.s, l.s)
	done(l, 100*time.Millisecond, OK)

	// An aborted lease says nothing.
	before := second.s.peak.Load()
	l, err = p.Acquire(ctx, Request{Prefer: second.s.name})
	require.NoError(t, err)
	done(l, time.Minute, ClientAborted)
	require.Equal(t, before, second.s.peak.Load())
}
