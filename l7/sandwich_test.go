// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/ratelimit"
)

// unwrapped is a ResponseWriter around another, as middleware has it.
type unwrapped struct{ http.ResponseWriter }

func (w unwrapped) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// opaque is one that hides what it is around.
type opaque struct{ http.ResponseWriter }

type foreignKey struct{}

// foreigners are the ways of middleware of net/http.
var foreigners = map[string]func(next http.Handler) http.Handler{
	"plain": func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { next.ServeHTTP(w, r) })
	},
	"clone": func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			next.ServeHTTP(w, r.Clone(context.WithValue(r.Context(), foreignKey{}, 1)))
		})
	},
	"another request": func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			o, err := http.NewRequest(r.Method, r.URL.String(), r.Body)
			if err != nil {
				panic(err)
			}
			o.RequestURI, o.Host, o.Header, o.RemoteAddr, o.ContentLength = r.RequestURI, r.Host, r.Header, r.RemoteAddr, r.ContentLength
			o.Proto, o.ProtoMajor, o.ProtoMinor = r.Proto, r.ProtoMajor, r.ProtoMinor
			next.ServeHTTP(w, o)
		})
	},
	"wrapped writer": func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { next.ServeHTTP(unwrapped{w}, r) })
	},
	"opaque writer": func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { next.ServeHTTP(opaque{w}, r) })
	},
	"goroutine": func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var wg sync.WaitGroup
			wg.Go(func() { next.ServeHTTP(w, r) })
			wg.Wait()
		})
	},
	"TimeoutHandler": func(next http.Handler) http.Handler { return http.TimeoutHandler(next, time.Minute, "late") },
	"recorder": func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			rec := httptest.NewRecorder()
			next.ServeHTTP(rec, r)
			maps.Copy(w.Header(), rec.Header())
			w.WriteHeader(rec.Code)
			_, _ = w.Write(rec.Body.Bytes())
		})
	},
}

// allForeigners returns the ways of middleware of net/http, each put before the next
// handler as it is and by a Wrap.
func allForeigners() map[string]func(next http.Handler) http.Handler {
	all := maps.Clone(foreigners)
	for name, f := range foreigners {
		all["Wrap, "+name] = func(next http.Handler) http.Handler { return &Wrap{With: f, Next: next} }
	}
	return all
}

// naturalOrder is the tree of doc_middleware.go, from the outside in, around
// forward.
func naturalOrder(s *site, pool *balance.Pool, forward http.Handler) []func(next http.Handler) http.Handler {
	route := func(next http.Handler) http.Handler {
		r := new(Router)
		require.NoError(s, r.Set(
			Route{Name: "api", Match: PathPrefix("/api"), Handler: next},
		))
		return r
	}
	type mw = func(next http.Handler) http.Handler
	return []mw{
		func(n http.Handler) http.Handler {
			return &TrustForwarded{Prefixes: []netip.Prefix{netip.MustParsePrefix("10.9.9.9/32")}, Next: n}
		},
		func(n http.Handler) http.Handler {
			return &RequestID{New: func(x *Exchange) string { return "id" + x.Header.Get("X-A") }, Reply: true, Next: n}
		},
		func(n http.Handler) http.Handler {
			return &Capture{Request: []string{"X-A"}, Reply: []string{"X-Served-By"}, Next: n}
		},
		func(n http.Handler) http.Handler { return &Monitor{Path: "/monitor", Next: n} },
		func(n http.Handler) http.Handler {
			return &ErrorPages{Pages: map[int]FixedReply{0: {Header: MakeFields("Content-Type", "text/plain", "X-Page", "own"), Body: "page"}}, Next: n}
		},
		func(n http.Handler) http.Handler { return &Normalize{DotSegments: true, Next: n} },
		func(n http.Handler) http.Handler {
			return &Access{Deny: Any{ClientIn{netip.MustParsePrefix("203.0.113.66/32")}, PathPrefix("/api/private")}, Next: n}
		},
		func(n http.Handler) http.Handler {
			return &Limit[netip.Addr]{Limiter: &ratelimit.Keyed[netip.Addr]{Law: ratelimit.GCRA{Rate: ratelimit.PerMinute(1), Burst: 4}}, Next: n}
		},
		func(n http.Handler) http.Handler {
			return &BasicAuth{Verify: func(u, p string) bool { return p == "open" }, UserField: "X-User", Next: n}
		},
		func(n http.Handler) http.Handler {
			return &EditHeader{Request: []FieldEdit{SetField{Name: "X-B", Value: "edited"}}, Reply: []FieldEdit{SetField{Name: "X-Edited", Value: "yes"}}, Next: n}
		},
		route,
		func(n http.Handler) http.Handler { return &Rewrite{StripPrefix: "/api", Next: n} },
		func(n http.Handler) http.Handler { return &BufferBody{Next: n} },
		func(n http.Handler) http.Handler { return &LimitBody{Next: n} },
		func(n http.Handler) http.Handler { return &Gate{Places: &ratelimit.Concurrency{Max: 10}, Next: n} },
		func(n http.Handler) http.Handler { return &CircuitBreaker{Breaker: new(ratelimit.Breaker), Next: n} },
		func(n http.Handler) http.Handler { return &Persist{Pool: pool, Plain: true, Next: n} },
		func(n http.Handler) http.Handler {
			return &Stick{Key: ByHeader("X-Env"), Next: n}
		},
		func(n http.Handler) http.Handler { return &HashBy[string]{Key: ByHeader("X-A"), Next: n} },
	}
}

// decisions tells a gateway of the natural order, with a foreign handler at that
// place of it, some requests, and returns what came of them.
func decisions(t *testing.T, at int, foreign func(http.Handler) http.Handler) (told map[string][]string) {
	told = make(map[string][]string)
	var records []Record
	onBoth(t, func(s *site) http.Handler {
		records = nil
		for _, addr := range []string{"10.0.1.1:80", "10.0.1.2:80", "10.0.1.3:80"} {
			s.origin(addr, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("X-Served-By", addr)
				echo(w, r)
			})
		}
		pool := &balance.Pool{Name: "pool", Policy: balance.Ring{}}
		require.NoError(s, pool.Set(balance.Endpoint{Addr: "10.0.1.1:80"}, balance.Endpoint{Addr: "10.0.1.2:80"}, balance.Endpoint{Addr: "10.0.1.3:80"}))
		var h http.Handler = s.proxyTo(pool)
		layers := naturalOrder(s, pool, h)
		for i := len(layers); i >= 0; i-- {
			if i == at {
				h = foreign(h)
			}
			if i > 0 {
				h = layers[i-1](h)
			}
		}
		return HandlerFunc(func(x *Exchange) {
			defer func() { records = append(records, x.Record) }()
			Serve(h, x)
		})
	}, func(s *site) {
		const good = "Basic YW5uOm9wZW4=" // ann:open
		ask := func(target, body string, fields ...string) {
			a, err := s.ask(s.client, target, body, fields...)
			require.NoError(s, err)
			synctest.Wait()
			require.NotEmpty(s, records)
			r := records[len(records)-1]
			h := a.Header
			told[s.Name()] = append(told[s.Name()], fmt.Sprintf("%s %s: %d %q page=%s id=%s edited=%s cookie=%s auth=%s retry=%t | %d %s %s %s %s %d %v %v %v %d %d",
				target, strings.Join(fields, " "), a.StatusCode, a.body, h.Get("X-Page"), h.Get("X-Request-Id"), h.Get("X-Edited"), h.Get("Set-Cookie"), h.Get("Www-Authenticate"), h.Get("Retry-After") != "",
				r.Status, r.ID, r.User, r.Route, r.Pool+"/"+r.Server, r.Tries, r.Captured, r.Termination, r.Path, r.BytesIn, r.BytesOut))
		}
		from := func(client, id string) []string {
			return []string{"X-Forwarded-For", client, "X-Request-Id", id, "X-A", client}
		}
		ask("/monitor", "", from("203.0.113.1", "1")...)
		ask("/api/x", "", append(from("203.0.113.66", "2"), "Authorization", good)...)            // denied
		ask("/api/a/../private", "", append(from("203.0.113.1", "3"), "Authorization", good)...)  // denied
		ask("/api/x?q=%2f", "", append(from("203.0.113.1", "4"), "Authorization", good)...)       // served
		ask("/api/x", "", append(from("203.0.113.2", "5"), "Authorization", "Basic YTpiCg==")...) // no login
		ask("/other", "", append(from("203.0.113.1", "6"), "Authorization", good)...)             // no route
		ask("/api/p", "body", append(from("203.0.113.3", "7"), "Authorization", good)...)         // posted
		ask("/api/x", "", append(from("203.0.113.3", "8"), "Authorization", good, "Cookie", "SERVER=10.0.1.2:80")...)
		ask("/api/x", "", append(from("203.0.113.4", "9"), "Authorization", good, "X-Env", "k", "Cookie", "SERVER=10.0.1.3:80")...)
		ask("/api/x", "", append(from("203.0.113.5", "10"), "Authorization", good, "X-Env", "k")...) // sticks
		for i := range 4 {                                                                           // until over the limit
			ask("/api/x", "", append(from("203.0.113.9", fmt.Sprint(20+i)), "Authorization", good)...)
		}
	})
	return told
}

// A foreign handler changes no decision, wherever it stands in the natural
// order, and loses nothing of the record.
// TestBodyOfAHandlerEndsNoConnection has a handler of net/http give a request without a
// body one of its own, of which the server has not read the end when it answers. What
// interrupts the reading of that body is no business of the client's connection.
func TestBodyOfAHandlerEndsNoConnection(t *testing.T) {
	dialed := 0
	onBoth(t, func(s *site) http.Handler {
		s.origin("10.0.0.2:80", func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).EnableFullDuplex()
			w.WriteHeader(200)
		})
		proxy := s.proxy("10.0.0.2:80")
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, writer := io.Pipe()
			defer writer.Close()
			r = r.Clone(r.Context())
			r.Method, r.Body, r.ContentLength = "POST", body, -1
			proxy.ServeHTTP(w, r)
		})
	}, func(s *site) {
		dialed = 0
		tr := s.client.Transport.(*http.Transport)
		dial := tr.DialContext
		tr.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			dialed++
			return dial(ctx, network, addr)
		}
		for range 3 {
			require.Equal(s, 200, s.get("/").StatusCode)
			synctest.Wait()
		}
		if s.byByte {
			require.Equal(s, 1, dialed)
		}
	})
}

func TestSandwichDecidesTheSame(t *testing.T) {
	plain := make(map[string][]string)
	t.Run("native", func(t *testing.T) {
		for name, told := range decisions(t, -1, nil) {
			plain[frontOf(name)] = told
		}
	})
	require.Len(t, plain, 3)
	for _, name := range slices.Sorted(maps.Keys(allForeigners())) {
		t.Run(name, func(t *testing.T) {
			for at := range len(naturalOrder(&site{T: t}, nil, nil)) + 1 {
				t.Run(fmt.Sprint(at), func(t *testing.T) {
					for name, told := range decisions(t, at, allForeigners()[name]) {
						require.Equal(t, plain[frontOf(name)], told)
					}
				})
			}
		})
	}
}

func frontOf(name string) string { return name[strings.LastIndexByte(name, '/')+1:] }
