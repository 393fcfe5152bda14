// SPDX-License-Identifier: Apache-2.0

package health_test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/health"
)

// An outlier learns of outcomes whether its func comes to OnOutcome before Set or after it,
// with another one there or not.
func TestOnOutcomeMayGrowBeforeRun(t *testing.T) {
	for _, after := range []bool{false, true} {
		for _, first := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				told := 0
				p := new(balance.Pool)
				if first {
					p.OnOutcome = append(p.OnOutcome, func(*balance.Server, balance.Outcome) { told++ })
				}
				set := func() {
					require.NoError(t, p.Set(balance.Endpoint{Addr: "10.0.0.1:80"}, balance.Endpoint{Addr: "10.0.0.2:80"}))
				}
				if after {
					set()
				}
				o := &health.Outlier{Pool: p, Logger: quiet}
				p.OnOutcome = append(p.OnOutcome, o.Observe)
				if !after {
					set()
				}
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() { done <- o.Run(ctx) }()
				synctest.Wait()
				const tries = 12
				for range tries {
					l, err := p.Acquire(ctx, balance.Request{})
					require.NoError(t, err)
					l.Done(balance.Outcome{Class: balance.Reset})
				}
				synctest.Wait()
				require.Equal(t, 1, p.Usable(), "after Set %v, with another func %v", after, first)
				if first {
					require.Equal(t, tries, told)
				}
				cancel()
				<-done
			})
		}
	}
}
