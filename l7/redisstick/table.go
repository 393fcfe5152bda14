// SPDX-License-Identifier: Apache-2.0

package redisstick

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/penstock-lb/penstock/l7"
)

// A Table is an [l7.StickStore] in Redis 6.2 or later, a single server or a
// cluster. To look up a key takes one round trip, and so does storing one.
//
// Each gateway also keeps the entries that it has seen itself, in Local, and uses
// those while Redis cannot be reached: no exchange fails, and none waits for
// Redis but those that find out, for at most Timeout, and one every Retry. Entries
// that Redis has lost, as by a restart without persistence, are written to it
// again when a gateway that has them looks them up.
//
// All methods may be called at once; the fields must not change after first
// use.
type Table struct {
	// Client is a *redis.Client, *redis.ClusterClient or *redis.Ring, with
	// ContextTimeoutEnabled in its options: without it the client would wait for a
	// slow Redis longer than Timeout. The caller closes it.
	Client redis.Cmdable

	Prefix string        // goes before every key; "" means "penstock:stick:"
	Expire time.Duration // since a key was last asked for; 0 means 30 minutes, negative never

	// Local has the entries that this gateway has seen; its Expire should be the
	// same. Nil means a new StickTable with that Expire.
	Local *l7.StickTable

	Timeout time.Duration // for one reply of Redis; 0 or less means 100ms
	Retry   time.Duration // between two attempts while Redis cannot be reached; 0 or less means 1s

	Logger   *slog.Logger    // for when an outage of Redis begins and ends; nil means slog.Default()
	OnChange func(err error) // called at both, with a nil err at the end; must not block; nil means none

	own  atomic.Pointer[l7.StickTable]
	away atomic.Pointer[outage] // nil if there is none
}

// An outage is a time in which Redis cannot be reached. It is immutable.
type outage struct {
	since time.Time // only the reply to a later command ends it
	retry time.Time // when to ask again
}

var _ l7.StickStore = (*Table)(nil)

// Lookup implements [l7.StickStore].
func (t *Table) Lookup(key string) (server string, ok bool) {
	local := t.local()
	asked, ok := t.ask()
	if !ok {
		return local.Lookup(key)
	}
	ctx, cancel := t.deadline()
	defer cancel()
	server, err := t.Client.GetEx(ctx, t.name(key), t.expire()).Result()
	switch {
	case err == nil:
		t.heard(asked, nil)
		if known, ok := local.Lookup(key); !ok || known != server {
			local.Remember(key, server)
		}
		return server, true
	case !errors.Is(err, redis.Nil):
		t.heard(asked, err)
		return local.Lookup(key)
	}
	t.heard(asked, nil)
	if server, ok = local.Lookup(key); ok {
		return t.restore(ctx, asked, key, server), true
	}
	return "", false
}

// restore writes an entry that Redis has lost. If another gateway has written
// one meanwhile, restore returns that.
func (t *Table) restore(ctx context.Context, asked time.Time, key, server string) string {
	set, err := t.Client.SetNX(ctx, t.name(key), server, t.span()).Result()
	if err != nil || set {
		t.heard(asked, err)
		return server
	}
	if theirs, err := t.Client.Get(ctx, t.name(key)).Result(); err == nil {
		t.local().Remember(key, theirs)
		return theirs
	}
	return server
}

// Remember implements [l7.StickStore].
func (t *Table) Remember(key, server string) {
	t.local().Remember(key, server)
	asked, ok := t.ask()
	if !ok {
		return
	}
	ctx, cancel := t.deadline()
	defer cancel()
	t.heard(asked, t.Client.Set(ctx, t.name(key), server, t.span()).Err())
}

func (t *Table) local() *l7.StickTable {
	if t.Local != nil {
		return t.Local
	}
	if own := t.own.Load(); own != nil {
		return own
	}
	t.own.CompareAndSwap(nil, &l7.StickTable{Expire: t.Expire})
	return t.own.Load()
}

func (t *Table) name(key string) string {
	if t.Prefix == "" {
		return "penstock:stick:" + key
	}
	return t.Prefix + key
}

// expire returns the expiry for GETEX, where a negative one leaves that of the
// key as it is.
func (t *Table) expire() time.Duration {
	if t.Expire == 0 {
		return 30 * time.Minute
	}
	return max(t.Expire, -1)
}

// span returns the expiry for SET, where 0 means none.
func (t *Table) span() time.Duration { return max(0, t.expire()) }

// ask reports whether the caller is to use Redis. In an outage it does so for one caller
// every Retry.
func (t *Table) ask() (now time.Time, ok bool) {
	now = time.Now()
	was := t.away.Load()
	if was == nil {
		return now, true
	}
	return now, !now.Before(was.retry) && t.away.CompareAndSwap(was, &outage{since: was.since, retry: now.Add(t.pause())})
}

// heard notes that a command sent at asked had a reply, or failed with err.
func (t *Table) heard(asked time.Time, err error) {
	if err == nil {
		for was := t.away.Load(); was != nil && asked.After(was.since); was = t.away.Load() {
			if t.away.CompareAndSwap(was, nil) {
				t.say(nil)
				return
			}
		}
		return
	}
	t.lookAgain(err)
	for {
		now := time.Now()
		next := &outage{since: now, retry: now.Add(t.pause())}
		was := t.away.Load()
		if was != nil {
			next.since = was.since
		}
		if t.away.CompareAndSwap(was, next) {
			if was == nil {
				t.say(err)
			}
			return
		}
	}
}

// lookAgain has the client of a cluster reload its map of slots to nodes, unless err is a reply
// of Redis. By itself the client does so once a minute, and until then it asks a node that is
// gone, although another has taken over.
func (t *Table) lookAgain(err error) {
	c, ok := t.Client.(*redis.ClusterClient)
	var answer redis.Error
	if ok && !errors.As(err, &answer) {
		c.ReloadState(context.Background())
	}
}

func (t *Table) say(err error) {
	l := t.Logger
	if l == nil {
		l = slog.Default()
	}
	if err != nil {
		l.Warn("sticky tables are local: Redis is away", "prefix", t.name(""), "error", err)
	} else {
		l.Info("sticky tables are shared again", "prefix", t.name(""))
	}
	if t.OnChange != nil {
		t.OnChange(err)
	}
}

func (t *Table) deadline() (context.Context, context.CancelFunc) {
	d := t.Timeout
	if d <= 0 {
		d = 100 * time.Millisecond
	}
	return context.WithTimeout(context.Background(), d)
}

func (t *Table) pause() time.Duration {
	if t.Retry <= 0 {
		return time.Second
	}
	return t.Retry
}
