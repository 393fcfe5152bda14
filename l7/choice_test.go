// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"fmt"
	"io"
	"math"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
)

// TestFirstDecisionWins nests what chooses a server, with two that disagree: the
// outer one has the client's word.
func TestFirstDecisionWins(t *testing.T) {
	var pool *balance.Pool
	key := ByHeader("X-A")
	onBoth(t, func(s *site) http.Handler {
		pool = &balance.Pool{Name: "shop", Policy: balance.RoundRobin{}}
		s.named(pool, "a", "b", "c")
		forward := s.proxyTo(pool)
		stuckTo := func(server string) *StickTable {
			var table StickTable
			table.Remember("1", server)
			return &table
		}
		return NewRouter(
			Route{Match: Path("/cookie-table"), Handler: &Persist{Pool: pool, Plain: true, Next: &Stick{Key: key, Table: stuckTo("b"), Next: forward}}},
			Route{Match: Path("/table-cookie"), Handler: &Stick{Key: key, Table: stuckTo("b"), Next: &Persist{Pool: pool, Plain: true, Next: forward}}},
			Route{Match: Path("/table-table"), Handler: &Stick{Key: key, Table: stuckTo("c"), Next: &Stick{Key: key, Table: stuckTo("b"), Next: forward}}},
			Route{Match: Path("/cookie-cookie"), Handler: &Persist{Pool: pool, Plain: true, Name: "OUT", Next: &Persist{Pool: pool, Keys: [][]byte{testKey}, Next: forward}}},
		)
	}, func(s *site) {
		for range 3 {
			a := s.get("/cookie-table", "X-A", "1", "Cookie", "SERVER=a")
			require.Equal(s, "a []", a.body, "a cookie before a table")
			require.Empty(s, a.Cookies())
		}
		require.Equal(s, "a []", s.get("/cookie-table", "X-A", "1").body, "and the table follows")

		a := s.get("/table-cookie", "X-A", "1", "Cookie", "SERVER=a")
		require.Equal(s, "b []", a.body, "a table before a cookie")
		require.Equal(s, "b", cookieOf(a, "SERVER").Value, "and the cookie follows")
		a = s.get("/table-cookie", "X-A", "1")
		require.Equal(s, "b", cookieOf(a, "SERVER").Value, "also one that there was not")
		require.Empty(s, s.get("/table-cookie", "X-A", "1", "Cookie", "SERVER=b").Cookies())

		require.Equal(s, "c []", s.get("/table-table", "X-A", "1").body)
		require.Equal(s, "c []", s.get("/table-table", "X-A", "1").body)

		first := s.get("/cookie-cookie", "Cookie", "OUT=a")
		in := cookieOf(first, "SERVER")
		require.NotNil(s, in)
		require.Equal(s, "a []", first.body)
		a = s.get("/cookie-cookie", "Cookie", "OUT=b; SERVER="+in.Value)
		require.Equal(s, "b []", a.body)
		require.Nil(s, cookieOf(a, "OUT"))
		require.NotNil(s, cookieOf(a, "SERVER"), "the sealed one follows")
		require.Empty(s, s.get("/cookie-cookie", "Cookie", "OUT=a; SERVER="+in.Value).Cookies())
	})
}

// TestStickKeepsTheKeyItAskedFor has handlers inside that change what the key is
// made of, on the way in and of the reply.
func TestStickKeepsTheKeyItAskedFor(t *testing.T) {
	var table *StickTable
	var asked atomic.Int32
	onBoth(t, func(s *site) http.Handler {
		pool := &balance.Pool{Policy: balance.RoundRobin{}}
		s.named(pool, "a", "b")
		table = &StickTable{}
		asked.Store(0)
		key := func(x *Exchange) (string, bool) { asked.Add(1); return x.Path, true }
		return &Stick{Key: key, Table: table, Next: &Rewrite{StripPrefix: "/shop", Next: s.proxyTo(pool)}}
	}, func(s *site) {
		s.get("/shop/1")
		require.EqualValues(s, 1, asked.Load())
		_, ok := table.Lookup("/shop/1")
		require.True(s, ok)
		_, ok = table.Lookup("/1")
		require.False(s, ok)
		want := s.get("/shop/2").body
		for range 3 {
			require.Equal(s, want, s.get("/shop/2").body)
		}
	})
}

// TestOuterHashByDecides is the same rule for keys.
func TestOuterHashByDecides(t *testing.T) {
	var got balance.Request
	h := &HashBy[string]{Key: ByHeader("X-A"), Next: &HashBy[string]{Key: ByPath, Next: HandlerFunc(func(x *Exchange) {
		got = x.Balance
		x.Respond(200, nil, "")
	})}}
	onBoth(t, func(*site) http.Handler { return h }, func(s *site) {
		s.get("/p", "X-A", "1")
		require.Equal(s, balance.Hash("1"), got.Key)
		s.get("/p")
		require.Equal(s, balance.Hash("/p"), got.Key, "the outer one has found no key")
	})
}

type tenant struct {
	Name  string
	Shard uint8
	_     netip.Prefix
}

// TestHashByAnyKey hashes keys of all kinds, alike in each process: the figures
// are fixed. What cannot be hashed is refused before the first request.
func TestHashByAnyKey(t *testing.T) {
	type name string
	sum := func(key any) uint64 {
		h, ok := commonHash(key), true
		if h == 0 {
			h, ok = anyHash(key)
		}
		require.True(t, ok, "%T", key)
		require.NotZero(t, h)
		return h
	}
	require.Equal(t, balance.Hash("a"), sum("a"))
	require.Equal(t, balance.Hash("a"), sum(name("a")))
	require.Equal(t, balance.HashAddr(netip.MustParseAddr("10.0.0.1")), sum(netip.MustParseAddr("10.0.0.1")))
	require.Equal(t, uint64(0x95ec66020055e07e), sum(42))
	require.Equal(t, uint64(0x208ad1ecd1830fc4), sum([2]string{"ab", "c"}))
	require.Equal(t, sum(0.0), sum(math.Copysign(0, -1)), "equal keys, equal hashes")
	for _, pair := range [][2]any{
		{1, 2}, {int8(1), int8(-1)}, {uint64(1), uint64(1 << 63)}, {true, false}, {1.5, 2.5},
		{[2]string{"ab", "c"}, [2]string{"a", "bc"}}, {[2]int{1, 2}, [2]int{2, 1}},
		{tenant2{"a", 1}, tenant2{"a", 2}}, {tenant2{"a", 1}, tenant2{"b", 1}},
		{netip.MustParseAddrPort("10.0.0.1:1"), netip.MustParseAddrPort("10.0.0.1:2")},
		{struct{ A netip.Addr }{netip.MustParseAddr("10.0.0.1")}, struct{ A netip.Addr }{netip.MustParseAddr("10.0.0.2")}},
	} {
		require.Equal(t, sum(pair[0]), sum(pair[0]))
		require.NotEqual(t, sum(pair[0]), sum(pair[1]), "%v", pair)
	}

	next := &Deny{}
	for _, h := range []interface{ Check() error }{
		&HashBy[int]{Key: func(*Exchange) (int, bool) { return 0, true }, Next: next},
		&HashBy[tenant2]{Key: func(*Exchange) (k tenant2, ok bool) { return k, true }, Next: next},
		&HashBy[netip.Prefix]{Key: ByClientNet(24, 64), Next: next},
	} {
		require.NoError(t, h.Check(), "%T", h)
	}
	for _, h := range []interface{ Check() error }{
		&HashBy[*int]{Key: func(*Exchange) (*int, bool) { return nil, true }, Next: next},
		&HashBy[any]{Key: func(*Exchange) (any, bool) { return nil, true }, Next: next},
		&HashBy[[1]chan int]{Key: func(*Exchange) (k [1]chan int, ok bool) { return k, true }, Next: next},
		&HashBy[tenant]{Key: func(*Exchange) (k tenant, ok bool) { return k, true }, Next: next},
	} {
		require.Equal(t, []string{"HashBy.Key"}, wrongFields(h.Check()), "%T", h)
	}
}

type tenant2 struct {
	Name  string
	shard uint8
}

func TestHashByNumbersChoosesServers(t *testing.T) {
	onBoth(t, func(s *site) http.Handler {
		pool := &balance.Pool{Policy: balance.Maglev{}}
		s.named(pool, "a", "b", "c")
		return &HashBy[int]{Key: func(x *Exchange) (int, bool) { return len(x.Path), true }, Next: s.proxyTo(pool)}
	}, func(s *site) {
		servers := map[string]bool{}
		for i := range 20 {
			path := "/" + strings.Repeat("x", i)
			want := s.get(path).body
			require.Equal(s, want, s.get(path).body)
			servers[want] = true
		}
		require.Len(s, servers, 3)
	})
}

// slowFirst is a pool of a server that is slow as long as slow is set, and
// another.
func (s *site) slowFirst(pool *balance.Pool, slow *atomic.Int64) {
	for i, name := range []string{"a", "b"} {
		s.origin(fmt.Sprintf("10.1.0.%d:80", i+1), func(w http.ResponseWriter, r *http.Request) {
			if i == 0 {
				select {
				case <-time.After(time.Duration(slow.Load())):
				case <-r.Context().Done():
				}
			}
			fmt.Fprint(w, name)
		})
	}
	require.NoError(s, pool.Set(balance.Endpoint{Name: "a", Addr: "10.1.0.1:80"}, balance.Endpoint{Name: "b", Addr: "10.1.0.2:80"}))
}

// TestHedgeMovesNobody has the server of a client be slower than another once:
// the cookie and the table stay as they are.
func TestHedgeMovesNobody(t *testing.T) {
	var slow atomic.Int64
	var table *StickTable
	onBoth(t, func(s *site) http.Handler {
		slow.Store(0)
		pool := &balance.Pool{Name: "shop", Policy: balance.First{}}
		s.slowFirst(pool, &slow)
		p := s.proxyTo(pool)
		p.Hedge.Delay = 50 * time.Millisecond
		table = &StickTable{}
		return NewRouter(
			Route{Match: Path("/cookie"), Handler: &Persist{Pool: pool, Keys: [][]byte{testKey}, MaxIdle: time.Hour, Next: p}},
			Route{Match: Path("/table"), Handler: &Stick{Key: ByHeader("X-A"), Table: table, Next: p}},
			Route{Match: Path("/addr"), Handler: &Stick{Key: ByHeader("X-B"), ByAddr: pool, Table: table, Next: p}},
		)
	}, func(s *site) {
		first := s.get("/cookie")
		require.Equal(s, "a", first.body)
		cookie := "SERVER=" + cookieOf(first, "SERVER").Value
		s.get("/table", "X-A", "1")
		s.get("/addr", "X-B", "2")
		slow.Store(int64(time.Second))
		a := s.get("/cookie", "Cookie", cookie)
		require.Equal(s, "b", a.body, "the hedge wins")
		require.Empty(s, a.Cookies())
		time.Sleep(10 * time.Minute)
		a = s.get("/cookie", "Cookie", cookie)
		require.Equal(s, "b", a.body)
		renewed := cookieOf(a, "SERVER")
		require.NotNil(s, renewed, "it is time to renew the cookie")
		require.Equal(s, "b", s.get("/table", "X-A", "1").body)
		require.Equal(s, "b", s.get("/addr", "X-B", "2").body)
		new1 := s.get("/cookie")
		require.Equal(s, "b", new1.body)
		slow.Store(0)
		require.Equal(s, "a", s.get("/cookie", "Cookie", cookie).body)
		require.Equal(s, "a", s.get("/cookie", "Cookie", "SERVER="+renewed.Value).body, "for the server that it was for")
		require.Equal(s, "b", s.get("/cookie", "Cookie", "SERVER="+cookieOf(new1, "SERVER").Value).body, "who was with none is with the winner")
		require.Equal(s, "a", s.get("/table", "X-A", "1").body)
		require.Equal(s, "a", s.get("/addr", "X-B", "2").body)
		server, _ := table.Lookup("1")
		require.Equal(s, "a", server)
		server, _ = table.Lookup("2")
		require.Equal(s, "10.1.0.1:80", server)
	})
}

// TestHedgeLeavesRetryStatusesOn has the reply that comes first be one to try
// again for, of the first server and of the hedge.
func TestHedgeLeavesRetryStatusesOn(t *testing.T) {
	for _, slow := range []time.Duration{0, time.Second} {
		onBoth(t, func(s *site) http.Handler {
			for i, name := range []string{"a", "b", "c"} {
				s.origin(fmt.Sprintf("10.1.0.%d:80", i+1), func(w http.ResponseWriter, r *http.Request) {
					if i == 0 {
						select {
						case <-time.After(slow):
						case <-r.Context().Done():
						}
					}
					if i < 2 {
						w.WriteHeader(503)
					}
					fmt.Fprint(w, name)
				})
			}
			p := s.proxy("10.1.0.1:80", "10.1.0.2:80", "10.1.0.3:80")
			p.Pool.Budget.Min = 100
			p.Hedge.Delay = 50 * time.Millisecond
			p.Retry = Retry{Tries: 5, Statuses: []int{503}, Backoff: -1}
			return p
		}, func(s *site) {
			a := s.get("/")
			require.Equal(s, 200, a.StatusCode)
			require.Equal(s, "c", a.body)
		})
	}
}

// TestMirrorCopiesAStreamedBodyOfKnownLength has a body that is longer than what
// comes with the head: who sends it stops at its length, and never sees its end.
func TestMirrorCopiesAStreamedBodyOfKnownLength(t *testing.T) {
	var m *Mirror
	var copied atomic.Value
	onBoth(t, func(s *site) http.Handler {
		s.origin("10.1.0.1:80", echo)
		m = &Mirror{To: HandlerFunc(func(x *Exchange) {
			b, _ := io.ReadAll(x.Body())
			copied.Store(string(b))
			x.Respond(204, nil, "")
		})}
		p := s.proxy("10.1.0.1:80")
		p.Mirror = m
		return p
	}, func(s *site) {
		for _, n := range []int{1, 40 << 10, 64 << 10} {
			copied.Store("")
			body := strings.Repeat("x", n)
			a, err := s.ask(s.client, "/", body)
			require.NoError(s, err)
			require.True(s, strings.HasSuffix(a.body, "\n"+body))
			synctest.Wait()
			m.Wait()
			require.Equal(s, body, copied.Load(), "%d bytes", n)
		}
		_, err := s.ask(s.client, "/", strings.Repeat("x", 64<<10+1))
		require.NoError(s, err)
		require.EqualValues(s, 1, m.Dropped())
	})
}
