// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
)

// hidden is h where Check does not see its mistakes.
func hidden(h Handler) http.Handler { return HandlerFunc(h.ServeExchange) }

// A key that anybody knows seals nothing: the cookies are those of a random key.
func TestWeakKeysSealNothing(t *testing.T) {
	names := slices.Values([]string{"a", "b"})
	for _, weak := range [][]byte{nil, {}, {1}, make([]byte, 15)} {
		var one, two, good sealer
		one.init([][]byte{weak}, "scope", names)
		two.init([][]byte{weak}, "scope", names)
		_, ok := two.open(one.seal("a", 0, 0))
		require.False(t, ok, "%d bytes", len(weak))
		_, ok = one.open(one.seal("a", 0, 0))
		require.True(t, ok, "a random one")
		good.init([][]byte{weak, testKey}, "scope", names)
		_, ok = good.open(one.seal("a", 0, 0))
		require.False(t, ok)
		o, ok := good.open(good.seal("a", 0, 0))
		require.True(t, ok)
		require.False(t, o.old, "the first that is a key seals")
	}
	// What a stranger can make who knows that there is no key, by the same means.
	var s sealer
	s.init([][]byte{{}}, "SERVER\x00shop", names)
	stranger := sealKey{sealCipher(nil, "penstock value"), sealCipher(nil, "penstock mask"), mac(nil, "penstock tag")}
	s2 := sealer{keys: []sealKey{stranger}, scope: "SERVER\x00shop"}
	s2.room.New = func() any { return new(sealRoom) }
	_, ok := s.open(s2.seal("a", 0, 0))
	require.False(t, ok)
}

// Pools without a name share keys, and yet a cookie of one is nothing to the
// other.
func TestPersistWithoutPoolName(t *testing.T) {
	onBoth(t, func(s *site) http.Handler {
		handlers := map[string]http.Handler{}
		for _, path := range []string{"/one", "/two"} {
			pool := &balance.Pool{Policy: balance.RoundRobin{}}
			require.NoError(s, pool.Set(
				balance.Endpoint{Name: "a", Addr: "a:1", Value: &FixedReply{Body: "a"}},
				balance.Endpoint{Name: "b", Addr: "b:1", Value: &FixedReply{Body: "b"}}))
			handlers[path] = hidden(&Persist{Pool: pool, Keys: [][]byte{testKey}, Next: s.proxyTo(pool)})
		}
		return &Choose{By: func(x *Exchange) http.Handler { return handlers[x.Path] }}
	}, func(s *site) {
		one := cookieOf(s.get("/one"), "SERVER")
		require.NotNil(s, one)
		require.Nil(s, cookieOf(s.get("/one", "Cookie", "SERVER="+one.Value), "SERVER"), "its own")
		require.NotNil(s, cookieOf(s.get("/two", "Cookie", "SERVER="+one.Value), "SERVER"), "another pool's")
	})
	pool := new(balance.Pool)
	require.Equal(t, []string{"Persist.Pool.Name"}, wrongFields((&Persist{Pool: pool, Keys: [][]byte{testKey}, Next: &Proxy{Pool: pool}}).Check()))
}

// Who asks without a cookie, again and again, learns nothing from the values:
// no two are the same, although they name three servers and one second.
func TestSealedValuesAreAllDifferent(t *testing.T) {
	onBoth(t, func(s *site) http.Handler {
		pool := &balance.Pool{Name: "shop", Policy: balance.RoundRobin{}}
		require.NoError(s, pool.Set(
			balance.Endpoint{Name: "a", Addr: "a:1", Value: &FixedReply{Body: "a"}},
			balance.Endpoint{Name: "b", Addr: "b:1", Value: &FixedReply{Body: "b"}},
			balance.Endpoint{Name: "c", Addr: "c:1", Value: &FixedReply{Body: "c"}}))
		split := NewSplit(Arm{"x", 1, &FixedReply{}}, Arm{"y", 1, &FixedReply{}})
		split.Cookie, split.Keys = "ARM", [][]byte{testKey}
		return NewRouter(
			Route{Match: Path("/split"), Handler: split},
			Route{Handler: &Persist{Pool: pool, Keys: [][]byte{testKey}, MaxIdle: 1e12, Next: s.proxyTo(pool)}})
	}, func(s *site) {
		for path, name := range map[string]string{"/": "SERVER", "/split": "ARM"} {
			seen := map[string]bool{}
			block := map[string]bool{}
			for range 100 {
				c := cookieOf(s.get(path), name)
				require.NotNil(s, c)
				raw, err := base64.RawURLEncoding.DecodeString(c.Value)
				require.NoError(s, err)
				seen[c.Value], block[string(raw[nonceLen:])] = true, true
			}
			require.Len(s, seen, 100)
			require.Len(s, block, 100, "the random number changes all of it")
		}
	})
}

// The random number of a value and its block belong together.
func TestSealedValuesCannotBeSpliced(t *testing.T) {
	var s sealer
	s.init([][]byte{testKey}, "scope", slices.Values([]string{"a", "b"}))
	rnd := rand.New(rand.NewPCG(1, 1))
	for range 10_000 {
		one, err := base64.RawURLEncoding.DecodeString(s.seal("a", 0, 0))
		require.NoError(t, err)
		two, err := base64.RawURLEncoding.DecodeString(s.seal("b", 0, 0))
		require.NoError(t, err)
		copy(two[:nonceLen], one[:nonceLen])
		_, ok := s.open(base64.RawURLEncoding.EncodeToString(two))
		require.False(t, ok)
		one[rnd.IntN(nonceLen)] ^= byte(1 << rnd.IntN(8))
		_, ok = s.open(base64.RawURLEncoding.EncodeToString(one))
		require.False(t, ok, "nor can a time be changed by it")
	}
}

// A client of a Split whose cookie was sealed with the key before keeps its arm,
// and gets a cookie of the new key.
func TestSplitRenewsCookiesOfOldKeys(t *testing.T) {
	onBoth(t, func(s *site) http.Handler {
		handlers := map[string]http.Handler{}
		for path, keys := range map[string][][]byte{"/old": {testKey}, "/new": {[]byte("another key of 16"), testKey}, "/newest": {[]byte("another key of 16")}} {
			var arms []Arm
			for i := range 8 {
				name := fmt.Sprint("arm", i)
				arms = append(arms, Arm{name, 1, &FixedReply{Body: name}})
			}
			split := NewSplit(arms...)
			split.Cookie, split.Keys = "ARM", keys
			handlers[path] = split
		}
		return &Choose{By: func(x *Exchange) http.Handler { return handlers[x.Path] }}
	}, func(s *site) {
		for range 8 {
			first := s.get("/old")
			c := cookieOf(first, "ARM")
			require.NotNil(s, c)
			a := s.get("/new", "Cookie", "ARM="+c.Value)
			require.Equal(s, first.body, a.body)
			renewed := cookieOf(a, "ARM")
			require.NotNil(s, renewed)
			a = s.get("/newest", "Cookie", "ARM="+renewed.Value)
			require.Equal(s, first.body, a.body)
			require.Nil(s, cookieOf(a, "ARM"))
		}
	})
}
