// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
)

// counted is a matcher of a host's own.
type counted struct {
	within Matcher
	asked  *int
}

func (c counted) Match(*Exchange) bool { *c.asked++; return true } // whatever it lies within
func (c counted) Within() Matcher      { return c.within }

// endless lies within itself.
type endless struct{}

func (e endless) Match(*Exchange) bool { return true }
func (e endless) Within() Matcher      { return All{e} }

// routed returns the name of the route that a request takes.
func routed(t *testing.T, r *Router, method, url string) string {
	t.Helper()
	for _, e := range r.ExplainRequest(httptest.NewRequest(method, url, nil)) {
		if e.Taken {
			return e.Route
		}
	}
	return ""
}

// TestNarrowerIsIndexed: a matcher of a host's own is asked only of exchanges that it
// may match by its host and path.
func TestNarrowerIsIndexed(t *testing.T) {
	asked := 0
	h := http.NotFoundHandler()
	for name, within := range map[string]Matcher{
		"host and path": All{Host("a.test"), Path("/x")},
		"alternatives":  Any{All{Host("a.test"), PathPrefix("/x")}, All{Host("b.test"), Path("/x")}},
		"a narrower":    counted{All{Host("a.test"), PathPattern("/{id}")}, new(int)},
	} {
		r := NewRouter(Route{Name: "own", Match: counted{within, &asked}, Handler: h}, Route{Name: "rest", Handler: h})
		serve := func(url string) {
			r.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", url, nil))
		}
		asked = 0
		serve("http://c.test/x")
		serve("http://a.test/y/z")
		require.Zero(t, asked, name)
		serve("http://a.test/x")
		require.Equal(t, 1, asked, name)
		require.Equal(t, "own", routed(t, r, "GET", "http://a.test/x"), name)
		require.Equal(t, "rest", routed(t, r, "GET", "http://a.test/y/z"), name)
	}
}

// TestNarrowerIsSpecific: what it lies within counts, and itself comes last.
func TestNarrowerIsSpecific(t *testing.T) {
	h := http.NotFoundHandler()
	own := func(m Matcher) Matcher { return counted{m, new(int)} }
	r := &Router{Order: Specific}
	require.NoError(t, r.Set(
		Route{Name: "all", Handler: h},
		Route{Name: "own of all", Match: own(nil), Handler: h},
		Route{Name: "host", Match: Host("a.test"), Handler: h},
		Route{Name: "own of host", Match: own(Host("a.test")), Handler: h},
		Route{Name: "own of path", Match: own(All{Host("a.test"), PathPrefix("/x")}), Handler: h},
		Route{Name: "exact", Match: All{Host("a.test"), Path("/x/y")}, Handler: h},
	))
	require.Equal(t, "exact", routed(t, r, "GET", "http://a.test/x/y"))
	require.Equal(t, "own of path", routed(t, r, "GET", "http://a.test/x/z"))
	require.Equal(t, "own of host", routed(t, r, "GET", "http://a.test/z"))
	require.Equal(t, "own of all", routed(t, r, "GET", "http://b.test/x"))

	err := (&Router{}).Set(
		Route{Name: "host", Match: Host("a.test"), Handler: h},
		Route{Name: "own", Match: own(All{Host("a.test"), Path("/x")}), Handler: h})
	require.ErrorContains(t, err, "is never reached")
}

// TestNarrowerIsChecked: also what it lies within.
func TestNarrowerIsChecked(t *testing.T) {
	h := http.NotFoundHandler()
	err := (&Router{}).Set(Route{Match: Any{counted{PathPrefix("x"), nil}}, Handler: h})
	require.ErrorContains(t, err, "does not begin with a slash")
	many := All{}
	for range maxWithin + 1 {
		many = append(many, counted{nil, new(int)})
	}
	many = append(many, counted{Host("a.test"), new(int)}) // they are not within each other
	asked := many[0].(counted).asked
	NewRouter(Route{Match: many, Handler: h}).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "http://b.test/", nil))
	require.Zero(t, *asked)
}

// TestNarrowerHasAnEnd: one that lies within itself is a mistake wherever a matcher is
// taken, and does not end the program where nothing was checked.
func TestNarrowerHasAnEnd(t *testing.T) {
	h := http.NotFoundHandler()
	for _, m := range []Matcher{endless{}, Not(endless{}), Any{All{endless{}}}} {
		require.ErrorContains(t, (&Router{}).Set(Route{Match: m, Handler: h}), tooDeep)
		require.ErrorContains(t, (&Access{Allow: m, Next: h}).Check(), tooDeep)
		require.ErrorContains(t, All{m}.Check(), tooDeep)
	}
	require.True(t, Matches(endless{}, get("a.test", "/")))
}

// TestNarrowerWithoutAnIndex: outside of the index, too, both of its conditions are asked.
func TestNarrowerWithoutAnIndex(t *testing.T) {
	own := counted{Host("a.test"), new(int)}
	here, there := get("a.test", "/"), get("b.test", "/")
	for name, m := range map[string]Matcher{"itself": own, "All": All{own}, "Any": Any{own}, "Not": Not(Not(own)), "within": counted{own, new(int)}} {
		require.True(t, Matches(m, here), name)
		require.False(t, Matches(m, there), name)

		status := func(h http.Handler, url string) int {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest("GET", url, nil))
			return w.Code
		}
		ok := &FixedReply{Status: 204}
		for _, h := range []http.Handler{
			&Access{Allow: m, Next: ok},
			&Access{Deny: Not(m), Next: ok},
			&Fault{Match: Not(m), Status: 403, Next: ok},
			NewRouter(Route{Match: Not(m), Handler: &Deny{}}, Route{Handler: ok}),
		} {
			require.Equal(t, 204, status(h, "http://a.test/"), "%s in %T", name, h)
			require.Equal(t, 403, status(h, "http://b.test/"), "%s in %T", name, h)
		}
	}
	status := &ProxyStatus{Name: "edge", Trust: own, Next: &FixedReply{Header: MakeFields("Proxy-Status", "inner; received-status=503")}}
	for host, want := range map[string]bool{"a.test": true, "b.test": false} {
		w := httptest.NewRecorder()
		status.ServeHTTP(w, httptest.NewRequest("GET", "http://"+host+"/", nil))
		require.Equal(t, want, w.Header().Get("Proxy-Status") != "", host)
	}
	told := ""
	certs := &ForwardClientCert{XFCC: XFCCForward, Trust: own, Next: HandlerFunc(func(x *Exchange) { told = x.Header.Get("X-Forwarded-Client-Cert") })}
	for host, want := range map[string]string{"a.test": "Hash=ab", "b.test": ""} {
		r := httptest.NewRequest("GET", "http://"+host+"/", nil)
		r.Header.Set("X-Forwarded-Client-Cert", "Hash=ab")
		certs.ServeHTTP(httptest.NewRecorder(), r)
		require.Equal(t, want, told, host)
	}
	require.Error(t, (&ForwardClientCert{XFCC: XFCCForward, Trust: endless{}, Next: certs}).Check())
	require.Error(t, (&Access{Allow: counted{PathPrefix("x"), new(int)}, Next: http.NotFoundHandler()}).Check())
}

// TestExplainAsksWithin: an explanation says what the routes do.
func TestExplainAsksWithin(t *testing.T) {
	own := counted{All{Host("a.test"), PathPrefix("/api")}, new(int)}
	r := NewRouter(Route{Name: "own", Match: own, Handler: http.NotFoundHandler()})
	e := r.ExplainRequest(httptest.NewRequest("GET", "http://a.test/other", nil))[0]
	require.Equal(t, `0 "own": no PathPrefix(/api)`, e.String())
	require.Zero(t, *own.asked)
	e = r.ExplainRequest(httptest.NewRequest("GET", "http://a.test/api", nil))[0]
	require.True(t, e.Taken && e.Matches)
}

// TestManyAlternativesKeepAllConditions: alternatives that are too many for the index are
// tried as they stand, and none of the conditions around them is lost.
func TestManyAlternativesKeepAllConditions(t *testing.T) {
	var hosts, paths Any
	for i := range 20 {
		hosts = append(hosts, counted{Host(fmt.Sprintf("h%d.test", i)), new(int)})
		paths = append(paths, Path(fmt.Sprintf("/p%d", i)))
	}
	r := NewRouter(Route{Name: "many", Match: All{RemoteIn(prefixes("10.0.0.0/8")), hosts, paths, Method("PUT")}, Handler: http.NotFoundHandler()})
	ask := func(client, method, url string) string {
		req := httptest.NewRequest(method, url, nil)
		req.RemoteAddr = client
		for _, e := range r.ExplainRequest(req) {
			if e.Taken {
				return e.Route
			}
		}
		return ""
	}
	require.Equal(t, "many", ask("10.0.0.1:1", "PUT", "http://h7.test/p9"))
	require.Empty(t, ask("192.0.2.1:1", "PUT", "http://h7.test/p9"))
	require.Empty(t, ask("10.0.0.1:1", "PUT", "http://other.test/p9"))
	require.Empty(t, ask("10.0.0.1:1", "PUT", "http://h7.test/other"))
	require.Empty(t, ask("10.0.0.1:1", "GET", "http://h7.test/p9"))
}
