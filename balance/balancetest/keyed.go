// SPDX-License-Identifier: Apache-2.0

package balancetest

import (
	"context"
	"testing"

	"github.com/penstock-lb/penstock/balance"
)

func (s suite) keyless(t *testing.T) {
	if s.law.Share == 0 {
		t.Skip("weights do not count")
	}
	s.hold(t, s.pool(t, 6, 0, 1, 2, 3), 12000, func(int) balance.Request { return balance.Request{} })
}

// owners returns the server of each of n keys.
func owners(t *testing.T, p *balance.Pool, n int) []string {
	t.Helper()
	names := make([]string, n)
	for i := range names {
		l, err := p.Acquire(context.Background(), key(i))
		if err != nil {
			t.Fatalf("Acquire: %v", err)
		}
		names[i] = l.Server().Name()
		done(l)
	}
	return names
}

const keys = 10000

func (s suite) sameKey(t *testing.T) {
	p := s.pool(t, 10, 0, 1, 2)
	first := owners(t, p, keys)
	for i, again := range owners(t, p, keys) {
		if again != first[i] {
			t.Fatalf("key %d went to %s and then to %s", i, first[i], again)
		}
	}
}

func (s suite) order(t *testing.T) {
	p, q := s.pool(t, 10, 0), s.pool(t, 10, 0)
	eps := s.endpoints(10, 0)
	for i := range 5 {
		eps[i], eps[9-i] = eps[9-i], eps[i]
	}
	set(t, q, eps)
	a, b := owners(t, p, keys), owners(t, q, keys)
	for i := range a {
		if a[i] != b[i] {
			t.Fatalf("key %d goes to %s in one order and to %s in another", i, a[i], b[i])
		}
	}
}

func (s suite) leave(t *testing.T) {
	const n = 10
	p := s.pool(t, n, 0)
	before := owners(t, p, keys)
	gone := p.Server("s3")
	gone.Report(balance.Check, balance.Down, "test")
	own, moved := 0, 0
	for i, now := range owners(t, p, keys) {
		switch {
		case before[i] == gone.Name():
			own++
		case now != before[i]:
			moved++
		}
	}
	t.Logf("of %d keys %d (%.2f %%) were of the server that left, 1/N is %.2f %%; %d others moved (%.2f %%)",
		keys, own, 100*float64(own)/keys, 100.0/n, moved, 100*float64(moved)/keys)
	if part := float64(moved) / keys; part > s.law.Moved {
		t.Errorf("%.4f of all keys moved between servers that stayed; want at most %.4f", part, s.law.Moved)
	}
	gone.Report(balance.Check, balance.Up, "")
	for i, now := range owners(t, p, keys) {
		if now != before[i] {
			t.Fatalf("key %d is at %s after the server came back; want %s", i, now, before[i])
		}
	}
}
