// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
)

// R1: a name that is known has its pool, any other is a 503.
func TestR1_Choose(t *testing.T) {
	onBoth(t, func(*site) http.Handler {
		var pools Map[http.Handler]
		pools.Set(Entry[http.Handler]{"one", &FixedReply{Body: "one"}})
		return &Choose{By: func(x *Exchange) http.Handler {
			h, _ := pools.Exact(x.Header.Get("X-A"))
			return h
		}}
	}, func(s *site) {
		require.Equal(s, "one", s.get("/", "X-A", "one").body)
		require.Equal(s, 503, s.get("/", "X-A", "two").StatusCode)
	})
}

// R3: a route whose pool is out is passed over.
func TestR3_PoolUsable(t *testing.T) {
	var pool *balance.Pool
	onBoth(t, func(s *site) http.Handler {
		pool = &balance.Pool{Policy: balance.RoundRobin{}}
		s.named(pool, "a")
		return NewRouter(
			Route{Match: All{Path("/"), PoolUsable{Pool: pool}}, Handler: s.proxyTo(pool)},
			Route{Handler: &FixedReply{Body: "next"}},
		)
	}, func(s *site) {
		require.Equal(s, "a []", s.get("/").body)
		pool.Server("a").SetAdmin(balance.Maint, "")
		require.Equal(s, "next", s.get("/").body)
	})
}

// R5: a choice without an answer stays with the default.
func TestR5_ChooseDefault(t *testing.T) {
	onBoth(t, func(*site) http.Handler {
		return &Choose{By: func(*Exchange) http.Handler { return nil }, Default: &FixedReply{Body: "own"}}
	}, func(s *site) {
		require.Equal(s, "own", s.get("/").body)
	})
}

func TestFallback(t *testing.T) {
	var first, second *balance.Pool
	onBoth(t, func(s *site) http.Handler {
		first, second = &balance.Pool{Policy: balance.RoundRobin{}}, &balance.Pool{Policy: balance.RoundRobin{}}
		s.named(first, "a", "b")
		require.NoError(s, second.Set(balance.Endpoint{Name: "b", Addr: "10.1.0.2:80"}))
		require.NoError(s, first.Set(balance.Endpoint{Name: "a", Addr: "10.1.0.1:80"}))
		return Fallback{{first, s.proxyTo(first)}, {second, s.proxyTo(second)}}
	}, func(s *site) {
		require.Equal(s, "a []", s.get("/").body)
		first.Server("a").SetAdmin(balance.Maint, "")
		require.Equal(s, "b []", s.get("/").body)
		second.Server("b").SetAdmin(balance.Maint, "")
		require.Equal(s, 503, s.get("/").StatusCode)
	})
}

func TestSplit(t *testing.T) {
	var split *Split
	onBoth(t, func(*site) http.Handler {
		split = NewSplit(Arm{"blue", 3, &FixedReply{Body: "blue"}}, Arm{"green", 1, &FixedReply{Body: "green"}})
		split.Cookie, split.Field = "arm", "X-Arm"
		return split
	}, func(s *site) {
		t := s.T
		count := map[string]int{}
		var cookies []string
		for range 400 {
			a := s.get("/")
			count[a.body]++
			require.Equal(t, a.body, a.Header.Get("X-Arm"))
			c := cookieOf(a, "arm")
			cookies = append(cookies, a.body+"="+c.Value)
		}
		require.InDelta(t, 300, count["blue"], 60)
		split.Set(Arm{"green", 1, &FixedReply{Body: "green"}}, Arm{"blue", 0, &FixedReply{Body: "blue"}})
		for _, c := range cookies[:50] {
			arm, value, _ := strings.Cut(c, "=")
			a := s.get("/", "Cookie", "arm="+value)
			require.Equal(t, arm, a.body, "a cookie keeps its arm, of weight 0 too")
			require.Empty(t, a.Cookies())
		}
		require.Equal(t, "green", s.get("/").body)
		require.Equal(t, "green", s.get("/", "Cookie", "arm=blue").body, "which cannot be asked for by name")
		require.Error(t, split.Set(), "no arm is left that could be drawn")
		require.Equal(t, "green", s.get("/").body)
	})
}

// By key the same arm always, in the shares of the weights; and when an arm
// grows only its new clients move.
func TestSplitByKey(t *testing.T) {
	s := &Split{Key: ByPath}
	arm := func(key string) string { return s.draw(&Exchange{Path: key}).Name }
	s.Set(Arm{"a", 50, Drop{}}, Arm{"b", 30, Drop{}}, Arm{"c", 20, Drop{}})
	before := map[string]string{}
	count := map[string]int{}
	for i := range 10_000 {
		k := fmt.Sprint(i)
		before[k] = arm(k)
		require.Equal(t, before[k], arm(k))
		count[before[k]]++
	}
	require.InDelta(t, 5000, count["a"], 200)
	require.InDelta(t, 2000, count["c"], 200)
	s.Set(Arm{"c", 40, Drop{}}, Arm{"b", 30, Drop{}}, Arm{"a", 50, Drop{}})
	for k, was := range before {
		if now := arm(k); now != was {
			require.Equal(t, "c", now)
		}
	}
}

// With both, the cookie decides, and the key for clients without one.
func TestSplitByCookieBeforeKey(t *testing.T) {
	onBoth(t, func(*site) http.Handler {
		split := NewSplit(Arm{"blue", 1, &FixedReply{Body: "blue"}}, Arm{"green", 1, &FixedReply{Body: "green"}})
		split.Key, split.Cookie = ByPath, "arm"
		return split
	}, func(s *site) {
		path := map[string]string{} // of each arm
		for i := 0; len(path) < 2; i++ {
			at := fmt.Sprint("/", i)
			path[s.get(at).body] = at
		}
		first := s.get(path["blue"])
		require.Equal(s, "blue", first.body)
		cookie := "arm=" + cookieOf(first, "arm").Value
		require.Equal(s, "blue", s.get(path["green"], "Cookie", cookie).body)
		require.Equal(s, "green", s.get(path["green"], "Cookie", "arm=forged").body)
		require.Equal(s, "green", s.get(path["green"]).body)
	})
}

// R6: of entries that overlap, and of entries of one key, the first counts.
func TestR6_MapOrder(t *testing.T) {
	var m Map[int]
	_, ok := m.Exact("a")
	require.False(t, ok)
	m.Set(
		Entry[int]{"example.com", 1}, Entry[int]{"a.example.com", 2}, Entry[int]{"a.example.com", 3},
		Entry[int]{"b.example.com", 4}, Entry[int]{"org", 5},
	)
	require.Equal(t, 5, m.Len())
	want := func(want int, ok bool) func(int, bool) {
		return func(v int, found bool) {
			t.Helper()
			require.Equal(t, ok, found)
			require.Equal(t, want, v)
		}
	}
	want(2, true)(m.Exact("a.example.com"))
	want(1, true)(m.DomainListed("x.a.example.com"))
	want(2, true)(m.Domain("X.A.example.com:80"))
	want(1, true)(m.Domain("example.com."))
	want(5, true)(m.Domain("some.org"))
	want(0, false)(m.Domain("xample.com"))
	want(0, false)(m.Domain("anexample.com"))
	want(0, false)(m.Exact("A.example.com"))
}

func TestMapPrefixAndSuffix(t *testing.T) {
	var m Map[string]
	long := strings.Repeat("x", 300)
	m.Set(Entry[string]{"/", "root"}, Entry[string]{"/api", "api"}, Entry[string]{"/api/v1", "v1"}, Entry[string]{long, "long"}, Entry[string]{".png", "png"})
	for in, want := range map[string]string{"/": "root", "/apiary": "api", "/api/v1/x": "v1", "/ap": "root", long + "y": "long", "": "", "x": ""} {
		v, ok := m.Prefix(in)
		require.Equal(t, want, v, in)
		require.Equal(t, want != "", ok)
	}
	v, _ := m.Suffix("/a/b.png")
	require.Equal(t, "png", v)
	v, _ = m.Suffix("y" + long)
	require.Equal(t, "long", v)
}

func TestAddrMapAgreesWithAScan(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	addr := func() netip.Addr {
		switch rnd.IntN(3) {
		case 0:
			return netip.AddrFrom4([4]byte{10, byte(rnd.IntN(3)), byte(rnd.IntN(3)), byte(rnd.IntN(4))})
		case 1:
			return netip.AddrFrom16([16]byte{10: 0xff, 11: 0xff, 12: 10, 13: byte(rnd.IntN(3)), 14: byte(rnd.IntN(3)), 15: byte(rnd.IntN(4))})
		}
		return netip.AddrFrom16([16]byte{0: 0x20, 1: byte(rnd.IntN(3)), 15: byte(rnd.IntN(4))})
	}
	for range 300 {
		var m AddrMap[int]
		var list []PrefixEntry[int]
		for i := range rnd.IntN(20) {
			a := addr().Unmap()
			list = append(list, PrefixEntry[int]{netip.PrefixFrom(a, rnd.IntN(a.BitLen()+1)), i})
		}
		m.Set(list...)
		for range 50 {
			a := addr()
			want, bits := -1, -1
			for _, e := range list {
				if e.Prefix.Masked().Contains(a.Unmap()) && e.Prefix.Bits() > bits {
					want, bits = e.Value, e.Prefix.Bits()
				}
			}
			v, ok := m.Lookup(a)
			require.Equal(t, want >= 0, ok)
			if ok {
				require.Equal(t, want, v, "%v in %v", a, list)
			}
		}
	}
	var m AddrMap[int]
	_, ok := m.Lookup(netip.Addr{})
	require.False(t, ok)
	m.Set(PrefixEntry[int]{netip.MustParsePrefix("::ffff:10.0.0.0/104"), 7}, PrefixEntry[int]{})
	v, _ := m.Lookup(netip.MustParseAddr("10.1.1.1"))
	require.Equal(t, 7, v)
}
