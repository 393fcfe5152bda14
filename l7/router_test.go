// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// took is a handler that says that it was taken.
func took(log *string, name string) Handler {
	return HandlerFunc(func(x *Exchange) { *log = name })
}

// route returns a route that says its name.
func route(log *string, name string, m Matcher) Route {
	return Route{Name: name, Match: m, Handler: took(log, name)}
}

func TestRouterListed(t *testing.T) {
	var got string
	r := NewRouter(
		route(&got, "health", Path("/healthz")),
		route(&got, "beta", All{Host("example.com"), Cookie{Name: "beta"}}),
		route(&got, "api", All{Host("api.example.com"), Any{PathPrefix("/v1"), PathPrefix("/v2")}, Any{Method("GET"), Method("POST")}}),
		route(&got, "static", All{Any{Host("example.com"), Host("*.example.com")}, PathSuffix(".css")}),
		route(&got, "tenants", All{Host("*.example.com"), PathPattern("/t/{tenant}/{rest...}")}),
		route(&got, "site", Host("example.com")),
		route(&got, "options", Path("*")),
		route(&got, "last", nil),
	)
	tests := []struct {
		x    *Exchange
		want string
	}{
		{get("anything", "/healthz"), "health"},
		{get("example.com", "/healthz"), "health"},
		{get("example.com", "/", "Cookie", "beta=1"), "beta"},
		{get("example.com", "/a.css", "Cookie", "beta=1"), "beta"},
		{get("example.com", "/a.css"), "static"},
		{get("api.example.com", "/a.css"), "static"},
		{get("api.example.com", "/v1/a.css"), "api"},
		{get("api.example.com:80", "/v2"), "api"},
		{&Exchange{Method: "PUT", Host: "api.example.com", Path: "/v2"}, "last"},
		{get("x.y.example.com", "/t/acme/a/b"), "tenants"},
		{get("example.com", "/t/acme/a/b"), "site"},
		{get("other", "*"), "options"},
		{get("", ""), "last"},
	}
	for _, tt := range tests {
		got = ""
		r.ServeExchange(tt.x)
		require.Equal(t, tt.want, got, "%s%s", tt.x.Host, tt.x.Path)
		require.Equal(t, tt.want, tt.x.Record.Route)
		for _, e := range r.Explain(tt.x) {
			require.Equal(t, e.Route == tt.want, e.Taken, e)
		}
	}
}

func TestRouterSpecific(t *testing.T) {
	var got string
	r := Router{Order: Specific}
	require.NoError(t, r.Set(
		route(&got, "any", nil),
		route(&got, "wild", Host("*.example.com")),
		route(&got, "longer wild", Host("*.a.example.com")),
		route(&got, "host", Host("b.a.example.com")),
		route(&got, "prefix", PathPrefix("/x")),
		route(&got, "longer prefix", PathPrefix("/x/y")),
		route(&got, "exact", Path("/x/y/z")),
		route(&got, "pattern", PathPattern("/p/{id}/edit")),
		route(&got, "exact beside pattern", Path("/p/new/edit")),
		route(&got, "method", All{PathPrefix("/x"), Method("POST")}),
		route(&got, "header", All{PathPrefix("/x"), Header{Name: "A"}}),
		route(&got, "two headers", All{PathPrefix("/x"), Header{Name: "A"}, Header{Name: "B"}}),
		route(&got, "query", All{PathPrefix("/x"), Query{Name: "q"}}),
		Route{Name: "first", Match: Header{Name: "X-Debug"}, Handler: took(&got, "first"), Priority: 1},
	))
	tests := []struct {
		x    *Exchange
		want string
	}{
		{get("h", "/"), "any"},
		{get("c.example.com", "/x"), "wild"},
		{get("c.a.example.com", "/x"), "longer wild"},
		{get("b.a.example.com", "/x"), "host"},
		{get("h", "/x/1"), "prefix"},
		{get("h", "/x/y/1"), "longer prefix"},
		{get("h", "/x/y/z"), "exact"},
		{get("h", "/p/7/edit"), "pattern"},
		{get("h", "/p/new/edit"), "exact beside pattern"},
		{&Exchange{Method: "POST", Host: "h", Path: "/x", Header: MakeFields("A", "1", "B", "2")}, "method"},
		{get("h", "/x?q", "A", "1"), "header"},
		{get("h", "/x", "A", "1", "B", "2"), "two headers"},
		{get("h", "/x?q=1"), "query"},
		{get("b.a.example.com", "/x", "X-Debug", ""), "first"},
	}
	for _, tt := range tests {
		r.ServeExchange(tt.x)
		require.Equal(t, tt.want, got, "%s%s", tt.x.Host, tt.x.Path)
	}
}

func TestRouterMistakes(t *testing.T) {
	h := HandlerFunc(func(*Exchange) {})
	tests := []struct {
		order  Order
		routes []Route
		want   string
	}{
		{Listed, []Route{{Name: "a"}}, `l7: route 0 "a" has no handler`},
		{Listed, []Route{{Handler: h, Priority: 1}}, `l7: route 0 has a priority, but routes are taken as listed`},
		{Listed, []Route{{Handler: h, Match: Path("x")}}, `l7: route 0 has a bad matcher: Path("x") does not begin with a slash`},
		{Listed, []Route{{Handler: h, Match: Not(All{Host("a.*.b")})}}, `l7: route 0 has a bad matcher: Host("a.*.b") has a * that is not its first label`},
		{Listed, []Route{{Handler: h, Match: Host("*a")}}, `l7: route 0 has a bad matcher: Host("*a") has a * that is not its first label`},
		{Listed, []Route{{Handler: h, Match: Host("a:80")}}, `l7: route 0 has a bad matcher: Host("a:80") has a port; match it with LocalPort`},
		{Listed, []Route{{Handler: h, Match: Host("a..b")}}, `l7: route 0 has a bad matcher: Host("a..b") has an empty label`},
		{Listed, []Route{{Handler: h, Match: PathPattern("/{a}/{a}")}}, `l7: route 0 has a bad matcher: PathPattern("/{a}/{a}") has a name that is empty or used twice`},
		{Listed, []Route{{Handler: h, Match: PathPattern("/{a...}/b")}}, `l7: route 0 has a bad matcher: PathPattern("/{a...}/b") has an element after {a...}`},
		{Listed, []Route{{Handler: h, Match: PathPattern("/x{a}")}}, `l7: route 0 has a bad matcher: PathPattern("/x{a}") has a brace within an element`},
		{Listed, []Route{{Handler: h, Match: PathRegexp{}}}, `l7: route 0 has a bad matcher: PathRegexp("") has no expression`},
		{Listed, []Route{{Handler: h, Match: Header{Name: "a b"}}}, `l7: route 0 has a bad matcher: Header("a b") is not a field name`},
		{Listed, []Route{{Handler: h, Match: Header{Name: "Host"}}}, `l7: route 0 has a bad matcher: Header("Host") is a field that Exchange.Header never has`},
		{Listed, []Route{{Handler: h, Match: All{nil}}}, `l7: route 0 has a nil matcher in an All or Any`},
		{Listed, []Route{{Handler: h, Match: Not(nil)}}, `l7: route 0 has a Not of nil`},

		{Listed, []Route{{Name: "all", Handler: h}, {Name: "b", Handler: h, Match: Path("/b")}}, `l7: route 1 "b" is never reached: route 0 "all" matches all that it does`},
		{Listed, []Route{{Name: "w", Handler: h, Match: Host("*.b.c")}, {Name: "x", Handler: h, Match: All{Host("*.a.b.c"), Path("/b"), Method("GET")}}}, `l7: route 1 "x" is never reached: route 0 "w" matches all that it does`},
		{Listed, []Route{{Name: "p", Handler: h, Match: All{PathPrefix("/a/"), Method("GET")}}, {Name: "q", Handler: h, Match: All{Method("GET"), PathPrefix("/a/b"), Scheme("http")}}}, `l7: route 1 "q" is never reached: route 0 "p" matches all that it does`},
		{Listed, []Route{{Name: "p", Handler: h, Match: PathPrefix("/a")}, {Name: "q", Handler: h, Match: Path("/a/b/")}}, `l7: route 1 "q" is never reached: route 0 "p" matches all that it does`},
		{Listed, []Route{{Name: "p", Handler: h, Match: PathPrefix("/a")}, {Name: "q", Handler: h, Match: Any{Path("/a/b/"), Path("/b")}}}, ""},
		{Listed, []Route{{Name: "p", Handler: h, Match: All{PathPrefix("/a"), Method("GET")}}, {Name: "q", Handler: h, Match: PathPrefix("/a")}}, ""},
		{Listed, []Route{{Name: "p", Handler: h, Match: Path("/a")}, {Name: "q", Handler: h, Match: PathPrefix("/a")}}, ""},

		{Specific, []Route{{Name: "p", Handler: h, Match: Header{Name: "A"}}, {Name: "q", Handler: h, Match: Header{Name: "B"}}}, `l7: route 1 "q" is as specific as route 0 "p", and a request can match both: give one a Priority`},
		{Specific, []Route{{Name: "p", Handler: h, Match: Header{Name: "A"}}, {Name: "q", Handler: h, Match: Header{Name: "B"}, Priority: -1}}, ""},
		{Specific, []Route{{Name: "p", Handler: h, Match: Method("GET")}, {Name: "q", Handler: h, Match: Method("PUT")}}, ""},
		{Specific, []Route{{Name: "p", Handler: h, Match: PathSuffix(".css")}, {Name: "q", Handler: h, Match: PathSuffix(".png")}}, ""},
		{Specific, []Route{{Name: "p", Handler: h, Match: PathPattern("/{a}/b")}, {Name: "q", Handler: h, Match: PathPattern("/a/{b}")}}, `l7: route 1 "q" is as specific as route 0 "p", and a request can match both: give one a Priority`},
		{Specific, []Route{{Name: "p", Handler: h, Match: PathPattern("/{a}/b")}, {Name: "q", Handler: h, Match: PathPattern("/{b}/c")}}, ""},
		{Specific, []Route{{Name: "p", Handler: h, Match: Path("/a")}, {Name: "q", Handler: h, Match: Path("/a")}}, `l7: route 1 "q" is as specific as route 0 "p", and a request can match both: give one a Priority` + "\n" + `l7: route 1 "q" is never reached: route 0 "p" matches all that it does`},
	}
	for _, tt := range tests {
		r := Router{Order: tt.order}
		err := r.Set(tt.routes...)
		if tt.want == "" {
			require.NoError(t, err)
			continue
		}
		require.EqualError(t, err, tt.want)
		var re *RouteError
		require.ErrorAs(t, err, &re)
	}
	require.Panics(t, func() { NewRouter(Route{}) })
}

// A table that is not in order leaves the old one in force.
func TestRouterKeepsTheOldTable(t *testing.T) {
	var got string
	r := NewRouter(route(&got, "old", nil))
	require.Error(t, r.Set(Route{}))
	r.ServeExchange(get("h", "/"))
	require.Equal(t, "old", got)
	require.NoError(t, r.Set(route(&got, "new", nil)))
	r.ServeExchange(get("h", "/"))
	require.Equal(t, "new", got)
}

func TestPathValue(t *testing.T) {
	var id, rest, none string
	h := HandlerFunc(func(x *Exchange) {
		x.Path = "/rewritten"
		id, rest, none = PathValue(x, "id"), PathValue(x, "rest"), PathValue(x, "none")
	})
	r := NewRouter(
		Route{Match: PathPattern("/users/{id}/{rest...}"), Handler: h},
		Route{Match: PathRegexp{regexp.MustCompile(`^/r/(?P<id>[^/]+)/(?P<rest>.*)$`)}, Handler: h},
	)
	r.ServeExchange(get("h", "/users/a%2Fb/c/%zz"))
	require.Equal(t, []string{"a/b", "c/%zz", ""}, []string{id, rest, none})
	r.ServeExchange(get("h", "/r/7/x/y"))
	require.Equal(t, []string{"7", "x/y", ""}, []string{id, rest, none})
	require.Empty(t, PathValue(get("h", "/"), "id"))
}

func TestExplain(t *testing.T) {
	var got string
	r := NewRouter(
		route(&got, "api", All{Host("api.example"), Any{Method("POST"), Header{Name: "X-Force", Value: "1"}}}),
		route(&got, "old", Not(PathRegexp{regexp.MustCompile("^/new")})),
		route(&got, "all", nil),
	)
	var lines []string
	for _, e := range r.Explain(get("api.example", "/new")) {
		lines = append(lines, e.String())
	}
	require.Equal(t, []string{
		`0 "api": no any of [Method(POST), Header(X-Force=1)]`,
		`1 "old": no Not(PathRegexp(^/new))`,
		`2 "all": taken`,
	}, lines)
	require.Nil(t, new(Router).Explain(get("h", "/")))
}

// randomMatcher draws from few hosts, paths and fields, so that tables and
// requests meet often.
func randomMatcher(rnd *rand.Rand, depth int) Matcher {
	hosts := []Host{"a", "b.a", "c.b.a", "*.a", "*.b.a", "*", "d", "[::1]", "A."}
	paths := []string{"/", "/x", "/x/y", "/x/y/", "/z", "/x/y/w", "/x//", "//x", deepPath}
	patterns := []PathPattern{"/{a}", "/x/{b}", "/{a}/y", "/x/{r...}", "/x/y/{q}", "/x/y/", "/{a}/"}
	switch n := rnd.IntN(16); {
	case n < 3:
		return hosts[rnd.IntN(len(hosts))]
	case n < 5:
		return Path(paths[rnd.IntN(len(paths))])
	case n < 8:
		return PathPrefix(paths[rnd.IntN(len(paths))])
	case n == 8:
		return patterns[rnd.IntN(len(patterns))]
	case n == 9:
		return Method([]string{"GET", "POST"}[rnd.IntN(2)])
	case n == 10:
		return Header{Name: "A", Value: []string{"", "1", "2"}[rnd.IntN(3)]}
	case depth == 0:
		return nil
	case n == 11:
		if m := randomMatcher(rnd, depth-1); m != nil {
			return Not(m)
		}
		return nil
	case n == 12:
		return inside{randomMatcher(rnd, depth-1), randomMatcher(rnd, 0)}
	case n == 13 && rnd.IntN(8) == 0: // it is slow to scan
		return many(rnd)
	}
	var list []Matcher
	for range rnd.IntN(4) {
		if m := randomMatcher(rnd, depth-1); m != nil {
			list = append(list, m)
		}
	}
	if rnd.IntN(2) == 0 {
		return All(list)
	}
	return Any(list)
}

// deepPath has more elements than the index counts.
var deepPath = strings.Repeat("/x", 70)

// inside is a matcher of a host's own that says nothing in Match of what it lies within.
type inside struct{ within, own Matcher }

func (i inside) Match(x *Exchange) bool { return scan(i.own, x) }
func (i inside) Within() Matcher        { return i.within }

// many returns alternatives at the bound of what the index takes for one route: hosts,
// or hosts combined with paths.
func many(rnd *rand.Rand) Matcher {
	hosts := Any{inside{Host("b.a"), nil}}
	for i := range maxAlternatives - 2 + rnd.IntN(3) {
		hosts = append(hosts, Host(fmt.Sprint("h", i, ".a")))
	}
	if rnd.IntN(2) == 0 {
		return hosts
	}
	paths := Any{Path("/z"), inside{PathPrefix("/x"), Method("GET")}}
	return All{hosts[:130], Method("GET"), paths, Header{Name: "A"}}
}

// scan is the law of matchers, written without the package's own combinators.
func scan(m Matcher, x *Exchange) bool {
	no := func(m Matcher) bool { return !scan(m, x) }
	switch m := m.(type) {
	case nil:
		return true
	case All:
		return !slices.ContainsFunc(m, no)
	case Any:
		return slices.ContainsFunc(m, func(m Matcher) bool { return scan(m, x) })
	case not:
		return no(m.m)
	case Narrower:
		return scan(m.Within(), x) && m.Match(x)
	}
	return m.Match(x)
}

func randomRequest(rnd *rand.Rand) *Exchange {
	pick := func(s ...string) string { return s[rnd.IntN(len(s))] }
	x := get(pick("a", "b.a", "c.b.a", "x.a", "y.x.a", "d", "e", "A:80", "", "h1.a", "h2.a.", "[::1]:80", ".a", ".b.a"),
		pick("/", "/x", "/x/", "/x/y", "/x/y/", "/x/y/z", "/z", "/z/y", "//x", "/x//", "/x//y", "", "*", "x", deepPath, deepPath+"/y"))
	x.Method = pick("GET", "POST", "PUT")
	if rnd.IntN(2) == 0 {
		x.Header = MakeFields("A", pick("1", "2", "3"))
	}
	return x
}

// linear is the router without its index.
func linear(routes []Route, x *Exchange) int {
	return slices.IndexFunc(routes, func(r Route) bool { return scan(r.Match, x) })
}

func checkIndex(t *testing.T, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 1))
	h := HandlerFunc(func(*Exchange) {})
	var routes []Route
	for i := range 1 + rnd.IntN(12) {
		routes = append(routes, Route{Name: fmt.Sprint(i), Match: randomMatcher(rnd, 3), Handler: h})
	}
	// The table as listed, whatever Set has to say about reaching it.
	var specs []*spec
	tab := &table{routes: routes}
	for i, r := range routes {
		for _, s := range alternatives(spec{route: i, host: "*"}, r.Match) {
			specs = append(specs, &s)
		}
	}
	for rank, s := range specs {
		tab.add(s, clause{int32(rank), int32(s.route), s.conds, s.captures()})
	}
	hit := make(map[int]bool)
	for n := range 200 {
		x := randomRequest(rnd)
		want, got := linear(routes, x), -1
		if c := tab.find(x); c != nil {
			got = int(c.route)
		}
		if got != want {
			t.Fatalf("seed %d: %s %q %q finds %d; a scan %d: %v", seed, x.Method, x.Host, x.Path, got, want, routes)
		}
		for i, r := range routes {
			if n > 20 {
				break
			}
			want := scan(r.Match, x)
			if why, got := explain(r.Match, x, 0); got != want || (why == "") != want {
				t.Fatalf("seed %d: %s %q %q: route %d explained as %v %q; a scan says %v: %v", seed, x.Method, x.Host, x.Path, i, got, why, want, r.Match)
			}
			if got := Matches(r.Match, x); got != want {
				t.Fatalf("seed %d: %s %q %q: route %d matches: %v; a scan says %v: %v", seed, x.Method, x.Host, x.Path, i, got, want, r.Match)
			}
		}
		hit[want] = true
	}
	unreachable(tab, specs, func(i int, reason string) {
		if hit[i] {
			t.Fatalf("seed %d: route %d is taken, though it %s", seed, i, reason)
		}
	})
}

func TestIndexAgreesWithAScan(t *testing.T) {
	seeds := uint64(2000)
	if raceEnabled {
		seeds = 500 // one goroutine: the others run without the detector
	}
	for seed := range seeds {
		checkIndex(t, seed)
	}
}

func FuzzIndex(f *testing.F) {
	f.Add(uint64(1))
	f.Fuzz(checkIndex)
}

// The order computed does not depend on the order listed, and takes no request from a route
// that matches it for one that does not.
func TestSpecificOrderIsTotal(t *testing.T) {
	tried := 0
	for seed := range uint64(3000) {
		rnd := rand.New(rand.NewPCG(seed, 2))
		h := HandlerFunc(func(*Exchange) {})
		var routes []Route
		for i := range 1 + rnd.IntN(5) {
			routes = append(routes, Route{Name: fmt.Sprint(i), Match: randomMatcher(rnd, 1), Handler: h})
		}
		a, err := newTable(Specific, routes)
		if err != nil {
			continue
		}
		tried++
		shuffled := slices.Clone(routes)
		rnd.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		b, err := newTable(Specific, shuffled)
		require.NoError(t, err)
		for range 100 {
			x := randomRequest(rnd)
			ca, cb := a.find(x), b.find(x)
			found := linear(routes, x) >= 0
			if (ca != nil) != found || (cb != nil) != found ||
				found && (!scan(a.routes[ca.route].Match, x) || a.routes[ca.route].Name != b.routes[cb.route].Name) {
				t.Fatalf("seed %d: %s%s finds %v, shuffled %v, a scan says %v: %v", seed, x.Host, x.Path, ca, cb, found, routes)
			}
		}
	}
	require.Greater(t, tried, 500)
}

func BenchmarkRouter(b *testing.B) {
	h := HandlerFunc(func(*Exchange) {})
	for _, n := range []int{10, 1000, 10_000} {
		var routes []Route
		for i := range n {
			routes = append(routes, Route{Match: All{Host(fmt.Sprintf("tenant-%d.example.com", i/4)), PathPrefix(fmt.Sprintf("/api/v%d", i%4))}, Handler: h})
		}
		r := NewRouter(routes...)
		var requests []*Exchange
		for i := range 64 {
			k := i * n / 64
			requests = append(requests, get(fmt.Sprintf("tenant-%d.example.com", k/4), fmt.Sprintf("/api/v%d/users/17", k%4)))
		}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				r.ServeExchange(requests[i%len(requests)])
				i++
			}
		})
	}
}
