// SPDX-License-Identifier: Apache-2.0

package ratelimit

import (
	"math"
	"reflect"
	"time"
)

// A Divisible law can be kept by several gateways, each a part of it. GCRA, Window
// and InFlight are; of a law of a host's own that is not, each gateway keeps the whole.
type Divisible interface {
	Law

	// Part returns the law for one of n gateways, n being 2 or more. All n together
	// admit in the long run no more than the law does, and at once no more than it or
	// 1 each.
	Part(n int) Law
}

// Part implements [Divisible]. The rate is divided exactly, and of the burst each has
// an n-th, rounded down, but 1 at least. MaxWait stays.
func (g GCRA) Part(n int) Law {
	burst := g.burst()
	g.Rate.Per = times(n, g.Rate.span())
	if g.Burst = burst / n; g.Burst < 1 {
		g.Burst = -1 // none: one at a time
	}
	return g
}

// Part implements [Divisible]. The count is divided and rounded down, but 1 at least,
// and the time made longer or shorter so that the rate is exact. Windows that count to
// less than ten or so admit less than their rate, as they reckon with whole events.
func (w Window) Part(n int) Law {
	if w.Rate.Count <= 0 {
		return w
	}
	count := max(1, w.Rate.Count/n)
	per := float64(w.Rate.span()) * float64(n) * float64(count) / float64(w.Rate.Count)
	w.Rate = Rate{count, time.Duration(min(math.Ceil(per), float64(longest)))}
	return w
}

// Part implements [Divisible]: an n-th, rounded down, but 1 at least.
func (f InFlight) Part(n int) Law {
	if f.Max > 0 {
		f.Max = max(1, f.Max/n)
	}
	return f
}

// part returns law for one of n gateways.
func part(law Law, n int) Law {
	if d, ok := law.(Divisible); ok && n > 1 {
		return d.Part(n)
	}
	return law
}

// plain returns a law of this package as a value, and nil for a nil pointer.
func plain(law Law) Law {
	if v := reflect.ValueOf(law); v.Kind() == reflect.Pointer && v.IsNil() {
		return nil
	}
	switch l := law.(type) {
	case *GCRA:
		return *l
	case *Window:
		return *l
	case *InFlight:
		return *l
	case *Unlimited:
		return *l
	}
	return law
}
