// SPDX-License-Identifier: Apache-2.0

package redisstore

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/ratelimit"
)

// farAway returns the address of a proxy to addr that holds back each byte for delay each way.
func farAway(t *testing.T, addr string, delay time.Duration) string {
	pool := &balance.Pool{}
	require.NoError(t, pool.Set(balance.Endpoint{Addr: addr}))
	dialer := &l4.Dialer{Pool: pool, Tries: -1}
	srv := &l4.Server{Logger: slog.New(slog.DiscardHandler), Handler: l4.HandlerFunc(func(ctx context.Context, c net.Conn) error {
		defer c.Close()
		up, err := dialer.DialContext(ctx, "tcp", "")
		if err != nil {
			return err
		}
		defer up.Close()
		var wg sync.WaitGroup
		wg.Go(func() { late(up, c, delay) })
		late(c, up, delay)
		wg.Wait()
		return nil
	})}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go func() { _ = srv.Serve(ln) }()
	t.Cleanup(func() { _ = srv.Close() })
	return ln.Addr().String()
}

// late copies from src to dst, each byte after delay, until one of them ends.
func late(dst, src net.Conn, delay time.Duration) {
	type piece struct {
		due  time.Time
		text []byte
	}
	pieces := make(chan piece, 1000)
	go func() {
		defer close(pieces)
		for {
			buf := make([]byte, 4096)
			n, err := src.Read(buf)
			if n > 0 {
				pieces <- piece{time.Now().Add(delay), buf[:n]}
			}
			if err != nil {
				return
			}
		}
	}()
	for p := range pieces {
		time.Sleep(time.Until(p.due))
		if _, err := dst.Write(p.text); err != nil {
			break
		}
	}
	_ = dst.Close()
	_ = src.Close()
	for range pieces {
	}
}

// outage is how long each part of TestLeased takes; REDIS_OUTAGE=10s makes them as long as
// the claim is about.
func outage(t *testing.T) time.Duration {
	if s := os.Getenv("REDIS_OUTAGE"); s != "" {
		d, err := time.ParseDuration(s)
		require.NoError(t, err)
		return d
	}
	return time.Second
}

// TestLeased has three gateways, each with a client of its own to a Redis that is 5 ms away, and
// that is killed meanwhile and forgets everything. Load is uneven and twice the law.
func TestLeased(t *testing.T) {
	const rate = 10_000
	s := start(t)
	down := outage(t)
	length := 3 * down
	var all gateways
	ctx, cancel := context.WithCancel(context.Background())
	var running, loads sync.WaitGroup
	begin := time.Now()
	for i, load := range []float64{1.2, 0.6, 0.2} {
		client := redis.NewClient(&redis.Options{Addr: farAway(t, s.addr, 2500*time.Microsecond), MaxRetries: -1, ContextTimeoutEnabled: true})
		defer client.Close()
		limit := &ratelimit.Leased[string]{Shared: &ratelimit.Shared[string]{
			Store: &Store{Client: client}, Law: ratelimit.GCRA{Rate: ratelimit.PerSecond(rate)}, Prefix: "t:", Gateways: func() int { return 3 },
			Logger: slog.New(slog.DiscardHandler), OnOutage: func(error) { all.changes.Add(1) },
		}}
		running.Go(func() { require.ErrorIs(t, limit.Run(ctx), context.Canceled) })
		loads.Go(func() { all.load(limit, i, load*rate, begin.Add(length)) })
		all.limits[i] = limit
	}
	time.Sleep(down)
	s.down()
	time.Sleep(down)
	s.up()
	loads.Wait()
	took := time.Since(begin)
	cancel()
	running.Wait()

	slices.Sort(all.took)
	p99 := all.took[len(all.took)*99/100]
	law := rate * (1 + took.Seconds())
	t.Logf("%d takes in %v: %d admitted, %.4f of the law; yes %v of %v; p50 %v, p99 %v, longest %v; %d questions",
		len(all.took), took.Round(time.Millisecond), all.admitted, float64(all.admitted)/law, all.yes, all.asked, all.took[len(all.took)/2], p99, all.took[len(all.took)-1], all.questions())
	require.LessOrEqual(t, float64(all.admitted), 1.02*law)
	require.GreaterOrEqual(t, float64(all.admitted), 0.7*law)
	require.Less(t, all.questions(), len(all.took)/10)
	require.Equal(t, int64(6), all.changes.Load(), "each said that it goes, and that it is back")
	require.Greater(t, float64(all.yes[2]), 0.9*float64(all.asked[2]), "one that wants little gets it")
	if p99 > time.Microsecond {
		t.Logf("p99 is above 1us: a busy machine, or the race detector")
	}
}

// gateways is what came of the load on three of them.
type gateways struct {
	limits   [3]*ratelimit.Leased[string]
	changes  atomic.Int64
	mu       sync.Mutex
	yes      [3]int
	asked    [3]int
	admitted int
	took     []time.Duration
}

func (g *gateways) questions() (n int) {
	for _, l := range g.limits {
		n += int(l.Stats().Asked)
	}
	return n
}

// load takes rate times a second until end, in batches of what is due, as timers are
// not that fine.
func (g *gateways) load(l *ratelimit.Leased[string], i int, rate float64, end time.Time) {
	rng := rand.New(rand.NewPCG(1, uint64(i)))
	var took []time.Duration
	yes := 0
	begin := time.Now()
	at := begin
	for at.Before(end) {
		at = at.Add(time.Duration(rng.ExpFloat64() / rate * float64(time.Second)))
		if wait := time.Until(at); wait > time.Millisecond {
			time.Sleep(wait)
		}
		start := time.Now()
		d := l.Take("k", 1)
		took = append(took, time.Since(start))
		if d.OK {
			yes++
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.took = append(g.took, took...)
	g.yes[i], g.asked[i] = yes, len(took)
	g.admitted += yes
}

// TestLeasedSavesRedis compares what Redis has to do for the same decisions: commands and
// time of its process.
func TestLeasedSavesRedis(t *testing.T) {
	const takes = 20_000
	var cost [2]time.Duration
	var calls [2]int
	for i, leased := range []bool{false, true} {
		s := start(t)
		client := redis.NewClient(&redis.Options{Addr: s.addr, ContextTimeoutEnabled: true})
		defer client.Close()
		shared := &ratelimit.Shared[string]{
			Store: &Store{Client: client}, Law: ratelimit.GCRA{Rate: ratelimit.PerSecond(100_000)}, Gateways: func() int { return 3 }, Timeout: 5 * time.Second,
		}
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		take := shared.Take
		if leased {
			limit := &ratelimit.Leased[string]{Shared: shared}
			wg.Go(func() { _ = limit.Run(ctx) })
			take = limit.Take
		}
		before, used := scripts(t, client), cpu(t, client)
		for n := range takes {
			require.True(t, take("k", 1).OK)
			if leased && n%100 == 0 {
				time.Sleep(time.Millisecond) // not all at once, which would be one batch
			}
		}
		cancel()
		wg.Wait()
		calls[i], cost[i] = scripts(t, client)-before, cpu(t, client)-used
	}
	t.Logf("%d takes: %d questions and %v of Redis, on lease %d and %v", takes, calls[0], cost[0], calls[1], cost[1])
	require.Less(t, calls[1]*20, calls[0])
}

// scripts returns how often scripts were run.
func scripts(t *testing.T, c *redis.Client) int {
	n, _ := strconv.Atoi(info(t, c, "commandstats", "cmdstat_evalsha:calls="))
	return n
}

// cpu returns the time that Redis has used.
func cpu(t *testing.T, c *redis.Client) time.Duration {
	user, _ := strconv.ParseFloat(info(t, c, "cpu", "used_cpu_user:"), 64)
	sys, _ := strconv.ParseFloat(info(t, c, "cpu", "used_cpu_sys:"), 64)
	return time.Duration((user + sys) * float64(time.Second)).Round(time.Millisecond)
}

// info returns the value after name in a section of INFO, up to a comma or the end of the line.
func info(t *testing.T, c *redis.Client, section, name string) string {
	text, err := c.Info(context.Background(), section).Result()
	require.NoError(t, err)
	_, text, _ = strings.Cut(text, name)
	if i := strings.IndexAny(text, ",\r\n"); i >= 0 {
		text = text[:i]
	}
	return text
}
