// SPDX-License-Identifier: Apache-2.0

package l7

import (
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

func (c counted) Match(*Exchange) bool { *c.asked++; return true }
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
	r := NewRouter(Route{Name: "endless", Match: endless{}, Handler: h})
	require.Equal(t, "endless", routed(t, r, "GET", "http://a.test/"))
}
