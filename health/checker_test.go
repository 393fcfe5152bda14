// SPDX-License-Identifier: Apache-2.0

package health_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/health"
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// backends is a probe over servers that exist only by name: it notes when each
// was probed, and fails those that are said to be ill.
type backends struct {
	begin time.Time

	mu   sync.Mutex
	ill  map[string]error
	seen map[string][]time.Duration
	took time.Duration
	most int // probes at once
	now  int
}

func newBackends() *backends {
	return &backends{begin: time.Now(), ill: make(map[string]error), seen: make(map[string][]time.Duration)}
}

func (b *backends) Probe(ctx context.Context, e balance.Endpoint) error {
	b.mu.Lock()
	b.seen[e.Addr] = append(b.seen[e.Addr], time.Since(b.begin))
	err, took := b.ill[e.Addr], b.took
	b.now++
	b.most = max(b.most, b.now)
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		b.now--
		b.mu.Unlock()
	}()
	if took == 0 {
		return err
	}
	select {
	case <-time.After(took):
		return err
	case <-ctx.Done():
		return &health.Error{Code: health.CodeTimeout, Text: "no answer"}
	}
}

// fail makes addr ill, or well again if err is nil.
func (b *backends) fail(addr string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ill[addr] = err
}

// probed returns when addr was probed, and forgets it.
func (b *backends) probed(addr string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := fmt.Sprint(b.seen[addr])
	delete(b.seen, addr)
	return strings.Trim(s, "[]")
}

var refused = &health.Error{Code: health.CodeRefused, Step: "connect", Text: "connection refused"}

// pool returns a pool of servers named a, b, and so on, with addresses a:1, b:1.
func pool(t testing.TB, names ...string) *balance.Pool {
	p := &balance.Pool{}
	join(t, p, names...)
	return p
}

// join makes the named servers the members of p.
func join(t testing.TB, p *balance.Pool, names ...string) {
	var set []balance.Endpoint
	for _, n := range names {
		set = append(set, balance.Endpoint{Name: n, Addr: n + ":1"})
	}
	require.NoError(t, p.Set(set...))
}

// run runs c until the test ends, and checks that it ends as it should.
func run(t *testing.T, c *health.Checker) {
	if c.Logger == nil {
		c.Logger = quiet
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.ErrorIs(t, <-done, context.Canceled)
	})
}

// after sleeps until d after the bubble's begin, and a moment more so that
// whatever happens at d has happened.
func (b *backends) after(d time.Duration) {
	time.Sleep(d - time.Since(b.begin))
	synctest.Wait()
}

func TestIntervalsAreExact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, p := newBackends(), pool(t, "a")
		c := &health.Checker{Pools: []*balance.Pool{p}, Probe: b, Interval: 10 * time.Second, Fast: time.Second, Down: 30 * time.Second}
		run(t, c)
		b.after(35 * time.Second)
		require.Equal(t, "0s 10s 20s 30s", b.probed("a:1"))

		st, _ := c.Status(p.Server("a"))
		require.Equal(t, 40*time.Second, st.Due.Sub(b.begin))
		require.EqualValues(t, 4, st.Probes)

		b.fail("a:1", refused)
		b.after(45 * time.Second)
		st, _ = c.Status(p.Server("a"))
		require.EqualValues(t, 7, st.Probes)
		require.EqualValues(t, 3, st.Failed)
		require.Equal(t, 72*time.Second, st.Due.Sub(b.begin))
		require.Equal(t, "40s 41s 42s", b.probed("a:1"), "in transition each second")
		require.Equal(t, balance.StateDown, p.Server("a").State())
		b.after(75 * time.Second)
		require.Equal(t, "1m12s", b.probed("a:1"), "then each 30s")

		b.fail("a:1", nil)
		b.after(130 * time.Second)
		require.Equal(t, "1m42s 1m43s 1m53s 2m3s", b.probed("a:1"))
		require.Equal(t, balance.StateUp, p.Server("a").State())
	})
}

func TestTimeoutAndOverlongProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, p := newBackends(), pool(t, "a")
		b.took = 3 * time.Second
		run(t, &health.Checker{Pools: []*balance.Pool{p}, Probe: b, Interval: 2 * time.Second, Timeout: 5 * time.Second})
		b.after(10 * time.Second)
		require.Equal(t, "0s 3s 6s 9s", b.probed("a:1"), "never two at once for one server")
	})
	synctest.Test(t, func(t *testing.T) {
		b, p := newBackends(), pool(t, "a")
		b.took = time.Hour
		run(t, &health.Checker{Pools: []*balance.Pool{p}, Probe: b})
		b.after(time.Second)
		require.True(t, p.Server("a").Usable())
		b.after(2 * time.Second)
		require.False(t, p.Server("a").Usable(), "the timeout is the interval, and the first failure counts")
	})
}

func TestSpreadAndConcurrency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, p := newBackends(), pool(t, "a", "b", "c", "d")
		run(t, &health.Checker{Pools: []*balance.Pool{p}, Probe: b, Interval: 10 * time.Second, Spread: 8 * time.Second})
		b.after(15 * time.Second)
		require.Equal(t, "0s 10s", b.probed("a:1"))
		require.Equal(t, "2s 12s", b.probed("b:1"))
		require.Equal(t, "4s 14s", b.probed("c:1"))
		require.Equal(t, "6s", b.probed("d:1"))
	})
	synctest.Test(t, func(t *testing.T) {
		b, p := newBackends(), pool(t, "a", "b", "c", "d")
		b.took = time.Second
		run(t, &health.Checker{Pools: []*balance.Pool{p}, Probe: b, Interval: 10 * time.Second, Spread: -1, Concurrency: 2})
		b.after(5 * time.Second)
		b.mu.Lock()
		most := b.most
		b.mu.Unlock()
		require.Equal(t, 2, most)
		for _, s := range []string{"a:1", "b:1", "c:1", "d:1"} {
			require.NotEmpty(t, b.probed(s), "%s had its turn", s)
		}
	})
}

func TestJitter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, p := newBackends(), pool(t, "a")
		run(t, &health.Checker{Pools: []*balance.Pool{p}, Probe: b, Interval: 10 * time.Second, Jitter: 0.2, Seed: 7})
		b.after(24 * time.Hour)
		b.mu.Lock()
		defer b.mu.Unlock()
		seen := b.seen["a:1"]
		least, most := time.Hour, time.Duration(0)
		for i := range len(seen) - 1 {
			d := seen[i+1] - seen[i]
			least, most = min(least, d), max(most, d)
		}
		require.InDelta(t, 8640, len(seen), 100, "the mean is the interval")
		require.InDelta(t, 8, least.Seconds(), 0.1)
		require.InDelta(t, 12, most.Seconds(), 0.1)
	})
}

func TestInitialStates(t *testing.T) {
	for _, tt := range []struct {
		initial health.Initial
		ill     bool
		want    string // usable at the start, after the first probe, after the second, ...
	}{
		{health.InitialUp, true, "yes no no no"},
		{health.InitialFullyUp, true, "yes yes yes no"},
		{health.InitialDown, false, "no yes yes yes"},
		{health.InitialFullyDown, false, "no no yes yes"},
	} {
		synctest.Test(t, func(t *testing.T) {
			b, p := newBackends(), pool(t, "a")
			b.took = 100 * time.Millisecond
			if tt.ill {
				b.fail("a:1", refused)
			}
			run(t, &health.Checker{Pools: []*balance.Pool{p}, Probe: b, Interval: time.Second, Initial: tt.initial})
			var got []string
			for i := range 4 {
				b.after(time.Duration(i)*time.Second - 800*time.Millisecond*time.Duration(min(i, 1)) + time.Millisecond)
				got = append(got, map[bool]string{true: "yes", false: "no"}[p.Server("a").Usable()])
			}
			require.Equal(t, tt.want, strings.Join(got, " "), "initial %d", tt.initial)
		})
	}
}

func TestServersComeAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, p := newBackends(), pool(t, "a")
		c := &health.Checker{Pools: []*balance.Pool{p}, Probe: b, Interval: 10 * time.Second}
		run(t, c)
		b.after(3 * time.Second)
		gone := p.Server("a")
		require.NoError(t, p.Set(balance.Endpoint{Name: "b", Addr: "b:1"}))
		b.after(25 * time.Second)
		require.Equal(t, "0s", b.probed("a:1"), "who left is not probed")
		require.Equal(t, "3s 13s 23s", b.probed("b:1"), "who came is probed at once")
		_, known := c.Status(gone)
		require.False(t, known)
		_, known = c.Status(p.Server("b"))
		require.True(t, known)
	})
}

func TestMaintenancePauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, p := newBackends(), pool(t, "a")
		run(t, &health.Checker{Pools: []*balance.Pool{p}, Probe: b, Interval: 10 * time.Second, Initial: health.InitialFullyUp})
		b.after(5 * time.Second)
		b.fail("a:1", refused)
		p.Server("a").SetAdmin(balance.Maint, "disk")
		b.after(55 * time.Second)
		require.Equal(t, "0s", b.probed("a:1"))
		p.Server("a").SetAdmin(balance.Ready, "")
		b.after(65 * time.Second)
		require.Equal(t, "1m0s", b.probed("a:1"))
		require.True(t, p.Server("a").Usable(), "it begins anew, with three failures to go")
	})
}

func TestKeySharesTheProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, web, api := newBackends(), pool(t, "a"), pool(t, "a")
		c := &health.Checker{
			Pools: []*balance.Pool{web, api, web}, Probe: b, Interval: time.Second,
			Key: func(e balance.Endpoint) string { return e.Addr },
		}
		b.fail("a:1", refused)
		run(t, c)
		b.after(2500 * time.Millisecond)
		require.Equal(t, "0s 1s 2s", b.probed("a:1"))
		require.False(t, web.Server("a").Usable())
		require.False(t, api.Server("a").Usable())

		require.NoError(t, web.Set(balance.Endpoint{Name: "z", Addr: "z:1"}))
		b.fail("a:1", nil)
		b.after(5500 * time.Millisecond)
		require.True(t, api.Server("a").Usable(), "the one that followed is probed itself when the first leaves")
	})
}

func TestInternalErrorsChangeNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, p := newBackends(), pool(t, "a")
		c := &health.Checker{Pools: []*balance.Pool{p}, Probe: b, Interval: time.Second}
		run(t, c)
		b.fail("a:1", &health.Error{Code: health.CodeInternal, Text: "too many open files"})
		b.after(time.Minute)
		require.True(t, p.Server("a").Usable())
		st, _ := c.Status(p.Server("a"))
		require.Equal(t, "could not check: too many open files", st.Reason)
	})
}

func TestSoftStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, p := newBackends(), pool(t, "a")
		run(t, &health.Checker{Pools: []*balance.Pool{p}, Probe: b, Interval: time.Second})
		b.after(1500 * time.Millisecond)
		b.fail("a:1", &health.Error{Code: health.CodeStopping, Text: "status 404"})
		b.after(2500 * time.Millisecond)
		require.Equal(t, balance.StateStopping, p.Server("a").State())
		b.fail("a:1", nil)
		b.after(3500 * time.Millisecond)
		require.Equal(t, balance.StateUp, p.Server("a").State())
	})
}

func TestReasons(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, p := newBackends(), pool(t, "a")
		var reasons []string
		c := &health.Checker{Pools: []*balance.Pool{p}, Probe: b, Interval: time.Second, OnResult: func(r health.Result) {
			reasons = append(reasons, fmt.Sprint(r.Status.Health, ": ", r.Status.Reason))
		}}
		run(t, c)
		for i, ill := range []error{nil, refused, nil, refused, refused, refused, errors.New("out\nof paper"), nil, nil} {
			b.fail("a:1", ill)
			b.after(time.Duration(i)*time.Second + time.Second/2)
		}
		require.Equal(t, []string{
			"up: passed",
			"up: connect: connection refused, 1 of 3",
			"up: passed",
			"up: connect: connection refused, 1 of 3",
			"up: connect: connection refused, 2 of 3",
			"down: connect: connection refused, 3 of 3",
			"down: out of paper",
			"down: passed, 1 of 2",
			"up: passed",
		}, reasons)
	})
}

// TestDayOfFlapping runs a server that changes its mind all day, and checks
// that its state never changes faster than rise and fall allow.
func TestDayOfFlapping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pool(t, "a")
		probes := 0
		flapping := health.Func(func(context.Context, balance.Endpoint) error {
			probes++
			if probes%7 < 3 || probes%11 == 0 {
				return refused
			}
			return nil
		})
		var changes []time.Time
		last, row := balance.Up, 0
		var lastErr error
		c := &health.Checker{Pools: []*balance.Pool{p}, Probe: flapping, Interval: 10 * time.Second, Initial: health.InitialFullyUp, OnResult: func(r health.Result) {
			if (r.Err == nil) == (lastErr == nil) {
				row++
			} else {
				row = 1
			}
			lastErr = r.Err
			if r.Status.Health == last {
				return
			}
			last = r.Status.Health
			changes = append(changes, time.Now())
			if last == balance.Down {
				require.GreaterOrEqual(t, row, 3)
			} else {
				require.GreaterOrEqual(t, row, 2)
			}
		}}
		run(t, c)
		time.Sleep(24*time.Hour + time.Second)
		synctest.Wait()
		require.InDelta(t, 8640, probes, 2)
		require.Greater(t, len(changes), 1000)
	})
}

func TestProbeNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, p := newBackends(), pool(t, "a")
		c := &health.Checker{Pools: []*balance.Pool{p}, Probe: b, Interval: 10 * time.Second}
		require.False(t, c.ProbeNow(p.Server("a")), "not while Run does not run")
		run(t, c)
		b.after(13 * time.Second)
		b.mu.Lock() // the first is not over when the second comes
		require.True(t, c.ProbeNow(p.Server("a")))
		require.True(t, c.ProbeNow(p.Server("a")))
		b.mu.Unlock()
		b.after(24 * time.Second)
		require.Equal(t, "0s 10s 13s 23s", b.probed("a:1"))
		last, took, next, err := c.Probed(p.Server("a"))
		require.Equal(t, 23*time.Second, last.Sub(b.begin))
		require.Zero(t, took)
		require.NoError(t, err)
		require.Equal(t, 33*time.Second, next.Sub(b.begin))
	})
}
