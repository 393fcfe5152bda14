// SPDX-License-Identifier: Apache-2.0

package balance_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
)

// names returns the names of all members.
func names(p *balance.Pool) string {
	var all []string
	for s := range p.All() {
		all = append(all, s.Name())
	}
	return strings.Join(all, " ")
}

// follow runs Follow in the background until the test ends.
func follow(t *testing.T, p *balance.Pool, src balance.Source) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- p.Follow(ctx, src) }()
	t.Cleanup(func() {
		cancel()
		require.ErrorIs(t, <-ended, context.Canceled)
	})
	synctest.Wait()
}

func TestFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := errors.New("directory is down")
		answers := []struct {
			eps  []balance.Endpoint
			err  error
			want string
			says string
		}{
			{endpoints(2), nil, "a b", ""},
			{nil, down, "a b", "directory is down"},
			{nil, nil, "a b", "empty set"},
			{append(endpoints(1), endpoints(1)...), nil, "a b", "already the name"},
			{endpoints(3), nil, "a b c", ""},
		}
		var events []string
		p := &balance.Pool{OnEvent: func(e balance.Event) {
			if e.Kind == balance.SourceFailed {
				events = append(events, e.Reason)
			}
		}}
		i := -1
		follow(t, p, balance.Poll(10*time.Second, func(context.Context) ([]balance.Endpoint, error) {
			i++
			a := answers[min(i, len(answers)-1)]
			return a.eps, a.err
		}))
		for step, a := range answers {
			require.Equal(t, step, i)
			require.Equal(t, a.want, names(p))
			if a.says != "" {
				require.Contains(t, events[len(events)-1], a.says)
			}
			// An interval is 9 to 11 seconds long.
			for step == i && i < len(answers)-1 {
				time.Sleep(time.Second)
				synctest.Wait()
			}
		}
		require.Len(t, events, 3)
	})
}

func TestFollowAllowEmpty(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &balance.Pool{AllowEmpty: true}
		require.NoError(t, p.Set(endpoints(2)...))
		follow(t, p, balance.Static())
		require.Empty(t, names(p))
	})
}

// TestFollowAgain has a source that gives up at once, always.
func TestFollowAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &balance.Pool{OnEvent: func(balance.Event) {}}
		calls := 0
		follow(t, p, balance.SourceFunc(func(context.Context, func([]balance.Endpoint, error)) error {
			calls++
			return errors.New("no connection")
		}))
		require.Equal(t, 1, calls)
		time.Sleep(time.Hour)
		synctest.Wait()
		require.InDelta(t, 3600/30, calls, 40, "backs off to 30 s")
	})
	var p balance.Pool
	ends := balance.SourceFunc(func(_ context.Context, update func([]balance.Endpoint, error)) error {
		update(endpoints(1), nil)
		return nil
	})
	require.NoError(t, p.Follow(ctx, ends), "a source may come to its end")
	require.Equal(t, "a", names(&p))
	var ce *balance.ConfigError
	require.True(t, errors.As(p.Subset(func(balance.Endpoint) bool { return true }).Follow(ctx, ends), &ce))
}

func TestMerge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p balance.Pool
		fails := true
		flaky := balance.SourceFunc(func(ctx context.Context, update func([]balance.Endpoint, error)) error {
			if fails {
				return errors.New("no connection")
			}
			update([]balance.Endpoint{{Name: "b", Addr: "other:1"}, {Name: "z", Addr: "z:1"}}, nil)
			<-ctx.Done()
			return ctx.Err()
		})
		follow(t, &p, balance.Merge(balance.Static(endpoints(2)...), flaky))
		require.Equal(t, "a b", names(&p), "one source is enough to begin")
		fails = false
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, "a b z", names(&p))
		require.Equal(t, endpoints(2)[1].Addr, p.Server("b").Addr(), "the first source counts")
	})
}

func TestPollStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gone, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		var sets [][]balance.Endpoint
		err := balance.Poll(0, func(context.Context) ([]balance.Endpoint, error) { return endpoints(1), nil }).
			Watch(gone, func(eps []balance.Endpoint, _ error) { sets = append(sets, slices.Clone(eps)) })
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.InDelta(t, 6, len(sets), 1)
	})
}
