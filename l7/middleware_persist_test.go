// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
)

var testKey = []byte("0123456789abcdef")

// named is a server that answers with its name and the cookies it saw.
func (s *site) named(p *balance.Pool, names ...string) {
	var list []balance.Endpoint
	for i, name := range names {
		addr := fmt.Sprintf("10.1.0.%d:80", i+1)
		s.origin(addr, func(w http.ResponseWriter, r *http.Request) {
			if v := r.URL.Query().Get("set"); v != "" {
				w.Header().Add("Set-Cookie", v)
				w.Header().Add("Set-Cookie", "other=1")
			}
			fmt.Fprintf(w, "%s [%s]", name, r.Header.Get("Cookie"))
		})
		list = append(list, balance.Endpoint{Name: name, Addr: addr})
	}
	require.NoError(s, p.Set(list...))
}

func cookieOf(a answer, name string) *http.Cookie {
	for _, c := range a.Cookies() {
		if c.Name == name {
			return c
		}
	}
	return nil
}

func TestPersist(t *testing.T) {
	var pool *balance.Pool
	onBoth(t, func(s *site) http.Handler {
		pool = &balance.Pool{Name: "shop", Policy: balance.RoundRobin{}}
		s.named(pool, "a", "b")
		return &Persist{Pool: pool, Keys: [][]byte{testKey}, Next: s.proxyTo(pool)}
	}, func(s *site) {
		t := s.T
		first := s.get("/")
		c := cookieOf(first, "SERVER")
		require.NotNil(t, c)
		require.Regexp(t, "^[A-Za-z0-9_-]{32}$", c.Value)
		require.Equal(t, "SERVER="+c.Value+"; Path=/; HttpOnly; SameSite=Lax", c.Raw)
		require.Equal(t, "private", first.Header.Get("Cache-Control"))

		for _, line := range []string{"SERVER=" + c.Value, "x=1; SERVER=" + c.Value, "SERVER=" + c.Value + "; x=1", "y=2; SERVER=" + c.Value + "; x=1"} {
			a := s.get("/", "Cookie", line)
			require.Equal(t, first.body[:1], a.body[:1], "the same server")
			require.NotContains(t, a.body, "SERVER", "which does not see the cookie")
			require.Empty(t, a.Header.Values("Set-Cookie"), "that is not set again")
			require.Empty(t, a.Header.Get("Cache-Control"))
		}

		srv := pool.Server(first.body[:1])
		srv.SetAdmin(balance.Drain, "deploy")
		require.Equal(t, first.body, s.get("/", "Cookie", "SERVER="+c.Value).body, "a draining server keeps its clients")
		require.NotEqual(t, first.body, s.get("/").body, "and gets no others")

		srv.SetAdmin(balance.Maint, "deploy")
		a := s.get("/", "Cookie", "SERVER="+c.Value)
		require.NotEqual(t, first.body, a.body, "one that is down does not")
		moved := cookieOf(a, "SERVER")
		require.NotNil(t, moved, "and the cookie follows")
		require.Equal(t, a.body, s.get("/", "Cookie", "SERVER="+moved.Value).body)

		for _, forged := range []string{"a", "", strings.Repeat("A", 32), c.Value[:31] + "!", c.Value + "A"} {
			require.NotNil(t, cookieOf(s.get("/", "Cookie", "SERVER="+forged), "SERVER"), forged)
		}
	})
}

// Members that live in this process are stuck to like others.
func TestPersistLocalMembers(t *testing.T) {
	onBoth(t, func(s *site) http.Handler {
		pool := &balance.Pool{Policy: balance.RoundRobin{}}
		is := func(name string) http.Handler { return &FixedReply{Body: name} }
		require.NoError(s, pool.Set(
			balance.Endpoint{Addr: "a:1", Value: is("a")},
			balance.Endpoint{Addr: "b:1", Value: is("b")},
			balance.Endpoint{Addr: "c:1", Value: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("c")) })}))
		return &Persist{Pool: pool, Next: s.proxyTo(pool)}
	}, func(s *site) {
		for range 3 {
			a, err := s.ask(s.client, "/", "a body that nobody reads")
			require.NoError(s, err)
			c := cookieOf(a, "SERVER")
			require.NotNil(s, c)
			for range 3 {
				b, err := s.ask(s.client, "/", "another", "Cookie", "SERVER="+c.Value)
				require.NoError(s, err)
				require.Equal(s, a.body, b.body)
				require.Empty(s, b.Cookies())
			}
		}
	})
}

func TestPersistTimes(t *testing.T) {
	onBoth(t, func(s *site) http.Handler {
		pool := &balance.Pool{Policy: balance.RoundRobin{}}
		s.named(pool, "a", "b", "c")
		return &Persist{Pool: pool, MaxIdle: time.Hour, MaxLife: 3 * time.Hour, Next: s.proxyTo(pool)}
	}, func(s *site) {
		t := s.T
		start := time.Now()
		c := cookieOf(s.get("/"), "SERVER")
		renewed := 0
		for time.Since(start) < 3*time.Hour {
			time.Sleep(10 * time.Minute)
			if next := cookieOf(s.get("/", "Cookie", "SERVER="+c.Value), "SERVER"); next != nil {
				c = next
				renewed++
			}
		}
		require.Equal(t, 18, renewed)
		time.Sleep(time.Second)
		a := s.get("/", "Cookie", "SERVER="+c.Value) // its life has ended
		fresh := cookieOf(a, "SERVER")
		require.NotNil(t, fresh)
		time.Sleep(time.Minute)
		require.Nil(t, cookieOf(s.get("/", "Cookie", "SERVER="+fresh.Value), "SERVER"))
		time.Sleep(time.Hour + time.Second)
		require.NotNil(t, cookieOf(s.get("/", "Cookie", "SERVER="+fresh.Value), "SERVER"), "unused for too long")
	})
}

func TestPersistModes(t *testing.T) {
	var h *Persist
	onBoth(t, func(s *site) http.Handler {
		pool := &balance.Pool{Name: "shop", Policy: balance.RoundRobin{}}
		s.named(pool, "a", "b")
		h = &Persist{Pool: pool, Name: "id", Keys: [][]byte{testKey}, Next: s.proxyTo(pool)}
		at := func(mode PersistMode, change func(*Persist)) *Persist {
			p := &Persist{Pool: pool, Name: "id", Keys: [][]byte{testKey}, Mode: mode, Next: h.Next}
			if change != nil {
				change(p)
			}
			return p
		}
		return NewRouter(
			Route{Match: Path("/rewrite"), Handler: at(CookieRewrite, nil)},
			Route{Match: Path("/prefix"), Handler: at(CookiePrefix, nil)},
			Route{Match: Path("/passive"), Handler: at(CookiePassive, nil)},
			Route{Match: Path("/plain"), Handler: at(CookieInsert, func(p *Persist) { p.Plain, p.Forward, p.Cacheable = true, true, true })},
			Route{Match: Path("/preserve"), Handler: at(CookieInsert, func(p *Persist) { p.Preserve = true })},
			Route{Match: Path("/post"), Handler: at(CookieInsert, func(p *Persist) { p.PostOnly = true })},
			Route{Match: Path("/attrs"), Handler: at(CookieInsert, func(p *Persist) {
				p.Domain, p.Path, p.Secure, p.Script, p.SameSite = "example.com", "/x", true, true, http.SameSiteStrictMode
			})},
		)
	}, func(s *site) {
		t := s.T
		require.Empty(t, s.get("/rewrite").Cookies(), "the server sets none")
		a := s.get("/rewrite?set=id%3Dmine%3B%20Path%3D/x")
		require.Regexp(t, `^id=[A-Za-z0-9_-]{32}; Path=/x$`, a.Header.Values("Set-Cookie")[0])
		require.Equal(t, "other=1", a.Header.Values("Set-Cookie")[1])
		require.Equal(t, a.body[:1], s.get("/rewrite", "Cookie", "id="+a.Cookies()[0].Value).body[:1])

		a = s.get("/prefix?set=id%3Dmine%3B%20Path%3D/x")
		require.Regexp(t, `^id=[A-Za-z0-9_-]{32}~mine; Path=/x$`, a.Header.Values("Set-Cookie")[0])
		for range 3 {
			b := s.get("/prefix", "Cookie", "x=1; id="+a.Cookies()[0].Value+"; y=2")
			require.Equal(t, a.body[:1]+" [x=1; id=mine; y=2]", b.body)
		}

		for range 3 {
			require.Equal(t, "b [id=b]", s.get("/passive", "Cookie", "id=b").body)
		}
		a = s.get("/plain")
		require.Equal(t, a.body[:1], cookieOf(a, "id").Value)
		require.Empty(t, a.Header.Get("Cache-Control"))
		require.Equal(t, "b [id=b]", s.get("/plain", "Cookie", "id=b").body)

		require.Equal(t, []string{"id=mine", "other=1"}, s.get("/preserve?set=id%3Dmine").Header.Values("Set-Cookie"))
		require.Empty(t, s.get("/post").Cookies())
		require.Len(t, s.get("/post", "Method", "POST").Cookies(), 1)
		require.Regexp(t, `^id=[^;]*; Path=/x; Domain=example.com; Secure; SameSite=Strict$`, s.get("/attrs").Header.Get("Set-Cookie"))
	})
}

// Values cannot be read, forged, or taken to another pool or another cookie;
// a new first key renews those of the old.
func TestPersistSeals(t *testing.T) {
	names := slices.Values([]string{"a", "b"})
	now := int64(1_800_000_000)
	seal := func(scope string, keys ...[]byte) *sealer {
		s := new(sealer)
		s.init(keys, scope, names)
		return s
	}
	other := []byte("another key of 16")
	s := seal("pool", testKey)
	value := s.seal("a", now, now+60)
	o, ok := s.open(value)
	require.True(t, ok)
	require.Equal(t, opened{name: "a", first: stampOf(now), last: stampOf(now + 60)}, o)
	require.NotEqual(t, value, s.seal("a", now, now+60), "no two values are the same")

	for _, wrong := range []*sealer{seal("pool 2", testKey), seal("pool", other), seal("pool"), seal("pool")} {
		_, ok := wrong.open(value)
		require.False(t, ok)
	}
	rotated := seal("pool", other, testKey)
	o, ok = rotated.open(value)
	require.True(t, ok)
	require.True(t, o.old)
	o, ok = rotated.open(rotated.seal("b", now, now))
	require.True(t, ok)
	require.False(t, o.old)

	_, ok = s.open(s.seal("c", now, now)) // a name that is gone
	require.False(t, ok)

	rnd := rand.New(rand.NewPCG(1, 1))
	for range 20_000 {
		forged := []byte(value)
		for range 1 + rnd.IntN(3) {
			forged[rnd.IntN(len(forged))] = "ABCabc019-_"[rnd.IntN(11)]
		}
		if _, ok := s.open(string(forged)); ok {
			require.Equal(t, value, string(forged))
		}
	}
}

// A server that comes later is known a second later at most.
func TestPersistLearnsNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(sealer)
		names := []string{"old"}
		s.init([][]byte{testKey}, "", func(yield func(string) bool) { slices.Values(names)(yield) })
		value := s.seal("new", 0, 0)
		_, ok := s.open(value)
		require.False(t, ok)
		names = append(names, "new")
		time.Sleep(500 * time.Millisecond)
		_, ok = s.open(value)
		require.False(t, ok, "tables are not made anew for each bad cookie")
		time.Sleep(500 * time.Millisecond)
		_, ok = s.open(value)
		require.True(t, ok)
	})
}

func FuzzPersistOpen(f *testing.F) {
	s := new(sealer)
	s.init([][]byte{testKey}, "", slices.Values([]string{"a"}))
	const good = "TvKEc8Qc3XWn8RtW2TFbrf6ahqxSrsiP" // seal gives another one in each process
	_, ok := s.open(good)
	require.True(f, ok)
	f.Add(good)
	f.Fuzz(func(t *testing.T, value string) {
		if _, ok := s.open(value); ok && value != good {
			t.Errorf("%q opens", value)
		}
	})
}

// P2: pools that share a table send a key to the server of the same name,
// however they list their servers.
func TestP2_SharedTable(t *testing.T) {
	onBoth(t, func(s *site) http.Handler {
		one, two := &balance.Pool{Policy: balance.RoundRobin{}}, &balance.Pool{Policy: balance.RoundRobin{}}
		s.named(one, "s1", "s2", "s3")
		require.NoError(s, two.Set(
			balance.Endpoint{Name: "s3", Addr: "10.1.0.3:80"}, balance.Endpoint{Name: "s1", Addr: "10.1.0.1:80"}, balance.Endpoint{Name: "s2", Addr: "10.1.0.2:80"}))
		table := &StickTable{}
		return NewRouter(
			Route{Match: PathPrefix("/one"), Handler: &Stick{Key: ByQuery("client"), Table: table, Next: s.proxyTo(one)}},
			Route{Match: PathPrefix("/two"), Handler: &Stick{Key: ByQuery("client"), Table: table, Next: s.proxyTo(two)}},
		)
	}, func(s *site) {
		t := s.T
		for _, client := range []string{"x", "y", "z"} {
			want := s.get("/one?client=" + client).body
			for range 4 {
				require.Equal(t, want, s.get("/two?client="+client).body)
				require.Equal(t, want, s.get("/one?client="+client).body)
			}
		}
	})
}

// P3: remembered by address, a server is found under another name.
func TestP3_StickByAddr(t *testing.T) {
	var pool *balance.Pool
	onBoth(t, func(s *site) http.Handler {
		pool = &balance.Pool{Policy: balance.RoundRobin{}}
		s.named(pool, "a", "b")
		return &Stick{Key: ByHeader("X-A"), ByAddr: pool, Next: s.proxyTo(pool)}
	}, func(s *site) {
		t := s.T
		want := s.get("/", "X-A", "1").body
		require.NoError(t, pool.Set(
			balance.Endpoint{Name: "new b", Addr: "10.1.0.2:80"}, balance.Endpoint{Name: "new a", Addr: "10.1.0.1:80"}))
		for range 3 {
			require.Equal(t, want, s.get("/", "X-A", "1").body)
		}
	})
}

func TestStickTable(t *testing.T) {
	table := &StickTable{Max: 10}
	for i := range 100 {
		table.Remember(fmt.Sprint(i), "s")
		if _, ok := table.Lookup("0"); !ok {
			t.Fatalf("0 is forgotten at %d, though it is asked for", i)
		}
		require.LessOrEqual(t, table.Len(), 10)
	}
	for i := 96; i < 100; i++ {
		_, ok := table.Lookup(fmt.Sprint(i))
		require.True(t, ok, "%d", i)
	}
	_, ok := table.Lookup("50")
	require.False(t, ok)
}

func TestStickTableExpires(t *testing.T) {
	onBoth(t, func(s *site) http.Handler { return text }, func(s *site) { // for its bubble
		t := s.T
		table := &StickTable{Expire: time.Minute}
		table.Remember("a", "s")
		for range 10 {
			time.Sleep(50 * time.Second)
			_, ok := table.Lookup("a")
			require.True(t, ok, "asking keeps it")
		}
		time.Sleep(61 * time.Second)
		_, ok := table.Lookup("a")
		require.False(t, ok)
	})
}

func TestHashBy(t *testing.T) {
	onBoth(t, func(s *site) http.Handler {
		pool := &balance.Pool{Policy: balance.Maglev{}}
		s.named(pool, "a", "b", "c")
		return &HashBy[string]{Key: ByHeader("X-A"), Next: s.proxyTo(pool)}
	}, func(s *site) {
		t := s.T
		servers := map[string]bool{}
		for i := range 20 {
			want := s.get("/", "X-A", fmt.Sprint(i)).body
			require.Equal(t, want, s.get("/", "X-A", fmt.Sprint(i)).body)
			servers[want] = true
		}
		require.Len(t, servers, 3)
	})
}

// A cookie from the future is none: by its dates it would never end. A day is left to
// clocks that disagree.
func TestPersistFromTheFuture(t *testing.T) {
	const day = 24 * time.Hour
	var persist *Persist
	onBoth(t, func(s *site) http.Handler {
		pool := &balance.Pool{Name: "shop", Policy: balance.RoundRobin{}}
		s.named(pool, "a", "b", "c")
		persist = &Persist{Pool: pool, Keys: [][]byte{testKey}, MaxIdle: time.Hour, MaxLife: 3 * time.Hour, Next: s.proxyTo(pool)}
		return persist
	}, func(s *site) {
		s.get("/") // so that it has begun
		for _, tc := range []struct {
			first, last time.Duration // from now
			ok          bool
		}{
			{0, 0, true},
			{day, day, true},
			{day + time.Second, 0, false},
			{0, day + time.Second, false},
			{1000 * day, 1000 * day, false},
		} {
			now := time.Now()
			value := persist.seal.seal("b", now.Add(tc.first).Unix(), now.Add(tc.last).Unix())
			for range 3 { // in turn, if it is not taken
				a := s.get("/", "Cookie", "SERVER="+value)
				if tc.ok {
					require.Equal(s, "b []", a.body, "%+v", tc)
				}
				require.Equal(s, tc.ok, cookieOf(a, "SERVER") == nil, "%+v", tc)
			}
		}
	})
}

// TestRecordSaysPersisted of a request whose cookie has chosen the server, not of one
// that was only balanced.
func TestRecordSaysPersisted(t *testing.T) {
	onBoth(t, func(s *site) http.Handler {
		pool := &balance.Pool{Name: "shop", Policy: balance.RoundRobin{}}
		s.named(pool, "a", "b")
		next := &Persist{Pool: pool, Keys: [][]byte{testKey}, Next: s.proxyTo(pool)}
		return HandlerFunc(func(x *Exchange) {
			x.OnReply(ReplyFunc(func(x *Exchange, r *Reply) { r.Header.Set("Persisted", fmt.Sprint(x.Record.Persisted)) }))
			Serve(next, x)
		})
	}, func(s *site) {
		first := s.get("/")
		require.Equal(s, "false", first.Header.Get("Persisted"))
		second := s.get("/", "Cookie", "SERVER="+cookieOf(first, "SERVER").Value)
		require.Equal(s, "true", second.Header.Get("Persisted"))
	})
}
