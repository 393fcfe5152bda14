// SPDX-License-Identifier: Apache-2.0

package redisstore

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/penstock-lb/penstock/ratelimit"
)

// A Store is a [ratelimit.Store] in Redis 5 or later, single or cluster. It
// knows the laws GCRA and Window, also behind pointers; others are refused with
// ratelimit.ErrLaw.
// InFlight is not among them on purpose: a gateway that dies would hold its
// places for ever.
//
// Each Take is one script and one round trip (two for the first after Redis
// started), on one key, so it runs on whichever node of a cluster has the key.
// The clock is that of Redis, so the clocks of gateways need not agree; when a
// node fails over, limits may be off by as much as the clocks of the two nodes
// differ. Keys expire when they say nothing any more.
//
// The error against the same law in memory: intervals are rounded up to a
// sixteenth of a microsecond, so nothing is admitted too much and below ten
// thousand events a second at most 0.1 % too little. A bucket or a MaxWait of
// more than five years is one of five, and a window is at least a microsecond.
// A Redis that loses writes (a failover, a restart without persistence) forgets
// what they took.
//
// All methods may be called at once.
type Store struct {
	// Client is a *redis.Client, *redis.ClusterClient or *redis.Ring, with
	// ContextTimeoutEnabled in its options: without it the client would wait for a
	// slow Redis longer than it is given. The caller closes it.
	Client redis.Scripter

	// Prefix goes before every key; "" means "penstock:".
	Prefix string
}

var _ ratelimit.Store = (*Store)(nil)

//go:embed gcra.lua
var gcraScript string

//go:embed window.lua
var windowScript string

var (
	gcra   = redis.NewScript(gcraScript)
	window = redis.NewScript(windowScript)
)

// Take implements [ratelimit.Store].
func (s *Store) Take(ctx context.Context, key string, law ratelimit.Law, n int) (ratelimit.Decision, error) {
	return s.run(ctx, key, law, "take", max(0, n), ratelimit.Decision{})
}

// Refund implements [ratelimit.Store].
func (s *Store) Refund(ctx context.Context, key string, law ratelimit.Law, d ratelimit.Decision) error {
	_, err := s.run(ctx, key, law, "refund", max(0, d.Cost), d)
	return err
}

func (s *Store) run(ctx context.Context, key string, law ratelimit.Law, op string, n int, of ratelimit.Decision) (ratelimit.Decision, error) {
	if _, bounded := ctx.Deadline(); s.Client == nil || bounded && !heedsContext(s.Client) {
		return ratelimit.Decision{}, s.Check()
	}
	prefix := s.Prefix
	if prefix == "" {
		prefix = "penstock:"
	}
	keys := []string{prefix + key}
	var cmd *redis.Cmd
	switch law := plain(law).(type) {
	case ratelimit.GCRA:
		if law.Rate.Count <= 0 {
			return nothing(n), nil
		}
		cmd = gcra.Run(ctx, s.Client, keys, op, n,
			micros(interval(law.Rate)), burst(law), micros(min(max(0, law.MaxWait), fill)), micros(of.At)+micros(of.Reset))
	case ratelimit.Window:
		if law.Rate.Count <= 0 {
			return nothing(n), nil
		}
		refused := 0
		if law.CountRefused {
			refused = 1
		}
		cmd = window.Run(ctx, s.Client, keys, op, n,
			micros(max(span(law.Rate), time.Microsecond)), min(law.Rate.Count, windowCount), refused, micros(of.At))
	default:
		return ratelimit.Decision{}, fmt.Errorf("redisstore: %w: %T", ratelimit.ErrLaw, law)
	}
	v, err := cmd.Int64Slice()
	if err != nil {
		lookAgain(ctx, s.Client, err)
		return ratelimit.Decision{}, fmt.Errorf("redisstore: %w", err)
	}
	if len(v) != 6 {
		return ratelimit.Decision{}, fmt.Errorf("redisstore: the script answered %d values", len(v))
	}
	d := ratelimit.Decision{
		OK: v[0] == 1, Over: v[0] == 0, Wait: time.Duration(v[1]) * time.Microsecond,
		Limit: int(v[2]), Remaining: int(v[3]), Reset: time.Duration(v[4]) * time.Microsecond,
		At: time.Duration(v[5]) * time.Microsecond,
	}
	if v[1] < 0 {
		d.Wait = ratelimit.Never
	}
	if d.OK {
		d.Cost = n
	}
	return d, nil
}

// lookAgain has the client of a cluster find out which node has which keys, unless it was Redis that
// answered with err. By itself it does so each minute, and meanwhile asks a node that is
// gone, although another has taken over.
func lookAgain(ctx context.Context, client redis.Scripter, err error) {
	c, ok := client.(*redis.ClusterClient)
	var answer redis.Error
	if ok && !errors.As(err, &answer) {
		c.ReloadState(ctx)
	}
}

// nothing is what a limit of nothing answers.
func nothing(n int) ratelimit.Decision {
	if n == 0 {
		return ratelimit.Decision{OK: true}
	}
	return ratelimit.Decision{Over: true, Wait: ratelimit.Never}
}

func span(r ratelimit.Rate) time.Duration {
	if r.Per <= 0 {
		return time.Second
	}
	return min(r.Per, longest)
}

// plain returns a law behind a pointer as a value.
func plain(law ratelimit.Law) ratelimit.Law {
	switch l := law.(type) {
	case *ratelimit.GCRA:
		return *l
	case *ratelimit.Window:
		return *l
	}
	return law
}

const (
	longest     = ratelimit.Never / 4      // spans are no longer in memory either
	fill        = 5 * 365 * 24 * time.Hour // longest time to fill a bucket, so that times keep a sixteenth of a microsecond
	windowCount = 1<<22 - 1                // as in memory
)

// interval is the time that one event uses up, in sixteenths of a microsecond.
func interval(r ratelimit.Rate) float64 {
	const sixteenth = 62.5 // ns
	n := float64(span(r)) / float64(r.Count) / sixteenth
	whole := float64(int64(n))
	if whole < n {
		whole++
	}
	return whole * sixteenth
}

func burst(g ratelimit.GCRA) int64 {
	n := int64(g.Burst)
	switch {
	case n < 0:
		return 1
	case n == 0:
		n = int64(g.Rate.Count)
	}
	return max(1, min(n, int64(float64(fill)/interval(g.Rate))))
}

// micros writes nanoseconds as microseconds.
func micros[N float64 | time.Duration](ns N) float64 { return float64(ns) / 1000 }
