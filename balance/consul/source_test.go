// SPDX-License-Identifier: Apache-2.0

package consul_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock"
	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/balance/consul"
)

func TestChecksAreStates(t *testing.T) {
	weights := func(passing, warning int) func(*api.ServiceEntry) {
		return func(e *api.ServiceEntry) { e.Service.Weights = api.AgentWeights{Passing: passing, Warning: warning} }
	}
	for _, test := range []struct {
		checks string
		edit   func(*api.ServiceEntry)
		want   string
	}{
		{"", nil, "a=10.0.0.1:80/1"},
		{"passing passing", weights(10, 2), "a=10.0.0.1:80/10"},
		{"passing warning", weights(10, 2), "a=10.0.0.1:80/2"},
		{"warning", weights(10, 0), "a=10.0.0.1:80/-1"},
		{"passing", weights(0, 5), "a=10.0.0.1:80/-1"},
		{"passing", weights(0, 0), "a=10.0.0.1:80/1"}, // of a Consul that has no weights
		{"passing critical", weights(10, 2), ""},
		{"passing node-critical", weights(10, 2), ""},
		{"passing unheard-of", nil, ""},
		{"maint passing", weights(10, 2), "a=10.0.0.1:80/-1"},
		{"passing node-maint", weights(10, 2), "a=10.0.0.1:80/-1"},
		{"maint critical", nil, ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := newServer()
			s.set("a", "10.0.0.1:80", test.edit, strings.Fields(test.checks)...)
			f := follow(t, &consul.Source{Client: s.client()})
			settle()
			require.Equal(t, test.want, f.servers(), test.checks)
			require.Empty(t, f.failures())
		})
	}
}

func TestWhatAnInstanceSays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		s.set("a", ":80", func(e *api.ServiceEntry) {
			e.Service.Tags, e.Service.Meta = []string{"v2", "x"}, map[string]string{"rack": "r7", "node": "mine", "zone": "z1"}
			e.Node.Meta = map[string]string{"zone": "z2"}
		})
		s.set("b", "2001:db8::1", func(e *api.ServiceEntry) {
			e.Service.Address, e.Service.Port, e.Service.Tags = "2001:db8::1", 81, []string{"v2"}
			e.Node.Meta, e.Node.Locality = map[string]string{"zone": "z2"}, &api.Locality{Zone: "z3"}
		})
		s.set("c", ":0", func(e *api.ServiceEntry) { e.Service.SocketPath, e.Service.Tags = "/run/c", []string{"v2"} })
		s.set("d", "10.0.0.4:80", func(e *api.ServiceEntry) { e.Service.Tags = []string{"v1"} })
		f := follow(t, &consul.Source{Client: s.client(), Tags: []string{"v2"}, Edit: func(e *balance.Endpoint) { e.MaxConns = 7 }})
		settle()
		require.Equal(t, "a=10.9.9.9:80/1 b=[2001:db8::1]:81/1 c=unix:/run/c/1", f.servers())
		a := f.Server("n1/a").Endpoint()
		require.Equal(t, map[string]string{"node": "mine", "datacenter": "dc1", "tags": "v2,x", "rack": "r7", "zone": "z1"}, a.Labels)
		require.Equal(t, "z1", a.Zone)
		require.Equal(t, "z3", f.Server("n1/b").Endpoint().Zone)
		require.Equal(t, 7, a.MaxConns)
	})
}

// A change is heard of at once, and nothing is asked twice meanwhile.
func TestBlockingQueries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		s.set("a", "10.0.0.1:80", nil)
		f := follow(t, &consul.Source{Client: s.client(), Edit: func(e *balance.Endpoint) { e.Weight += 4 }})
		settle()
		require.Equal(t, "a=10.0.0.1:80/5", f.servers())
		s.set("b", "10.0.0.2:80", nil, "maint")
		settle()
		require.Equal(t, "a=10.0.0.1:80/5 b=10.0.0.2:80/-1", f.servers(), "whatever Edit says")
		require.Equal(t, []string{" 60000ms", "11 60000ms", "12 60000ms"}, s.queries())
		time.Sleep(time.Hour)
		synctest.Wait()
		require.Less(t, len(s.queries()), 63)
		st, _ := f.SourceState()
		require.NoError(t, st.Err)
		require.Less(t, time.Since(st.Good), 65*time.Second, "a set that is confirmed is not old")

		// Consul is restored from a backup.
		s.change(func() { s.index = 3; delete(s.entries, "b") })
		time.Sleep(2 * time.Minute)
		require.Equal(t, "a=10.0.0.1:80/5", f.servers())
		s.set("a", "10.0.0.11:80", nil)
		settle()
		require.Equal(t, "a=10.0.0.11:80/5", f.servers(), "with an index that is below that of before")
		s.change(func() { s.index = 0; delete(s.entries, "a") })
		n := len(s.queries())
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		require.Empty(t, f.servers())
		require.Less(t, len(s.queries()), n+6, "an index of 0 does not make it ask all the time")
	})
}

// A service that changes all the time is asked for ten times a second at most.
func TestChangesAreGathered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		f := follow(t, &consul.Source{Client: s.client()})
		for i := range 2000 {
			s.set(fmt.Sprint("i", i%10), fmt.Sprintf("10.0.0.%d:80", i%200), nil)
			time.Sleep(time.Millisecond)
		}
		settle()
		require.LessOrEqual(t, len(s.queries()), 24)
		require.Equal(t, 10, f.Usable())
	})
}

// While Consul is away, says nothing or has no leader, the set stays, and how old it is can
// be read.
func TestOutageKeepsTheLastGoodSet(t *testing.T) {
	for what, test := range map[string]struct {
		fail   func(*server)
		want   func(error) bool
		within time.Duration
	}{
		"away": {func(s *server) { s.status = -1 }, func(err error) bool {
			return err.Error() == "consul: service web: consul is away" && errors.Is(err, errDown)
		}, time.Second},
		"no leader": {func(s *server) { s.status = http.StatusInternalServerError }, isStatus(500), time.Second},
		"mute": {func(s *server) { s.mute = true }, func(err error) bool {
			return err.Error() == "consul: service web: no answer, not even that nothing has changed"
		}, 75 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := newServer()
			s.set("a", "10.0.0.1:80", nil)
			f := follow(t, &consul.Source{Client: s.client()})
			settle()
			down := time.Now()
			s.change(func() { test.fail(s); delete(s.entries, "a") })
			time.Sleep(test.within)
			synctest.Wait()
			st, _ := f.SourceState()
			require.Error(t, st.Err, what)
			require.True(t, test.want(st.Err), "%s: %v", what, st.Err)
			time.Sleep(12 * time.Hour)
			require.Equal(t, "a=10.0.0.1:80/1", f.servers())
			st, _ = f.SourceState()
			require.LessOrEqual(t, st.Good, down)
			require.Less(t, len(s.queries()), 13*3600/24, "ever later, up to 30 s, a fifth less")
			s.change(func() { s.status, s.mute = 0, false })
			time.Sleep(36 * time.Second)
			s.set("b", "10.0.0.2:80", nil)
			settle()
			require.Equal(t, "b=10.0.0.2:80/1", f.servers())
			st, _ = f.SourceState()
			require.NoError(t, st.Err)
		})
	}
}

func isStatus(code int) func(error) bool {
	return func(err error) bool { return strings.Contains(err.Error(), fmt.Sprint("response code: ", code)) }
}

// One bad instance takes nothing from the others, and is told once; and so is an empty set
// to a pool that does not follow it.
func TestBadInstancesTakeNothingFromOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		s.set("a", "10.0.0.1:80", nil)
		s.set("b", "10.0.0.2:0", nil)
		f := follow(t, &consul.Source{Client: s.client()})
		time.Sleep(time.Hour)
		synctest.Wait()
		require.Equal(t, "a=10.0.0.1:80/1", f.servers())
		require.Len(t, f.failures(), 1)
		st, _ := f.SourceState()
		var ie *consul.InstanceError
		require.ErrorAs(t, st.Err, &ie)
		require.Equal(t, "n1/b", ie.Name)
		s.set("b", "10.0.0.2:80", nil)
		settle()
		st, _ = f.SourceState()
		require.NoError(t, st.Err)
		f.AllowEmpty = false // between two sets
		s.change(func() { clear(s.entries) })
		time.Sleep(time.Hour)
		synctest.Wait()
		require.Equal(t, "a=10.0.0.1:80/1 b=10.0.0.2:80/1", f.servers())
		require.Len(t, f.failures(), 2)
	})
}

// Two instances whose names are alike do not have the whole set refused: the first by node and
// id stays.
func TestNamesThatAreAlike(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		s.set("a/b", "10.0.0.2:80", func(e *api.ServiceEntry) { e.Node.Node = "n" })
		s.set("b", "10.0.0.1:80", func(e *api.ServiceEntry) { e.Node.Node = "n/a" })
		s.set("c", "10.0.0.3:80", nil)
		s.set("d", "10.0.0.4:80", nil)
		f := follow(t, &consul.Source{Client: s.client(), Edit: func(e *balance.Endpoint) {
			if e.Name == "n1/d" {
				e.Name = "n1/c"
			}
		}})
		settle()
		require.Equal(t, "n/a/b=10.0.0.2:80/1 c=10.0.0.3:80/1", f.servers())
		require.Equal(t, []string{"consul: instance n/a/b: another one has the name \"n/a/b\" already\n" +
			"consul: instance n1/d: another one has the name \"n1/c\" already"}, f.failures())
		s.change(func() { delete(s.entries, "a/b"); delete(s.entries, "c") })
		settle()
		require.Equal(t, "n/a/b=10.0.0.1:80/1 c=10.0.0.4:80/1", f.servers())
		st, _ := f.SourceState()
		require.NoError(t, st.Err)
	})
}

func TestWatchEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := (&consul.Source{Client: s.client(), Service: "web"}).Watch(ctx, func([]balance.Endpoint, error) {})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		s.mu.Lock()
		defer s.mu.Unlock()
		require.Zero(t, s.waiting)
	})
}

func TestBadSource(t *testing.T) {
	c := newServer().client()
	for field, src := range map[string]*consul.Source{
		"Source.Client":         {Service: "web"},
		"Source.Service":        {Client: c},
		"Source.Wait":           {Client: c, Service: "web", Wait: 11 * time.Minute},
		"Source.Query.UseCache": {Client: c, Service: "web", Query: api.QueryOptions{UseCache: true}},
	} {
		var ce *penstock.ConfigError
		require.ErrorAs(t, src.Watch(t.Context(), nil), &ce, field)
		require.Equal(t, field, ce.Field)
	}
	require.Error(t, (&consul.Source{Client: c, Service: "web", Wait: -1}).Check())
}
