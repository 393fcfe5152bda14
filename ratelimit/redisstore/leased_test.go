// SPDX-License-Identifier: Apache-2.0

package redisstore

import (
	"cmp"
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
//
// A machine that stalls makes less load. So what must be admitted is judged by what the law
// would have admitted of the takes that there were, when they were.
func TestLeased(t *testing.T) {
	const rate = 10_000
	s := start(t)
	part := outage(t)
	all := gateways{begin: time.Now()}
	ctx, cancel := context.WithCancel(context.Background())
	loaded, enough := context.WithCancel(context.Background())
	var running, loads sync.WaitGroup
	for i, load := range []float64{1.2, 0.6, 0.2} {
		client := redis.NewClient(&redis.Options{Addr: farAway(t, s.addr, 2500*time.Microsecond), MaxRetries: -1, ContextTimeoutEnabled: true})
		defer client.Close()
		limit := &ratelimit.Leased[string]{Shared: &ratelimit.Shared[string]{
			Store: &Store{Client: client}, Law: ratelimit.GCRA{Rate: ratelimit.PerSecond(rate)}, Prefix: "t:", Gateways: func() int { return 3 },
			Timeout: time.Second, // a Redis that is killed says so at once, and one on a busy machine is not away
			Logger:  slog.New(slog.DiscardHandler), OnOutage: func(err error) { all.said(i, err) },
		}}
		all.limits[i] = limit
		running.Go(func() { require.ErrorIs(t, limit.Run(ctx), context.Canceled) })
		loads.Go(func() { all.load(loaded, i, load*rate) })
	}
	end := sync.OnceFunc(func() { enough(); loads.Wait(); cancel(); running.Wait() })
	defer end() // before the clients are closed
	time.Sleep(part)
	s.down()
	for i := range all.limits {
		require.Eventually(t, all.lost[i].Load, time.Minute, time.Millisecond, "each says that it goes")
		all.back[i].Store(false)
	}
	time.Sleep(part)
	s.up()
	for i, l := range all.limits {
		require.Eventually(t, all.back[i].Load, time.Minute, time.Millisecond, "each says that it is back")
		require.Eventually(t, func() bool { return !l.Take("k", 0).Local }, time.Minute, time.Millisecond, "and is")
	}
	time.Sleep(part)
	enough()
	loads.Wait()
	took := time.Since(all.begin)
	end()

	var durations []time.Duration
	var yes, asked, alone [3]int
	gcra := ratelimit.GCRA{Rate: ratelimit.PerSecond(rate)}
	for i, list := range all.takes {
		durations = append(durations, spent(list)...)
		yes[i], asked[i] = admitted(list), len(list)
		alone[i] = ideal(list, ratelimit.GCRA{Rate: ratelimit.PerSecond(rate / 3)})
	}
	slices.Sort(durations)
	sum, possible := yes[0]+yes[1]+yes[2], ideal(slices.Concat(all.takes[:]...), gcra)
	p99, law := durations[len(durations)*99/100], rate*(1+took.Seconds())
	t.Logf("%d takes in %v: %d admitted, %.4f of the law and %.4f of what was possible; yes %v of %v; p50 %v, p99 %v, longest %v; %d questions, %d outages",
		len(durations), took.Round(time.Millisecond), sum, float64(sum)/law, float64(sum)/float64(possible), yes, asked,
		durations[len(durations)/2], p99, durations[len(durations)-1], all.questions(), all.outages.Load())
	require.LessOrEqual(t, float64(sum), 1.02*law)
	require.GreaterOrEqual(t, float64(sum), 0.7*float64(possible))
	require.Less(t, all.questions(), len(durations)/10)
	require.Greater(t, float64(yes[2]), 0.9*float64(alone[2]), "one that wants little gets it")
	if p99 > time.Microsecond {
		t.Logf("p99 is above 1us: a busy machine, or the race detector")
	}
}

// gateways is what comes of the load on three of them.
type gateways struct {
	begin   time.Time
	limits  [3]*ratelimit.Leased[string]
	lost    [3]atomic.Bool // the store, as it has said last
	back    [3]atomic.Bool // it has said so
	outages atomic.Int64   // said in all
	takes   [3][]taken
}

// A taken is one Take.
type taken struct {
	at   time.Duration // since begin
	took time.Duration
	ok   bool
}

func (g *gateways) said(i int, err error) {
	g.lost[i].Store(err != nil)
	if err != nil {
		g.outages.Add(1)
	} else {
		g.back[i].Store(true)
	}
}

func (g *gateways) questions() (n int) {
	for _, l := range g.limits {
		n += int(l.Stats().Asked)
	}
	return n
}

// load takes rate times a second at gateway i until ctx ends: each millisecond what has become
// due, at random times, but no more than is due in 50 ms.
func (g *gateways) load(ctx context.Context, i int, rate float64) {
	rng := rand.New(rand.NewPCG(1, uint64(i)))
	at := time.Since(g.begin)
	for ctx.Err() == nil {
		time.Sleep(time.Millisecond)
		now := time.Since(g.begin)
		for at = max(at, now-50*time.Millisecond); at < now; at += time.Duration(rng.ExpFloat64() / rate * float64(time.Second)) {
			start := time.Since(g.begin)
			d := g.limits[i].Take("k", 1)
			g.takes[i] = append(g.takes[i], taken{at: start, took: time.Since(g.begin) - start, ok: d.OK})
		}
	}
}

func admitted(list []taken) (n int) {
	for _, t := range list {
		if t.ok {
			n++
		}
	}
	return n
}

func spent(list []taken) (all []time.Duration) {
	for _, t := range list {
		all = append(all, t.took)
	}
	return all
}

// ideal returns how many of list law would have admitted.
func ideal(list []taken, law ratelimit.Law) (n int) {
	list = slices.SortedFunc(slices.Values(list), func(a, b taken) int { return cmp.Compare(a.at, b.at) })
	var state int64
	for _, t := range list {
		next, d := law.Take(state, t.at, 1)
		state = next
		if d.OK {
			n++
		}
	}
	return n
}

// TestLeasedSavesRedis compares what Redis has to do for the same decisions: commands and
// time of its process.
func TestLeasedSavesRedis(t *testing.T) {
	const takes = 5_000
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
