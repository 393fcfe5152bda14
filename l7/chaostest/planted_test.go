// SPDX-License-Identifier: Apache-2.0

package chaostest

import (
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l7"
)

// A small proxy, to be spoilt.
type proxy struct {
	transport *http.Transport
	before    func(r *http.Request)
	after     func(token string, res *http.Response)
	addr      string
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	out := r.Clone(r.Context())
	out.RequestURI, out.URL.Scheme, out.URL.Host = "", "http", p.addr
	if p.before != nil {
		p.before(out)
	}
	res, err := p.transport.RoundTrip(out)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	defer res.Body.Close()
	if p.after != nil {
		p.after(r.Header.Get("X-Token"), res)
	}
	for k, v := range res.Header {
		w.Header()[k] = v
	}
	w.WriteHeader(res.StatusCode)
	if _, err := io.Copy(w, res.Body); err != nil {
		panic(http.ErrAbortHandler)
	}
}

// Each fault of a gateway is found, by what it is, and its story comes down to a few steps.
func TestPlantedFaultsAreFound(t *testing.T) {
	plain := func(spoil func(w *World, p *proxy)) func(w *World) Gateway {
		return func(w *World) Gateway {
			p := &proxy{transport: &http.Transport{DialContext: w.Dial, DisableCompression: true}, addr: w.Endpoints()[0].Addr}
			w.Cleanup(p.transport.CloseIdleConnections)
			spoil(w, p)
			return &http.Server{Handler: p}
		}
	}
	cases := map[string]struct {
		plan  Plan
		build func(w *World) Gateway
		want  string
		most  int // steps of the shortest story
	}{
		"nothing": {build: plain(func(*World, *proxy) {})},
		"somebody else's reply": {want: "got the reply to request", most: 3, build: plain(func(_ *World, p *proxy) {
			var mu sync.Mutex
			last := ""
			p.after = func(token string, res *http.Response) {
				mu.Lock()
				defer mu.Unlock()
				if last != "" {
					res.Header.Set("X-Token", last)
				}
				last = token
			}
		})},
		"bytes of another reply": {want: "got bytes of another reply", most: 2, build: plain(func(_ *World, p *proxy) {
			p.after = func(_ string, res *http.Response) {
				b, _ := io.ReadAll(res.Body)
				if len(b) > 100 {
					b[99]++
				}
				res.Body = io.NopCloser(strings.NewReader(string(b)))
			}
		})},
		"a reply that is cut and looks whole": {want: "as the whole reply", most: 2, build: plain(func(_ *World, p *proxy) {
			p.after = func(_ string, res *http.Response) {
				b, _ := io.ReadAll(io.LimitReader(res.Body, 1000))
				res.Header.Del("Content-Length")
				res.Body = io.NopCloser(strings.NewReader(string(b)))
			}
		})},
		"a request that is cut and looks whole": {want: "for the whole body of request", most: 2, build: plain(func(_ *World, p *proxy) {
			p.before = func(r *http.Request) {
				b, _ := io.ReadAll(io.LimitReader(r.Body, 1000))
				r.Body, r.ContentLength = io.NopCloser(strings.NewReader(string(b))), int64(len(b))
			}
		})},
		"POST twice": {want: "more than once", most: 2, build: plain(func(_ *World, p *proxy) {
			p.before = func(r *http.Request) {
				if r.Method == http.MethodPost && r.ContentLength == 0 {
					if res, err := p.transport.RoundTrip(r.Clone(r.Context())); err == nil {
						res.Body.Close()
					}
				}
			}
		})},
		"a hang": {want: "took", most: 2, build: plain(func(_ *World, p *proxy) {
			p.before = func(r *http.Request) {
				if r.Method == http.MethodDelete {
					select {
					case <-time.After(6 * time.Minute):
					case <-r.Context().Done():
					}
				}
			}
		})},
		"a lease that is left": {want: "in flight and 0 waiting", most: 2, build: plain(func(w *World, p *proxy) {
			pool := pool(w, func(*balance.Endpoint) {})
			p.before = func(r *http.Request) {
				if r.Method == http.MethodHead {
					_, _ = pool.Acquire(r.Context(), balance.Request{})
				}
			}
		})},
		"a limit that is exceeded": {want: "MaxConns is 1", most: 4, build: plain(func(w *World, p *proxy) {
			pool := pool(w, func(*balance.Endpoint) {})
			_ = pool.Set(w.Endpoints()[0])
			for range 2 {
				l, err := pool.Acquire(t.Context(), balance.Request{})
				require.NoError(t, err)
				w.Cleanup(func() { l.Done(balance.Outcome{}) })
			}
			e := w.Endpoints()[0]
			e.MaxConns = 1
			_ = pool.Set(e)
		})},
		"a request that is lost": {plan: Plan{NoLoss: true}, want: "has been well", most: 6, build: func(w *World) Gateway {
			p := pool(w, func(*balance.Endpoint) {})
			return &l7.Server{Logger: quiet, Handler: &l7.Proxy{Pool: p, Upstream: upstream(w, false), Retry: l7.Retry{Tries: -1}}}
		}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			p := c.plan.complete()
			for seed := range uint64(30) {
				steps := story(seed+1, p)
				if name != "a request that is lost" { // of one server, which the small proxy knows
					for i := range steps {
						if steps[i].kind != request {
							steps[i].who = 1
						}
					}
				}
				fails := func(s []step) bool { return strings.Contains(strings.Join(play(t, p, c.build, s), "\n"), c.want) }
				if c.want == "" {
					require.Empty(t, play(t, p, c.build, steps))
					continue
				}
				if fails(steps) {
					short := shrink(steps, shrinkTries, fails)
					require.LessOrEqual(t, len(short), c.most, tell(short))
					require.NotEmpty(t, tell(short))
					return
				}
			}
			require.Empty(t, c.want, "30 seeds have not found it")
		})
	}
}

// A seed always gives the same story.
func TestStoryIsItsSeeds(t *testing.T) {
	p := Plan{}.complete()
	require.Equal(t, story(7, p), story(7, p))
	require.NotEqual(t, story(7, p), story(8, p))
	kinds := map[kind]bool{}
	for seed := range uint64(20) {
		for _, s := range story(seed, p) {
			kinds[s.kind] = true
		}
	}
	require.Len(t, kinds, len(names))
}
