// SPDX-License-Identifier: Apache-2.0

package ratelimit

import "time"

// InFlight is the law of concurrency: at most Max are taken and not yet given
// back. Every Take that says yes must be followed by one Refund of its
// Decision when the work is done. It refuses and never waits; for one limit
// whose callers wait, see [Concurrency].
type InFlight struct {
	Max int // 0 or negative means none: it admits nothing
}

// Take implements [Law]. How long to wait is not known: a refusal says 0,
// or Never if n is more than Max.
func (f InFlight) Take(held int64, _ time.Duration, n int) (int64, Decision) {
	limit, n := int64(max(0, f.Max)), max(0, n)
	d := Decision{Limit: int(limit)}
	switch {
	case int64(n) > limit:
		d.Over, d.Wait = true, Never
	case int64(n) > limit-held:
		d.Over = true
	default:
		d.OK = true
		held += int64(n)
	}
	d.Remaining = int(max(0, limit-held))
	if held > 0 {
		d.Reset = Never
	}
	return held, d
}

// Refund implements [Law].
func (f InFlight) Refund(held int64, _ time.Duration, d Decision) int64 {
	return max(0, held-int64(max(0, d.Cost)))
}
