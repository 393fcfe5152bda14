// SPDX-License-Identifier: Apache-2.0

package ratelimit_test

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/penstock-lb/penstock/ratelimit"
)

func ExampleKeyed() {
	perClient := &ratelimit.Keyed[netip.Addr]{
		Law: ratelimit.GCRA{Rate: ratelimit.PerMinute(6), Burst: 2},
		Ban: ratelimit.Ban{After: 100, For: time.Hour},
	}
	client := netip.MustParseAddr("192.0.2.1")
	for range 3 {
		d := perClient.Take(client, 1)
		fmt.Println(d.OK, d.Remaining, d.RetryAfter())
	}
	// Output:
	// true 1 0
	// true 0 0
	// false 0 10
}

func ExampleLimiter() {
	// At most two reports at a time, whoever asks.
	reports := ratelimit.Limiter{Law: ratelimit.InFlight{Max: 2}}
	first, second, third := reports.Take(1), reports.Take(1), reports.Take(1)
	fmt.Println(first.OK, second.OK, third.OK)
	reports.Refund(first)
	fmt.Println(reports.Take(1).OK)
	// Output:
	// true true false
	// true
}

func ExampleDecision_AppendRateLimit() {
	l := ratelimit.Limiter{Law: ratelimit.Window{Rate: ratelimit.PerMinute(100)}}
	d := l.Take(30)
	fmt.Printf("RateLimit: %s\n", d.AppendRateLimit(nil, "default")[:16])
	// Output:
	// RateLimit: "default";r=70;t
}
