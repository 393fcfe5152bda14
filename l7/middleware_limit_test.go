// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"context"
	"net/http"
	"net/netip"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/ratelimit"
)

func TestLimit(t *testing.T) {
	var over []netip.Addr
	onBoth(t, func(s *site) http.Handler {
		over = nil
		return &Limit[netip.Addr]{
			Limiter: &ratelimit.Keyed[netip.Addr]{Law: ratelimit.GCRA{Rate: ratelimit.PerSecond(2)}},
			Policy:  "client", Window: time.Second,
			OnOver: func(_ *Exchange, a netip.Addr, _ ratelimit.Decision) { over = append(over, a) },
			Next:   text,
		}
	}, func(s *site) {
		t := s.T
		a := s.get("/")
		require.Equal(t, `"client";r=1;t=1`, a.Header.Get("RateLimit"))
		require.Equal(t, `"client";q=2;w=1`, a.Header.Get("RateLimit-Policy"))
		require.Equal(t, 200, s.get("/").StatusCode)
		a = s.get("/")
		require.Equal(t, 429, a.StatusCode)
		require.Equal(t, "1", a.Header.Get("Retry-After"))
		require.Equal(t, `"client";r=0;t=1`, a.Header.Get("RateLimit"))
		require.Equal(t, "429 Too Many Requests\n", a.body)
		require.Equal(t, []netip.Addr{netip.MustParseAddr("10.9.9.9")}, over)

		other, err := s.ask(s.from("10.9.9.8"), "/", "")
		require.NoError(t, err)
		require.Equal(t, 200, other.StatusCode)
		time.Sleep(time.Second)
		require.Equal(t, 200, s.get("/").StatusCode)
	})
}

func TestLimitWaits(t *testing.T) {
	onBoth(t, func(s *site) http.Handler {
		return &Limit[string]{
			Limiter: &ratelimit.Keyed[string]{Law: ratelimit.GCRA{Rate: ratelimit.PerSecond(1), MaxWait: time.Second}},
			Key:     ByHeader("X-Key"),
			Next:    text,
		}
	}, func(s *site) {
		t := s.T
		start := time.Now()
		s.get("/", "X-Key", "a")
		s.get("/", "X-Key", "a")
		require.Equal(t, time.Second, time.Since(start))
		for range 5 {
			s.get("/") // no key, no limit
		}
		require.Equal(t, time.Second, time.Since(start))
	})
}

// What failed before it reached a server is not charged.
func TestLimitRefunds(t *testing.T) {
	onBoth(t, func(s *site) http.Handler {
		return &Limit[netip.Addr]{
			Limiter: &ratelimit.Keyed[netip.Addr]{Law: ratelimit.GCRA{Rate: ratelimit.PerHour(2)}},
			Next: NewRouter(
				Route{Match: Path("/deny"), Handler: &Deny{}},
				Route{Handler: s.proxy()}, // nobody there
			),
		}
	}, func(s *site) {
		t := s.T
		for range 5 {
			require.Equal(t, 503, s.get("/").StatusCode)
		}
		require.Equal(t, 403, s.get("/deny").StatusCode)
		require.Equal(t, 403, s.get("/deny").StatusCode)
		require.Equal(t, 429, s.get("/deny").StatusCode, "a rule's no is charged")
	})
}

func TestLimitInFlight(t *testing.T) {
	onBoth(t, func(s *site) http.Handler {
		return &Limit[string]{
			Limiter: &ratelimit.Keyed[string]{Law: ratelimit.InFlight{Max: 1}},
			Key:     ByHost,
			Next: HandlerFunc(func(x *Exchange) {
				time.Sleep(time.Second)
				x.Respond(204, nil, "")
			}),
		}
	}, func(s *site) {
		t := s.T
		first := make(chan int)
		go func() {
			a, _ := s.ask(s.from("10.9.9.8"), "/", "")
			first <- a.StatusCode
		}()
		time.Sleep(500 * time.Millisecond)
		require.Equal(t, 429, s.get("/").StatusCode)
		require.Equal(t, 204, <-first)
		synctest.Wait() // the reply may be out before the handler is done
		require.Equal(t, 204, s.get("/").StatusCode)
	})
}

// What a server has worked for is charged, however that ended.
func TestLimitChargesWhatReachedAServer(t *testing.T) {
	onBoth(t, func(s *site) http.Handler {
		s.origin("10.0.1.1:80", func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) })
		p := s.proxy("10.0.1.1:80")
		p.Retry.Tries = 1
		return &Limit[netip.Addr]{
			Limiter: &ratelimit.Keyed[netip.Addr]{Law: ratelimit.GCRA{Rate: ratelimit.PerHour(2)}},
			Next:    p,
		}
	}, func(s *site) {
		for i, want := range []int{502, 502, 429} {
			require.Equal(s, want, s.get("/").StatusCode, "request %d", i)
		}
	})
}

// A client that leaves while it is held back gives its turn to others, and its request
// goes nowhere.
func TestLimitClientLeavesWhileItWaits(t *testing.T) {
	var served []string
	var records []Record
	onBoth(t, func(s *site) http.Handler {
		served, records = nil, nil
		limit := &Limit[string]{
			Limiter: &ratelimit.Keyed[string]{Law: ratelimit.GCRA{Rate: ratelimit.PerSecond(1), MaxWait: 5 * time.Second}},
			Key:     ByHost,
			Next: HandlerFunc(func(x *Exchange) {
				served = append(served, x.Path)
				x.Respond(200, nil, "ok")
			}),
		}
		return HandlerFunc(func(x *Exchange) {
			Serve(limit, x)
			records = append(records, x.Record)
		})
	}, func(s *site) {
		require.Equal(s, 200, s.get("/1").StatusCode)
		ctx, leave := context.WithCancel(s.Context())
		gone := make(chan error, 1)
		go func() {
			req, _ := http.NewRequestWithContext(ctx, "GET", "http://10.0.0.1/2", nil)
			_, err := s.from("10.9.9.8").Do(req)
			gone <- err
		}()
		time.Sleep(500 * time.Millisecond)
		leave()
		require.Error(s, <-gone)
		synctest.Wait()
		start := time.Now()
		require.Equal(s, 200, s.get("/3").StatusCode)
		require.Equal(s, 500*time.Millisecond, time.Since(start), "it takes the turn of the one that left")
		require.Equal(s, []string{"/1", "/3"}, served)
		require.Equal(s, "CQ", records[1].Termination.String())
	})
}

// A limit asks for its key once: what is inside may change what the key is made of,
// and the reply tells of the key that was charged.
func TestLimitAsksForItsKeyOnce(t *testing.T) {
	asked := 0
	onBoth(t, func(s *site) http.Handler {
		asked = 0
		return &Limit[string]{
			Limiter: &ratelimit.Keyed[string]{Law: ratelimit.GCRA{Rate: ratelimit.PerHour(3)}},
			Key: func(x *Exchange) (string, bool) {
				asked++
				return x.Path, true
			},
			Policy: "path",
			Next:   &Rewrite{AddPrefix: "/inner", Next: text},
		}
	}, func(s *site) {
		require.Equal(s, `"path";r=2;t=1200`, s.get("/a").Header.Get("RateLimit"))
		require.Equal(s, `"path";r=1;t=2400`, s.get("/a").Header.Get("RateLimit"))
		require.Equal(s, 2, asked)
	})
}

// A client that asks again as soon as it has the reply finds its charge given back:
// that is done before the reply goes out, which on HTTP/2 may be while the handler
// still runs.
func TestLimitRefundsBeforeTheReply(t *testing.T) {
	onBoth(t, func(s *site) http.Handler {
		limiter := &ratelimit.Keyed[string]{Law: ratelimit.GCRA{Rate: ratelimit.PerHour(2)}}
		limit := &Limit[string]{Limiter: limiter, Key: ByPath, Next: s.proxy()} // nobody there
		return HandlerFunc(func(x *Exchange) {
			x.OnReply(ReplyFunc(func(x *Exchange, r *Reply) { // it was there first, so it comes last
				r.Header.Set("Left", strconv.Itoa(limiter.Take(x.Path, 0).Remaining))
			}))
			Serve(limit, x)
		})
	}, func(s *site) {
		a := s.get("/")
		require.Equal(s, 503, a.StatusCode)
		require.Equal(s, "2", a.Header.Get("Left"))
	})
}
