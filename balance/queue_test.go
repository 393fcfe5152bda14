// SPDX-License-Identifier: Apache-2.0

package balance_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
)

// line is a queue as its members see it. It runs in a synctest bubble.
type line struct {
	t    *testing.T
	pool *balance.Pool
	mu   sync.Mutex
	log  []string
	held map[string]balance.Lease
}

func newLine(t *testing.T, p *balance.Pool, eps ...balance.Endpoint) *line {
	require.NoError(t, p.Set(eps...))
	return &line{t: t, pool: p, held: make(map[string]balance.Lease)}
}

// enter lets who ask for a server. What comes of it is logged when it is known.
func (l *line) enter(ctx context.Context, who string, req balance.Request) {
	go func() {
		lease, err := l.pool.Acquire(ctx, req)
		l.mu.Lock()
		defer l.mu.Unlock()
		switch {
		case err != nil:
			l.log = append(l.log, who+": "+strings.TrimPrefix(err.Error(), "balance: "))
		case lease.Queued():
			l.held[who] = lease
			l.log = append(l.log, who+">"+lease.Server().Name())
		default:
			l.held[who] = lease
			l.log = append(l.log, who+"="+lease.Server().Name()) // without waiting
		}
	}()
	synctest.Wait()
}

// leave ends the lease of who.
func (l *line) leave(who string) {
	l.mu.Lock()
	lease := l.held[who]
	delete(l.held, who)
	l.mu.Unlock()
	lease.Done(balance.Outcome{})
	synctest.Wait()
}

// want checks what was logged since the last time.
func (l *line) want(log ...string) {
	l.t.Helper()
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	require.ElementsMatch(l.t, log, l.log)
	l.log = nil
}

func one(name string, maxConns int) balance.Endpoint {
	return balance.Endpoint{Name: name, Addr: name + ":1", MaxConns: maxConns}
}

func TestQueueOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLine(t, &balance.Pool{Queue: balance.Queue{Timeout: -1}}, one("a", 1))
		l.enter(ctx, "first", balance.Request{})
		l.want("first=a")
		l.enter(ctx, "low1", balance.Request{Priority: 5})
		l.enter(ctx, "low2", balance.Request{Priority: 5})
		l.enter(ctx, "high1", balance.Request{Priority: -1})
		l.enter(ctx, "mid", balance.Request{})
		l.enter(ctx, "high2", balance.Request{Priority: -1})
		l.want()
		require.Equal(t, 5, l.pool.Stats().Queued)
		who := "first"
		for _, next := range []string{"high1", "high2", "mid", "low1", "low2"} {
			l.leave(who)
			l.want(next + ">a")
			who = next
		}
		l.leave(who)
		require.Zero(t, l.pool.Stats().InFlight)
	})
}

func TestQueueLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLine(t, &balance.Pool{Queue: balance.Queue{Size: 2, Timeout: time.Minute}}, one("a", 1))
		l.enter(ctx, "first", balance.Request{})
		gone, cancel := context.WithCancelCause(ctx)
		l.enter(gone, "gone", balance.Request{})
		l.enter(ctx, "stays", balance.Request{})
		l.enter(ctx, "one too many", balance.Request{})
		l.want("first=a", "one too many: queue full")
		cancel(errors.New("client went away"))
		l.want("gone: client went away")
		l.leave("first")
		l.want("stays>a")
		l.enter(ctx, "late", balance.Request{})
		time.Sleep(time.Minute)
		l.want("late: Queue.Timeout is over")
		l.leave("stays")
		require.Zero(t, l.pool.Stats().Queued)
	})
}

// TestQueueTenants: a flood of one tenant delays another by one request, and does not
// take its place in the queue.
func TestQueueTenants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLine(t, &balance.Pool{Queue: balance.Queue{Size: 4, Timeout: -1}}, one("a", 1))
		flood, other := balance.Request{Tenant: 1}, balance.Request{Tenant: 2}
		l.enter(ctx, "first", flood)
		for _, who := range []string{"flood1", "flood2", "flood3", "flood4", "flood5"} {
			l.enter(ctx, who, flood)
		}
		l.want("first=a", "flood5: queue full")
		l.enter(ctx, "other1", other)
		l.enter(ctx, "other2", other)
		l.want("flood4: queue full", "flood3: queue full")
		l.enter(ctx, "other3", other)
		l.want("other3: queue full")
		who := "first"
		for _, next := range []string{"flood1", "other1", "flood2", "other2"} {
			l.leave(who)
			l.want(next + ">a")
			who = next
		}
		l.leave(who)
		require.Zero(t, l.pool.Stats().Queued)
	})
}

// TestQueueServer has a queue of the server beside that of the pool.
func TestQueueServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &balance.Pool{Policy: balance.RoundRobin{}, WhenFull: balance.Wait, Queue: balance.Queue{Timeout: -1}}
		b := one("b", 1)
		b.MaxQueue = 2
		l := newLine(t, p, one("a", 1), b)
		l.enter(ctx, "1", balance.Request{Prefer: "a"})
		l.enter(ctx, "2", balance.Request{Prefer: "b"})
		l.enter(ctx, "any", balance.Request{})
		l.enter(ctx, "fixed", balance.Request{Prefer: "b"})
		l.enter(ctx, "fixed2", balance.Request{Prefer: "b"})
		l.enter(ctx, "fixed3", balance.Request{Prefer: "b"})
		l.want("1=a", "2=b", "fixed3: queue full")
		require.Equal(t, 2, p.Server("b").Queued())

		l.leave("2") // any came before fixed
		l.want("any>b")
		l.leave("any")
		l.want("fixed>b")
		l.leave("1")
		l.enter(ctx, "new", balance.Request{})
		l.want("new=a") // as b has a queue of its own
		l.leave("fixed")
		l.want("fixed2>b")
	})
}

// TestQueueHandsOn has waiters whose server goes away.
func TestQueueHandsOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &balance.Pool{Policy: balance.RoundRobin{}, WhenFull: balance.Wait, Queue: balance.Queue{Timeout: -1}}
		l := newLine(t, p, one("a", 1), one("b", 2))
		l.enter(ctx, "1", balance.Request{Prefer: "a"})
		l.enter(ctx, "2", balance.Request{Prefer: "a"})
		l.enter(ctx, "3", balance.Request{Prefer: "a"})
		l.enter(ctx, "4", balance.Request{Prefer: "a"})
		l.want("1=a")
		p.Server("a").SetAdmin(balance.Drain, "")
		l.want() // persistent traffic goes on
		p.Server("a").Report(balance.Check, balance.Down, "")
		l.want("2>b", "3>b")
		require.Zero(t, p.Server("a").Queued())
		require.NoError(t, p.Set(one("b", 2), one("c", 1)))
		l.want("4>c")

		l.enter(ctx, "5", balance.Request{})
		require.NoError(t, p.Server("b").SetMaxConns(3))
		l.want("5>b")
		l.enter(ctx, "6", balance.Request{})
		p.Server("c").SetAdmin(balance.Maint, "")
		l.want()
		p.Server("b").SetAdmin(balance.Maint, "")
		l.want("6: no usable server")
	})
}

// TestWhenFull is about requests whose server follows from a key. (HAProxy,
// hash-preserve-affinity: maxconn, maxqueue, always.)
func TestWhenFull(t *testing.T) {
	for _, test := range []struct {
		onFull balance.WhenFull
		want   []string
	}{
		{balance.GoOn, []string{"1=home", "2=other"}},
		{balance.WaitOrGoOn, []string{"1=home", "3=other"}}, // 2 waits at home
		{balance.Wait, []string{"1=home", "3: queue full", "4: queue full"}},
	} {
		t.Run(fmt.Sprint(test.onFull), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &balance.Pool{Policy: balance.Ring{}, WhenFull: test.onFull, Queue: balance.Queue{PerServer: 1, Timeout: time.Minute}}
				require.NoError(t, p.Set(one("x", 1), one("y", 1)))
				req := balance.Request{Key: balance.Hash("/url")}
				lease := acquire(t, p, req)
				home, other := lease.Server().Name(), "x"
				if home == "x" {
					other = "y"
				}
				lease.Done(balance.Outcome{})
				l := newLine(t, p, one("x", 1), one("y", 1))
				for i := range 4 {
					l.enter(ctx, fmt.Sprint(i+1), req)
				}
				l.mu.Lock()
				for i := range l.log {
					l.log[i] = strings.NewReplacer("="+home, "=home", "="+other, "=other").Replace(l.log[i])
				}
				l.mu.Unlock()
				l.want(test.want...)
				time.Sleep(time.Minute) // empties the queues
				synctest.Wait()
			})
		})
	}
}

// TestDynamicLimit has values of HAProxy's formula: max(minconn,
// load*maxconn/fullconn).
func TestDynamicLimit(t *testing.T) {
	p := &balance.Pool{Policy: balance.RoundRobin{}, FullConns: 20, Queue: balance.Queue{Size: -1}}
	a, b := one("a", 10), one("b", 0)
	a.MinConns = 2
	require.NoError(t, p.Set(a, b))
	for _, step := range []struct{ load, limit int }{
		{0, 2}, {4, 2}, {6, 3}, {10, 5}, {19, 9}, {20, 10}, {40, 10},
	} {
		for p.Stats().InFlight < step.load {
			acquire(t, p, balance.Request{Prefer: "b"})
		}
		require.Equal(t, step.limit, p.Explain()[0].Limit, "at %d", step.load)
	}
}

// TestNoLostWakeUp has far more requests than slots and no timeout: if one release went
// unheard, it would not end.
func TestNoLostWakeUp(t *testing.T) {
	for _, onFull := range []balance.WhenFull{balance.GoOn, balance.Wait, balance.WaitOrGoOn} {
		p := &balance.Pool{Policy: balance.Maglev{}, WhenFull: onFull, Queue: balance.Queue{Timeout: -1, PerServer: 1000}}
		require.NoError(t, p.Set(one("a", 1), one("b", 2), one("c", 1)))
		limit := map[string]int64{"a": 1, "b": 2, "c": 1}
		held := map[string]*atomic.Int64{"a": {}, "b": {}, "c": {}}
		var wg sync.WaitGroup
		var served atomic.Int64
		for g := range 16 {
			wg.Go(func() {
				for i := range 300 {
					req := balance.Request{Key: uint64(g*1000 + i + 1), Priority: i % 3}
					if i%5 == 0 {
						req.Prefer = "b"
					}
					actx, cancel := ctx, context.CancelFunc(func() {})
					if i%7 == 0 { // some give up
						actx, cancel = context.WithTimeout(ctx, 50*time.Microsecond)
					}
					l, err := p.Acquire(actx, req)
					if cancel(); err != nil {
						continue
					}
					name := l.Server().Name()
					if n := held[name].Add(1); n > limit[name] {
						t.Errorf("%s has %d leases", name, n)
					}
					served.Add(1)
					held[name].Add(-1)
					l.Done(balance.Outcome{})
				}
			})
		}
		wg.Wait()
		st := p.Stats()
		require.Zero(t, st.InFlight)
		require.Zero(t, st.Queued)
		require.EqualValues(t, served.Load(), st.Picks)
		require.Greater(t, served.Load(), int64(16*300*6/7-1))
	}
}
