// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"fmt"
	"math"
	"net/http"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/ratelimit"
)

// A line that says nothing, before or behind the one that counts, is no way
// around a limit, nor is a second parameter.
func TestJunkEvadesNoLimit(t *testing.T) {
	for name, key := range map[string]func(*Exchange) (string, bool){"field": ByHeader("X-Key"), "query": ByQuery("key")} {
		for _, junkFirst := range []bool{true, false} {
			t.Run(fmt.Sprint(name, junkFirst), func(t *testing.T) {
				onBoth(t, func(s *site) http.Handler {
					return &Limit[string]{Limiter: &ratelimit.Keyed[string]{Law: ratelimit.GCRA{Rate: ratelimit.PerHour(3)}}, Key: key, Next: text}
				}, func(s *site) {
					ask := func(values ...string) int {
						r, err := http.NewRequest("GET", "http://10.0.0.1/", nil)
						require.NoError(s, err)
						if name == "field" {
							r.Header["X-Key"] = values
						} else {
							r.URL.RawQuery = "key=" + strings.Join(values, "&key=")
						}
						a, err := s.client.Do(r)
						require.NoError(s, err)
						require.NoError(s, a.Body.Close())
						return a.StatusCode
					}
					passed := 0
					for i := range 10 {
						values := []string{fmt.Sprintf("junk%d", i), "mine"}
						if !junkFirst {
							values[0], values[1] = values[1], values[0]
						}
						if ask(values...) == 200 {
							passed++
						}
					}
					require.Equal(s, 3, passed)
					require.Equal(s, 200, ask("other"), "nobody else is touched")
					require.Equal(s, 200, ask("other", "other"), "the same value twice is one")
					require.Equal(s, 200, ask("other"))
					require.Equal(s, 429, ask("other"))
				})
			})
		}
	}
}

// Without a Key a limit goes by networks of IPv6, as one client has all of
// their addresses.
func TestLimitGoesByNetworks(t *testing.T) {
	l := &Limit[netip.Addr]{}
	key := func(client string) string {
		k, ok := l.key(&Exchange{Client: netip.MustParseAddr(client)})
		require.True(t, ok)
		return k.String()
	}
	require.Equal(t, "2001:db8:1:2::", key("2001:db8:1:2::1"))
	require.Equal(t, "2001:db8:1:2::", key("2001:db8:1:2:ffff:1:2:3"))
	require.Equal(t, "2001:db8:1:3::", key("2001:db8:1:3::1"))
	require.Equal(t, "fe80::", key("fe80::1%"+strings.Repeat("z", 9000)))
	require.Equal(t, "192.0.2.1", key("192.0.2.1"))
	require.Equal(t, "192.0.2.1", key("::ffff:192.0.2.1"))
	_, ok := l.key(&Exchange{})
	require.False(t, ok)
}

// A zone is part of an address only if it can be one.
func TestByClientBoundsZones(t *testing.T) {
	for zone, want := range map[string]string{"eth0": "fe80::1%eth0", strings.Repeat("z", 9000): "fe80::1"} {
		a, ok := ByClient(&Exchange{Client: netip.MustParseAddr("fe80::1%" + zone)})
		require.True(t, ok)
		require.Equal(t, want, a.String())
	}
}

// A StickTable keeps keys, not the heads that they were read from, also when a
// look-up has a key move on to the young ones.
func TestStickTableOwnsItsKeys(t *testing.T) {
	head := strings.Repeat("k", 32<<10)
	inHead := func(s string) bool {
		at, from := uintptr(unsafe.Pointer(unsafe.StringData(s))), uintptr(unsafe.Pointer(unsafe.StringData(head)))
		return at >= from && at < from+uintptr(len(head))
	}
	for _, n := range []int{4, 300, 30_000} {
		table := &StickTable{Max: 2, Expire: -1}
		key := head[:n]
		require.True(t, inHead(key))
		table.Remember(strings.Clone(key), "one")
		table.Remember("other", "two") // now key is one of the old
		server, ok := table.Lookup(key)
		require.True(t, ok)
		require.Equal(t, "one", server)
		require.NotEmpty(t, table.young)
		for k := range table.young {
			require.False(t, inHead(k), "%d bytes: the table holds on to the head", n)
			require.LessOrEqual(t, len(k), maxKeyBytes)
		}
		_, ok = table.Lookup(key + "x")
		require.False(t, ok)
	}
	runtime.KeepAlive(head)
}

// What a store of the host's is given is bounded.
func TestStickBoundsKeys(t *testing.T) {
	asked := make(keyLengths)
	onBoth(t, func(s *site) http.Handler {
		pool := &balance.Pool{}
		require.NoError(s, pool.Set(balance.Endpoint{Name: "a", Addr: "10.0.1.1:80"}))
		s.origin("10.0.1.1:80", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("a")) })
		return &Stick{Key: ByHeader("X-Key"), Table: asked, Next: s.proxyTo(pool)}
	}, func(s *site) {
		require.Equal(s, 200, s.get("/", "X-Key", strings.Repeat("k", 8000)).StatusCode)
		require.Equal(s, 200, s.get("/", "X-Key", "k").StatusCode)
	})
	require.LessOrEqual(t, asked["lookup"], maxKeyBytes)
	require.LessOrEqual(t, asked["remember"], maxKeyBytes)
	require.Positive(t, asked["remember"])
}

type keyLengths map[string]int

func (l keyLengths) Lookup(key string) (string, bool) {
	l["lookup"] = max(l["lookup"], len(key))
	return "", false
}

func (l keyLengths) Remember(key, _ string) { l["remember"] = max(l["remember"], len(key)) }

func TestKeysAllocateNothing(t *testing.T) {
	x := &Exchange{Query: "a=1&key=2"}
	x.Header.Add("X-Other", "1")
	x.Header.Add("X-Key", "2")
	field, query := ByHeader("X-Key"), ByQuery("key")
	require.Zero(t, testing.AllocsPerRun(100, func() {
		field(x)
		query(x)
		ByClient(x)
	}))
}

// More bits than an address has are all of them: a key that fails would be no limit.
func TestByClientNetOfAnyBits(t *testing.T) {
	for _, test := range []struct {
		bits      int
		four, six string
	}{{math.MaxInt, "10.1.2.3/32", "2001:db8::1/128"}, {33, "10.1.2.3/32", "2001:db8::/33"}, {0, "0.0.0.0/0", "::/0"}, {-1, "0.0.0.0/0", "::/0"}, {math.MinInt, "0.0.0.0/0", "::/0"}} {
		by := ByClientNet(test.bits, test.bits)
		for from, want := range map[string]string{"10.1.2.3": test.four, "::ffff:10.1.2.3": test.four, "2001:db8::1": test.six} {
			p, ok := by(&Exchange{Client: netip.MustParseAddr(from)})
			require.True(t, ok)
			require.Equal(t, want, p.String())
		}
	}
	_, ok := ByClientNet(32, 64)(&Exchange{})
	require.False(t, ok, "a client without an address")
}
