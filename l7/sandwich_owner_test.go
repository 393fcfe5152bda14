// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// passing is middleware of net/http that calls change before the next handler.
func passing(change func(w http.ResponseWriter, r *http.Request) *http.Request) func(next http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { next.ServeHTTP(w, change(w, r)) })
	}
}

// A client that names a field in Connection has its own removed, and not those that
// handlers have set, a foreign one or one around it: not even if it sends the same value.
func TestSandwichKeepsFieldsNamedInConnection(t *testing.T) {
	ann := func(next http.Handler) http.Handler {
		return &BasicAuth{Verify: func(u, _ string) bool { return u == "ann" }, UserField: "X-User", Next: next}
	}
	same := passing(func(_ http.ResponseWriter, r *http.Request) *http.Request { return r })
	cloned := passing(func(_ http.ResponseWriter, r *http.Request) *http.Request { return r.Clone(r.Context()) })
	sets := passing(func(_ http.ResponseWriter, r *http.Request) *http.Request {
		r.Header.Set("X-User", strings.Join([]string{"a", "nn"}, ""))
		return r
	})
	adds := passing(func(_ http.ResponseWriter, r *http.Request) *http.Request {
		r.Header.Add("X-User", "bob")
		return r
	})
	names := passing(func(_ http.ResponseWriter, r *http.Request) *http.Request {
		r.Header.Add("Connection", "X-Env")
		return r
	})
	hides := passing(func(_ http.ResponseWriter, r *http.Request) *http.Request {
		r.Header.Del("Connection")
		return r
	})
	type mw = func(next http.Handler) http.Handler
	cases := map[string]struct {
		around, with mw
		want         string // fields that arrive
	}{
		"set around":          {ann, same, "X-Env: e\nX-User: ann\n"},
		"set around, cloned":  {ann, cloned, "X-Env: e\nX-User: ann\n"},
		"set around, twice":   {ann, func(n http.Handler) http.Handler { return same(&Capture{Next: cloned(n)}) }, "X-Env: e\nX-User: ann\n"},
		"set by it":           {nil, sets, "X-Env: e\nX-User: ann\n"},
		"set by it, twice":    {nil, func(n http.Handler) http.Handler { return sets(&Capture{Next: cloned(n)}) }, "X-Env: e\nX-User: ann\n"},
		"added by it":         {nil, adds, "X-Env: e\nX-User: bob\n"},
		"added by it, twice":  {nil, func(n http.Handler) http.Handler { return adds(&Capture{Next: same(n)}) }, "X-Env: e\nX-User: bob\n"},
		"of the client":       {nil, same, "X-Env: e\n"},
		"of the client, copy": {nil, cloned, "X-Env: e\n"},
		"Connection removed":  {nil, hides, "X-Env: e\n"},
		"named by it":         {ann, names, "X-User: ann\n"},
	}
	for name, tc := range cases {
		for _, wrap := range []bool{false, true} {
			t.Run(name+map[bool]string{true: ", Wrap"}[wrap], func(t *testing.T) {
				onBoth(t, func(s *site) http.Handler {
					s.origin("10.0.1.1:80", echo)
					var h http.Handler = tc.with(s.proxy("10.0.1.1:80"))
					if wrap {
						h = &Wrap{With: tc.with, Next: s.proxy("10.0.1.1:80")}
					}
					if tc.around != nil {
						return tc.around(h)
					}
					return &Capture{Next: h}
				}, func(s *site) {
					if s.http2 {
						return // which has no Connection
					}
					a := s.get("/", "Authorization", "Basic YW5uOm9uZQ==", "Connection", "X-User, X-A", "X-User", "ann", "X-A", "1", "X-Env", "e")
					require.Equal(s, 200, a.StatusCode, a.body)
					got := strings.TrimPrefix(a.body, "GET / 10.0.0.1\n")
					require.Equal(s, tc.want, strings.TrimPrefix(got, "Authorization: Basic YW5uOm9uZQ==\n"))
				})
			})
		}
	}
}

// A request belongs to the exchange of its writer, even if a foreign handler gives it the
// context of another.
func TestSandwichGoesByTheWriter(t *testing.T) {
	var first context.Context
	var seen []string
	var user Key[string]
	keeps := passing(func(_ http.ResponseWriter, r *http.Request) *http.Request {
		if first == nil {
			first = context.WithoutCancel(r.Context())
		}
		return r.WithContext(first)
	})
	var outer http.ResponseWriter
	saves := passing(func(w http.ResponseWriter, r *http.Request) *http.Request { outer = w; return r })
	swaps := func(next http.Handler) http.Handler { // the writer of a handler further outside
		return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { next.ServeHTTP(outer, r) })
	}
	for name, tree := range map[string]func(auth func(http.Handler) http.Handler, p http.Handler) http.Handler{
		"context of another request": func(auth func(http.Handler) http.Handler, p http.Handler) http.Handler {
			return auth(keeps(&Capture{Next: p}))
		},
		"context of another, Wrap": func(auth func(http.Handler) http.Handler, p http.Handler) http.Handler {
			return auth(&Wrap{With: keeps, Next: &Capture{Next: p}})
		},
		"context from further outside": func(auth func(http.Handler) http.Handler, p http.Handler) http.Handler {
			return &Capture{Next: keeps(auth(keeps(p)))}
		},
		"writer from further outside": func(auth func(http.Handler) http.Handler, p http.Handler) http.Handler {
			return &Capture{Next: saves(auth(swaps(p)))}
		},
	} {
		t.Run(name, func(t *testing.T) {
			onBoth(t, func(s *site) http.Handler {
				first, seen = nil, nil
				s.origin("10.0.1.1:80", func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Header.Get("X-User")) })
				auth := func(next http.Handler) http.Handler {
					return &BasicAuth{Verify: func(u, _ string) bool { return u != "" }, UserField: "X-User", Next: HandlerFunc(func(x *Exchange) {
						user.Set(x, x.Record.User)
						Serve(next, x)
					})}
				}
				p := s.proxy("10.0.1.1:80")
				return tree(auth, HandlerFunc(func(x *Exchange) {
					name, _ := user.Get(x)
					seen = append(seen, name+" as "+x.Header.Get("X-User"))
					Serve(p, x)
				}))
			}, func(s *site) {
				for _, c := range [][2]string{{"ann", "YW5uOm9uZQ=="}, {"eve", "ZXZlOnR3bw=="}} {
					a, err := s.ask(s.client, "/", "", "Authorization", "Basic "+c[1])
					require.NoError(s, err)
					require.Equal(s, 200, a.StatusCode, a.body)
					require.Equal(s, c[0], a.body)
				}
				require.Equal(s, []string{"ann as ann", "eve as eve"}, seen)
			})
		})
	}
}
