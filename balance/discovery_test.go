// SPDX-License-Identifier: Apache-2.0

package balance_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock"
	"github.com/penstock-lb/penstock/balance"
)

// record keeps what it is told, from any goroutine.
type record struct {
	mu    sync.Mutex
	lines []string
}

func (r *record) add(line string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, line)
}

// failures is an OnEvent that keeps why sources failed.
func (r *record) failures(e balance.Event) {
	if e.Kind == balance.SourceFailed {
		r.add(e.Reason)
	}
}

// Write makes it the output of a logger.
func (r *record) Write(p []byte) (int, error) {
	r.add(string(p))
	return len(p), nil
}

func (r *record) len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.lines)
}

func (r *record) last() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lines[len(r.lines)-1]
}

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
		events := new(record)
		p := &balance.Pool{OnEvent: events.failures}
		var asked atomic.Int64
		follow(t, p, balance.Poll{Func: func(context.Context) ([]balance.Endpoint, error) {
			a := answers[min(int(asked.Add(1)), len(answers))-1]
			return a.eps, a.err
		}})
		for step, a := range answers {
			require.Equal(t, step+1, int(asked.Load()))
			require.Equal(t, a.want, names(p))
			if a.says != "" {
				require.Contains(t, events.last(), a.says)
			}
			// An interval is 9 to 11 seconds long.
			for int(asked.Load()) == step+1 && step < len(answers)-1 {
				time.Sleep(time.Second)
				synctest.Wait()
			}
		}
		require.Equal(t, 3, events.len())
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
		var calls atomic.Int64
		follow(t, p, balance.SourceFunc(func(context.Context, func([]balance.Endpoint, error)) error {
			calls.Add(1)
			return errors.New("no connection")
		}))
		require.EqualValues(t, 1, calls.Load())
		time.Sleep(time.Hour)
		synctest.Wait()
		require.InDelta(t, 3600/30, calls.Load(), 40, "backs off to 30 s")
	})
	var p balance.Pool
	ends := balance.SourceFunc(func(_ context.Context, update func([]balance.Endpoint, error)) error {
		update(endpoints(1), nil)
		return nil
	})
	require.NoError(t, p.Follow(ctx, ends), "a source may come to its end")
	require.Equal(t, "a", names(&p))
	var ce *penstock.ConfigError
	require.True(t, errors.As(p.Subset(func(balance.Endpoint) bool { return true }).Follow(ctx, ends), &ce))
}

func TestMerge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := balance.Pool{OnEvent: func(balance.Event) {}}
		var works atomic.Bool
		flaky := balance.SourceFunc(func(ctx context.Context, update func([]balance.Endpoint, error)) error {
			if !works.Load() {
				return errors.New("no connection")
			}
			update([]balance.Endpoint{{Name: "b", Addr: "other:1"}, {Name: "z", Addr: "z:1"}}, nil)
			<-ctx.Done()
			return ctx.Err()
		})
		follow(t, &p, balance.Merge{Sources: []balance.Source{balance.Static(endpoints(2)...), flaky}})
		require.Equal(t, "a b", names(&p), "one source is enough to begin")
		works.Store(true)
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
		err := balance.Poll{Func: func(context.Context) ([]balance.Endpoint, error) { return endpoints(1), nil }}.
			Watch(gone, func(eps []balance.Endpoint, _ error) { sets = append(sets, slices.Clone(eps)) })
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.InDelta(t, 6, len(sets), 1)
	})
}

// TestSeededPauses has sources that are asked at times which follow from the seed.
func TestSeededPauses(t *testing.T) {
	type asks struct {
		mu    sync.Mutex
		begin time.Time
		at    []string
	}
	ask := func(a *asks, name string) error {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.at = append(a.at, fmt.Sprint(name, time.Since(a.begin)))
		return errors.New("no answer")
	}
	failing := func(a *asks, name string) balance.Source {
		return balance.SourceFunc(func(context.Context, func([]balance.Endpoint, error)) error { return ask(a, name) })
	}
	for name, source := range map[string]func(a *asks, seed uint64) balance.Source{
		"Poll": func(a *asks, seed uint64) balance.Source {
			return balance.Poll{Seed: seed, Func: func(context.Context) ([]balance.Endpoint, error) { return nil, ask(a, "poll ") }}
		},
		"Merge": func(a *asks, seed uint64) balance.Source {
			return balance.Merge{Seed: seed, Sources: []balance.Source{failing(a, "one "), failing(a, "two ")}}
		},
		"Follow": func(a *asks, _ uint64) balance.Source { return failing(a, "follow ") },
	} {
		t.Run(name, func(t *testing.T) {
			run := func(seed uint64) (at []string) {
				synctest.Test(t, func(t *testing.T) {
					a := &asks{begin: time.Now()}
					p := &balance.Pool{Seed: seed, OnEvent: func(balance.Event) {}}
					stop, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
					defer cancel()
					require.ErrorIs(t, p.Follow(stop, source(a, seed)), context.DeadlineExceeded)
					at = slices.Sorted(slices.Values(a.at))
				})
				return at
			}
			first := run(7)
			require.Greater(t, len(first), 20)
			require.Equal(t, first, run(7), "the same seed, the same times")
			require.NotEqual(t, first, run(8))
			require.NotEqual(t, run(0), run(0), "at random")
		})
	}
}

// TestLongErrorsAreShortened: what a source says is logged with each failure and shown for each
// server, so a value of megabytes, or a mistake of each of many endpoints, must not be whole there.
func TestLongErrorsAreShortened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cause := errors.New("the cause")
		bad := fmt.Errorf("%s: %w", strings.Repeat("ü", 1<<20), cause)
		var r record
		p := &balance.Pool{OnEvent: r.failures}
		follow(t, p, balance.SourceFunc(func(ctx context.Context, update func([]balance.Endpoint, error)) error {
			update([]balance.Endpoint{{Addr: "10.0.0.1:80"}}, nil)
			update(nil, bad)
			<-ctx.Done()
			return context.Cause(ctx)
		}))
		synctest.Wait()
		st, _ := p.SourceState()
		require.ErrorIs(t, st.Err, cause, "all of it can be unwrapped")
		for _, text := range []string{st.Err.Error(), r.last()} {
			require.LessOrEqual(t, len(text), 2048)
			require.Regexp(t, `^ü+\.\.\. \(2\d{6} bytes more\)$`, text)
		}
		require.Less(t, len(p.Explain()[0].Reason), 2200)
	})
}

// An entry that is wrong, and stays so while others change, is reported once. The state of
// the source tells of it all the time.
func TestFollowWrongEntry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told record
		p := &balance.Pool{OnEvent: told.failures}
		var update func([]balance.Endpoint, error)
		follow(t, p, balance.SourceFunc(func(ctx context.Context, u func([]balance.Endpoint, error)) error {
			update = u
			<-ctx.Done()
			return context.Cause(ctx)
		}))
		wrong := errors.New("entry 3 is wrong")
		change := func(addr string, err error) {
			update([]balance.Endpoint{{Addr: addr}}, nil)
			if err != nil {
				update(nil, err)
			}
			st, _ := p.SourceState()
			require.Equal(t, err, st.Err)
			time.Sleep(time.Second)
		}
		for i := range 10 {
			change(fmt.Sprintf("a:%d", i+1), wrong)
			require.Equal(t, 1, told.len())
		}
		update(nil, wrong) // not with a set: it may be an outage that goes on
		require.Equal(t, 2, told.len())
		change("a:1", errors.New("entry 4 is wrong"))
		require.Equal(t, 3, told.len())
		change("a:2", wrong)
		require.Equal(t, 4, told.len())
		change("a:3", nil)
		change("a:4", nil)
		update(nil, wrong)
		require.Equal(t, 5, told.len())
	})
}

// A failure that goes on is reported at once, and then once a minute, however often the
// source tries; another one, and the same after a good set, at once.
func TestFollowReportsAnOutageOnceAMinute(t *testing.T) {
	for name, pool := range map[string]func(told *record) *balance.Pool{
		"event": func(told *record) *balance.Pool { return &balance.Pool{OnEvent: told.failures} },
		"log": func(told *record) *balance.Pool {
			before := slog.Default()
			t.Cleanup(func() { slog.SetDefault(before) })
			slog.SetDefault(slog.New(slog.NewTextHandler(told, nil)))
			return new(balance.Pool)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var told record
				p := pool(&told)
				var update func([]balance.Endpoint, error)
				follow(t, p, balance.SourceFunc(func(ctx context.Context, u func([]balance.Endpoint, error)) error {
					update = u
					<-ctx.Done()
					return context.Cause(ctx)
				}))
				port := 40000
				away := func(why string) error {
					port++
					return fmt.Errorf("read udp 10.0.0.1:%d->10.0.0.2:53: %s", port, why)
				}
				for range 120 { // ten minutes
					update(nil, away("timeout"))
					time.Sleep(5 * time.Second)
				}
				require.Equal(t, 10, told.len())
				for range 24 { // two by turns
					update(nil, away("timeout"))
					update(nil, away("refused"))
					time.Sleep(5 * time.Second)
				}
				require.Equal(t, 10+4, told.len())
				require.Contains(t, told.last(), fmt.Sprint(port-22), "the text is as it came")
				update(nil, away("reset"))
				require.Equal(t, 15, told.len())
				update([]balance.Endpoint{{Addr: "a:1"}}, nil)
				time.Sleep(time.Second)
				update(nil, away("reset"))
				update(nil, away("reset"))
				require.Equal(t, 16, told.len())
				for i := range 100 { // what differs each time is told each time
					update(nil, fmt.Errorf("failure %d", i))
				}
				require.Equal(t, 116, told.len())
				st, _ := p.SourceState()
				require.EqualError(t, st.Err, "failure 99")
			})
		})
	}
}
