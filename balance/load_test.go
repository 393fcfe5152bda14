// SPDX-License-Identifier: Apache-2.0

package balance_test

import (
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
)

// single returns a pool of one server.
func single(t testing.TB) (*balance.Pool, *balance.Server) {
	p := &balance.Pool{Seed: 1}
	require.NoError(t, p.Set(balance.Endpoint{Name: "a", Addr: "a:1"}))
	return p, p.Server("a")
}

func TestReportLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, s := single(t)
		_, ok := s.Load("queue")
		require.False(t, ok)
		require.Empty(t, s.Loads())

		begin := time.Now()
		s.ReportLoad(balance.Load{Name: "queue", Value: 3}, balance.Load{Name: "cache", Value: 0.5, At: begin.Add(-time.Hour)})
		time.Sleep(time.Minute)
		s.ReportLoad(balance.Load{Name: "queue", Value: 4})
		queue := balance.Load{Name: "queue", Value: 4, At: begin.Add(time.Minute)}
		cache := balance.Load{Name: "cache", Value: 0.5, At: begin.Add(-time.Hour)}
		got, ok := s.Load("queue")
		require.True(t, ok)
		require.Equal(t, queue, got)
		require.Equal(t, []balance.Load{cache, queue}, s.Loads())
		require.Equal(t, []balance.Load{cache, queue}, p.Explain()[0].Loads)

		for _, ignored := range []balance.Load{
			{Name: "queue", Value: math.NaN()}, {Name: "queue", Value: math.Inf(1)}, {Name: "queue", Value: math.Inf(-1)},
			{Name: "queue", Value: 1, At: queue.At.Add(-1)}, {Value: 1}, {Name: strings.Repeat("x", 129)},
		} {
			s.ReportLoad(ignored)
		}
		require.Equal(t, []balance.Load{cache, queue}, s.Loads())
		s.ReportLoad(balance.Load{Name: "cache", Value: 1, At: time.Unix(1<<40, 0)}) // far away, both ways
		s.ReportLoad(balance.Load{Name: "old", Value: 1, At: time.Unix(-1<<40, 0)})
		require.Len(t, s.Loads(), 3)
	})
}

func TestReportLoadIsBounded(t *testing.T) {
	p, s := single(t)
	for i := range 1000 {
		s.ReportLoad(balance.Load{Name: fmt.Sprint("name", i), Value: 1})
	}
	require.Len(t, s.Loads(), 32)
	// What a policy asks for is there all the same.
	p.WithPolicy(balance.Scored{Scorers: []balance.Scorer{{Metric: "queue"}}})
	s.ReportLoad(balance.Load{Name: "queue", Value: 2})
	got, _ := s.Load("queue")
	require.Equal(t, 2.0, got.Value)
}

// TestReportLoadAtOnce is for the race detector, too.
func TestReportLoadAtOnce(t *testing.T) {
	_, s := single(t)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 200 {
				s.ReportLoad(balance.Load{Name: fmt.Sprint("name", (g+i)%8), Value: float64(i)})
				s.Loads()
			}
		})
	}
	wg.Wait()
	require.Len(t, s.Loads(), 8)
}

func TestReportLoadDoesNotAllocate(t *testing.T) {
	_, s := single(t)
	s.ReportLoad(balance.Load{Name: "queue"})
	require.Zero(t, testing.AllocsPerRun(100, func() {
		s.ReportLoad(balance.Load{Name: "queue", Value: 1})
		s.Load("queue")
	}))
}
