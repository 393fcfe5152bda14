// SPDX-License-Identifier: Apache-2.0

package etcd_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock"
	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/balance/etcd"
	"github.com/penstock-lb/penstock/balance/file"
)

// A followed pool, and how often it was told of a failure.
type followed struct {
	*balance.Pool

	mu     sync.Mutex
	failed []string
}

func follow(t *testing.T, src balance.Source) *followed {
	t.Helper()
	f := &followed{}
	f.Pool = &balance.Pool{AllowEmpty: true, OnEvent: func(e balance.Event) {
		if e.Kind == balance.SourceFailed {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.failed = append(f.failed, e.Reason)
		}
	}}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- f.Follow(ctx, src) }()
	t.Cleanup(func() {
		cancel()
		require.ErrorIs(t, <-ended, context.Canceled)
	})
	return f
}

func (f *followed) servers() string {
	var all []string
	for s := range f.All() {
		all = append(all, s.Name()+"="+s.Addr())
	}
	return strings.Join(all, " ")
}

// settle waits until changes have been told.
func settle() {
	time.Sleep(20 * time.Millisecond)
	synctest.Wait()
}

func (f *followed) failures() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.failed)
}

func TestKeysAreServers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		s.set("/web/a", "10.0.0.1:80 weight=3")
		s.set("/web/b", `{"addr": "10.0.0.2:80", "name": "bee", "labels": {"rack": "r7"}}`)
		s.set("/web/c", `{"Op":0,"Addr":"10.0.0.3:80","Metadata":{"shard":"7","weight":2}}`)
		s.set("/web/d", `{"Op":1,"Addr":"10.0.0.4:80"}`)
		s.folder("/web/")
		s.set("/wet/a", "10.0.0.9:80")
		f := follow(t, &etcd.Source{Client: s.client(t.Context()), Prefix: "/web/", Edit: func(e *balance.Endpoint) { e.MaxConns = 9 }})
		settle()
		require.Equal(t, "a=10.0.0.1:80 bee=10.0.0.2:80 c=10.0.0.3:80", f.servers())
		require.Equal(t, 3, f.Server("a").Endpoint().Weight)
		require.Equal(t, 9, f.Server("a").Endpoint().MaxConns)
		require.Equal(t, map[string]string{"rack": "r7"}, f.Server("bee").Endpoint().Labels)
		require.Equal(t, map[string]string{"shard": "7", "weight": "2"}, f.Server("c").Endpoint().Labels)

		s.set("/web/a", "10.0.0.11:80")
		s.set("/web/bb", "10.0.0.5:80")
		s.set("/web/c", "")
		settle()
		require.Equal(t, "a=10.0.0.11:80 bee=10.0.0.2:80 bb=10.0.0.5:80", f.servers())
		require.Zero(t, f.failures())
		s.set("/web/a", "")
		s.set("/web/b", "")
		s.set("/web/bb", "")
		settle()
		require.Empty(t, f.servers())
	})
}

// An empty set is not told again and again to a pool that does not follow it.
func TestEmptySetIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := follow(t, &etcd.Source{Client: newStore().client(t.Context()), Prefix: "/web/"})
		settle()
		f.AllowEmpty = false // between two sets: each further one would be refused
		time.Sleep(time.Hour)
		synctest.Wait()
		require.Zero(t, f.failures())
	})
}

// A value that cannot be used is told, and takes nothing from the others.
func TestBadValuesTakeNothingFromOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		s.set("/web/a", "10.0.0.1:80")
		s.set("/web/b", "10.0.0.2:80")
		f := follow(t, &etcd.Source{Client: s.client(t.Context()), Prefix: "/web/"})
		settle()
		for bad, want := range map[string]any{"10.0.0.2:80 wieght=3": new(*file.ParseError), "10.0.0.2": new(*penstock.ConfigError)} {
			s.set("/web/b", bad)
			settle()
			require.Equal(t, "a=10.0.0.1:80 b=10.0.0.2:80", f.servers(), "the last good value stays")
			st, _ := f.SourceState()
			var ke *etcd.KeyError
			require.ErrorAs(t, st.Err, &ke)
			require.Equal(t, "/web/b", ke.Key)
			require.ErrorAs(t, st.Err, want)
		}
		s.set("/web/c", "c")
		s.set("/web/d", "10.0.0.4:80 name=a")
		settle()
		require.Equal(t, "a=10.0.0.1:80 b=10.0.0.2:80", f.servers())
		st, _ := f.SourceState()
		require.ErrorContains(t, st.Err, "etcd: /web/c: ")
		require.ErrorContains(t, st.Err, `etcd: /web/d: /web/a has the name "a" already`)
		n := f.failures()
		time.Sleep(10 * time.Minute)
		require.Equal(t, n, f.failures(), "what stays is told once")
		st, _ = f.SourceState()
		require.Error(t, st.Err, "and is still to be seen")

		// A change is told nonetheless that is found as all is read again.
		s.setDown(true)
		s.set("/web/e", "10.0.0.5:80")
		s.compact()
		s.setDown(false)
		settle()
		require.Equal(t, "a=10.0.0.1:80 b=10.0.0.2:80 e=10.0.0.5:80", f.servers())
		for _, key := range []string{"/web/b", "/web/c", "/web/d"} {
			s.set(key, "")
		}
		settle()
		require.Equal(t, "a=10.0.0.1:80 e=10.0.0.5:80", f.servers())
		st, _ = f.SourceState()
		require.NoError(t, st.Err)
	})
}

// While etcd is away the set stays, and how old it is can be read.
func TestOutageKeepsTheLastGoodSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		s.set("/web/a", "10.0.0.1:80")
		f := follow(t, &etcd.Source{Client: s.client(t.Context()), Prefix: "/web/"})
		time.Sleep(time.Hour)
		settle()
		st, _ := f.SourceState()
		require.NoError(t, st.Err)
		require.LessOrEqual(t, time.Since(st.Good), 30*time.Second, "a set that is confirmed is not old")

		s.setDown(true)
		s.set("/web/b", "10.0.0.2:80")
		down := time.Now()
		time.Sleep(31 * time.Second)
		settle()
		st, _ = f.SourceState()
		require.ErrorIs(t, st.Err, errDown)
		time.Sleep(12 * time.Hour)
		require.Equal(t, "a=10.0.0.1:80", f.servers())
		st, _ = f.SourceState()
		require.LessOrEqual(t, st.Good, down)
		require.Less(t, f.failures(), 13*3600/24, "ever later, up to 30 s, a fifth less")
		_, watches, _ := s.counts()
		require.Zero(t, watches)

		s.setDown(false)
		time.Sleep(36 * time.Second)
		settle()
		require.Equal(t, "a=10.0.0.1:80 b=10.0.0.2:80", f.servers())
		st, _ = f.SourceState()
		require.NoError(t, st.Err)
	})
}

// A watch that comes too late, since etcd has compacted what it is to tell, begins anew.
func TestCompactionBeginsAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		s.set("/web/a", "10.0.0.1:80")
		f := follow(t, &etcd.Source{Client: s.client(t.Context()), Prefix: "/web/"})
		settle()
		s.setDown(true)
		s.set("/web/a", "")
		s.set("/web/b", "10.0.0.2:80")
		s.compact()
		s.setDown(false)
		settle()
		require.Equal(t, "b=10.0.0.2:80", f.servers())
		require.Zero(t, f.failures(), "no failure")
		reads, watches, _ := s.counts()
		require.Equal(t, 2, reads)
		require.Equal(t, 1, watches)
	})
}

// What changes between the reading and the watch is heard of.
func TestNothingIsMissedBeforeTheWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		s.set("/web/a", "10.0.0.1:80")
		s.then = sync.OnceFunc(func() { s.set("/web/b", "10.0.0.2:80") })
		f := follow(t, &etcd.Source{Client: s.client(t.Context()), Prefix: "/web/"})
		settle()
		require.Equal(t, "a=10.0.0.1:80 b=10.0.0.2:80", f.servers())
	})
}

func TestManyServersAtOnceAreFewSets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		sets, last := 0, 0
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			_ = (&etcd.Source{Client: s.client(ctx), Prefix: "/web/"}).Watch(ctx, func(eps []balance.Endpoint, _ error) {
				sets, last = sets+1, len(eps)
			})
		})
		for i := range 1000 {
			s.set(fmt.Sprintf("/web/%d", i), fmt.Sprintf("10.0.%d.%d:80", i/250, i%250))
			time.Sleep(100 * time.Microsecond)
		}
		time.Sleep(time.Second)
		cancel()
		wg.Wait()
		require.Equal(t, 1000, last)
		require.Less(t, sets, 10)
	})
}

func TestBadSource(t *testing.T) {
	c := newStore().client(t.Context())
	for field, src := range map[string]*etcd.Source{
		"Source.Client":  {Prefix: "/web/"},
		"Source.Prefix":  {Client: c},
		"Source.Timeout": {Client: c, Prefix: "/web/", Timeout: -1},
		"Source.Refresh": {Client: c, Prefix: "/web/", Refresh: -1},
	} {
		var ce *penstock.ConfigError
		require.ErrorAs(t, src.Watch(t.Context(), nil), &ce)
		require.Equal(t, field, ce.Field)
		require.ErrorAs(t, new(balance.Pool).Follow(t.Context(), src), &ce)
		require.Equal(t, "Follow.src."+field, ce.Field)
	}
}
