// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"testing"
	"time"
)

func TestLatencies(t *testing.T) {
	s := &latencies{q: 0.95}
	for i := range 99 {
		s.note(nil, time.Duration(i)*time.Millisecond)
	}
	if d, ok := s.quantile(); ok {
		t.Errorf("quantile() = %v with 99 replies; want none", d)
	}
	s.note(&failure{}, time.Hour) // no reply, so it does not count
	s.note(nil, 99*time.Millisecond)
	// Buckets are a quarter of a power of two wide.
	if d, ok := s.quantile(); !ok || d < 95*time.Millisecond || d > 120*time.Millisecond {
		t.Errorf("quantile() = %v, %v; want about 96ms", d, ok)
	}
	for range 3000 {
		s.note(nil, time.Millisecond)
	}
	if d, _ := s.quantile(); d > 2*time.Millisecond {
		t.Errorf("quantile() = %v after many replies of 1ms; old ones have to fade", d)
	}
}
