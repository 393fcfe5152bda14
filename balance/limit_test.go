// SPDX-License-Identifier: Apache-2.0

package balance_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
)

// TestLimit asks for the limit of servers from within a pick, which holds locks.
func TestLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := make(map[string]int)
		p := &balance.Pool{
			Policy: balance.PolicyFunc(func(v balance.View) balance.Picker { return limitReader{v, limits} }),
			Queue:  balance.Queue{Size: -1}, SlowStart: balance.SlowStart{Window: time.Minute}, FullConns: 100,
		}
		require.NoError(t, p.Set(
			balance.Endpoint{Name: "a", Addr: "h:1", MaxConns: 10}, balance.Endpoint{Name: "b", Addr: "h:1"},
			balance.Endpoint{Name: "c", Addr: "h:1", MaxConns: -1}, balance.Endpoint{Name: "d", Addr: "h:1", MaxConns: 50, MinConns: 4}))
		time.Sleep(time.Hour) // all are warm
		look := func() map[string]int {
			clear(limits)
			lease(t, p).Done(balance.Outcome{})
			return limits
		}
		require.Equal(t, map[string]int{"a": 10, "b": 0, "c": 0, "d": 4}, look())
		a := p.Server("a")
		require.NoError(t, a.SetMaxConns(4))
		require.NoError(t, a.SetWeight(7))
		require.Equal(t, 4, look()["a"])
		require.Equal(t, 10, a.Endpoint().MaxConns, "as given to Set")
		require.Zero(t, a.Endpoint().Weight, "as given to Set")
		a.Report(balance.Check, balance.Down, "test")
		a.Report(balance.Check, balance.Up, "")
		time.Sleep(30 * time.Second)
		synctest.Wait()
		require.Equal(t, 2, look()["a"], "half of its slow start")
		require.Equal(t, 2, p.Explain()[0].Limit)
		a.SetTrial(true)
		require.Equal(t, 2, a.Limit())
		require.NoError(t, a.SetMaxConns(0))
		require.Zero(t, a.Limit())
		time.Sleep(time.Hour) // the ramp's timer ends
	})
}

// limitReader notes the limit of each server that it looks at, and picks the last one.
type limitReader struct {
	v      balance.View
	limits map[string]int
}

func (r limitReader) Pick(_ uint64, f balance.Filter) (last *balance.Server) {
	for _, s := range r.v.Servers {
		r.limits[s.Name()] = s.Limit()
		if f.Allows(s) {
			last = s
		}
	}
	return last
}
