// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/ratelimit"
)

// R10: what belongs to the client's side (the tarpit, the whole time) is kept
// whatever the route; connect, queue, header and tunnel timeouts are those of
// the route that is taken.
func TestR10_Timeouts(t *testing.T) {
	onBoth(t, func(s *site) http.Handler {
		s.origin("10.1.0.1:80", func(w http.ResponseWriter, r *http.Request) { time.Sleep(7 * time.Second) })
		s.origin("10.1.0.2:80", tunnel)

		never := func(ctx context.Context, _, _ string) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() }
		connect := s.proxy("10.1.0.9:80")
		connect.Upstream = &Upstream{Dial: never, ConnectTimeout: 2 * time.Second}
		connect.Retry = Retry{Tries: -1}
		header, other := s.proxy("10.1.0.1:80"), s.proxy("10.1.0.1:80")
		header.HeaderTimeout = time.Second
		whole := s.proxy("10.1.0.1:80")
		whole.Timeout, whole.HeaderTimeout = 4*time.Second, time.Hour

		full := &balance.Pool{Queue: balance.Queue{Timeout: 3 * time.Second}}
		require.NoError(s, full.Set(balance.Endpoint{Addr: "10.1.0.1:80", MaxConns: 1}))
		busy, err := full.Acquire(t.Context(), balance.Request{})
		require.NoError(s, err)
		s.Cleanup(func() { busy.Done(balance.Outcome{}) })

		short, long := s.proxy("10.1.0.2:80"), s.proxy("10.1.0.2:80")
		short.StreamTimeout = 5 * time.Second
		return NewRouter(
			Route{Match: Path("/connect"), Handler: connect},
			Route{Match: Path("/queue"), Handler: s.proxyTo(full)},
			Route{Match: Path("/header"), Handler: header},
			Route{Match: Path("/whole"), Handler: whole},
			Route{Match: Path("/tunnel"), Handler: short},
			Route{Match: Path("/longtunnel"), Handler: long},
			Route{Match: Path("/tarpit"), Handler: &Tarpit{Delay: 6 * time.Second}},
			Route{Handler: other},
		)
	}, func(s *site) {
		for _, tt := range []struct {
			path   string
			status int
			after  float64
		}{{"/connect", 504, 2}, {"/queue", 503, 3}, {"/header", 504, 1}, {"/whole", 504, 4}, {"/tarpit", 500, 6}, {"/other", 200, 7}} {
			start := time.Now()
			require.Equal(s, tt.status, s.get(tt.path).StatusCode, tt.path)
			took := time.Since(start).Seconds()
			require.GreaterOrEqual(s, took, tt.after, tt.path)
			require.LessOrEqual(s, took, tt.after*1.25, "%s; deadlines are coarse by a quarter", tt.path)
		}
		require.InDelta(s, 5, s.silentTunnel("/tunnel", time.Minute).Seconds(), 1.25)
		require.Equal(s, time.Minute, s.silentTunnel("/longtunnel", time.Minute), "that of the other route is an hour")
		time.Sleep(10 * time.Second) // for handlers that nobody waits for
	})
}

// tunnel answers 101 and then says nothing until the other side closes.
func tunnel(w http.ResponseWriter, r *http.Request) {
	c, brw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer c.Close()
	_, _ = brw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	_ = brw.Flush()
	_, _ = c.Read(make([]byte, 1))
}

// silentTunnel returns how long a WebSocket with no byte in it stays open, up
// to limit.
func (s *site) silentTunnel(path string, limit time.Duration) time.Duration {
	c, err := s.net.DialContext(s.Context(), "tcp", "10.0.0.1:80")
	require.NoError(s, err)
	defer c.Close()
	_, err = c.Write([]byte("GET " + path + " HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"))
	require.NoError(s, err)
	start := time.Now()
	require.NoError(s, c.SetReadDeadline(start.Add(limit)))
	for buf := make([]byte, 1000); ; {
		if _, err := c.Read(buf); err != nil {
			return time.Since(start)
		}
	}
}

// R11: the retries are those of the route.
func TestR11_Retries(t *testing.T) {
	onBoth(t, func(s *site) http.Handler {
		down := []string{"10.1.0.5:80", "10.1.0.6:80", "10.1.0.7:80", "10.1.0.8:80", "10.1.0.9:80"}
		five, none, standard := s.proxy(down...), s.proxy(down...), s.proxy(down...)
		five.Retry, none.Retry = Retry{Tries: 5}, Retry{Tries: -1}
		tries := func(h http.Handler, want int) Handler {
			return HandlerFunc(func(x *Exchange) {
				Serve(h, x)
				require.Equal(s, want, x.Record.Tries)
			})
		}
		return NewRouter(
			Route{Match: Path("/five"), Handler: tries(five, 5)},
			Route{Match: Path("/none"), Handler: tries(none, 1)},
			Route{Handler: tries(standard, 2)},
		)
	}, func(s *site) {
		for _, path := range []string{"/five", "/none", "/"} {
			require.GreaterOrEqual(s, s.get(path).StatusCode, 500)
		}
	})
}

// Routes over the same servers, each with a policy and a limit of its own.
func TestRoutePolicyAndLimit(t *testing.T) {
	onBoth(t, func(s *site) http.Handler {
		pool := &balance.Pool{Policy: balance.RoundRobin{}}
		var list []balance.Endpoint
		for _, name := range []string{"a", "b", "c"} {
			list = append(list, balance.Endpoint{Name: name, Value: http.HandlerFunc(
				func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte(name)) })})
		}
		require.NoError(s, pool.Set(list...))
		return NewRouter(
			Route{Match: PathPrefix("/session"), Handler: &HashBy[string]{
				Key: ByHeader("X-A"), Next: &Proxy{Pool: pool.WithPolicy(balance.Rendezvous{})}}},
			Route{Match: PathPrefix("/login"), Handler: &Limit[netip.Addr]{
				Limiter: &ratelimit.Keyed[netip.Addr]{Law: ratelimit.GCRA{Rate: ratelimit.PerHour(1)}}, Next: &Proxy{Pool: pool}}},
			Route{Handler: &Proxy{Pool: pool}},
		)
	}, func(s *site) {
		home := s.get("/session", "X-A", "k").body
		seen := map[string]bool{}
		for range 6 {
			require.Equal(s, home, s.get("/session", "X-A", "k").body)
			seen[s.get("/").body] = true
		}
		require.Len(s, seen, 3)
		require.Equal(s, 200, s.get("/login").StatusCode)
		require.Equal(s, 429, s.get("/login").StatusCode)
		require.Equal(s, 200, s.get("/").StatusCode)
	})
}

// M5: who is within some networks is not told of, others are.
func TestM5_ForwardExcept(t *testing.T) {
	onBoth(t, func(s *site) http.Handler {
		s.origin("10.1.0.1:80", func(w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write([]byte(r.Header.Get("X-Forwarded-For")))
		})
		quiet := s.proxy("10.1.0.1:80")
		quiet.Forward = ForwardNone
		return NewRouter(
			Route{Match: RemoteIn(prefixes("10.9.9.8/31")), Handler: quiet},
			Route{Handler: s.proxy("10.1.0.1:80")},
		)
	}, func(s *site) {
		for from, want := range map[string]string{"10.9.9.8": "", "10.9.9.9": "", "10.9.9.7": "10.9.9.7"} {
			a, err := s.ask(s.from(from), "/", "", "X-Forwarded-For", "6.6.6.6")
			require.NoError(s, err)
			require.Equal(s, want, a.body, from)
		}
	})
}

// M8: of many fields of a name the last is captured, up to a length, before
// what is inside changes it.
func TestM8_Capture(t *testing.T) {
	var got []Captured
	onBoth(t, func(s *site) http.Handler {
		h := &Capture{
			Request: []string{"x-a", "X-None", "X-B"}, Reply: []string{"Set-Cookie"}, Max: 5,
			Next: &EditHeader{Request: []FieldEdit{DelField{Name: "X-A"}}, Next: text},
		}
		return HandlerFunc(func(x *Exchange) {
			h.ServeExchange(x)
			got = x.Record.Captured
			require.Equal(s, l4.Local, x.Record.Termination.Cause)
		})
	}, func(s *site) {
		for range 2 {
			s.get("/", "X-A", "first", "X-A", "second", "X-B", "b")
			require.Equal(s, []Captured{{"x-a", "secon", false}, {"X-B", "b", false}, {"Set-Cookie", "b=2", true}}, got)
		}
		s.get("/")
		require.Equal(s, []Captured{{"Set-Cookie", "b=2", true}}, got)
	})
}

// M10: which statuses are errors and which are failures the host says: each
// outcome has the status. (What counts for health is Observe.Classify.)
func TestM10_StatusSets(t *testing.T) {
	var errs, fails []int
	onBoth(t, func(s *site) http.Handler {
		errs, fails = nil, nil
		s.origin("10.1.0.1:80", func(w http.ResponseWriter, r *http.Request) {
			status, err := strconv.Atoi(r.URL.Path[1:])
			require.NoError(s, err)
			w.WriteHeader(status)
		})
		pool := &balance.Pool{OnOutcome: []func(*balance.Server, balance.Outcome){func(_ *balance.Server, o balance.Outcome) {
			switch {
			case o.Status == 220 || o.Status >= 400 && o.Status < 500:
				errs = append(errs, o.Status)
			case o.Status == 300:
			case o.Status > 549 && o.Status < 600:
				fails = append(fails, o.Status)
			}
		}}}
		require.NoError(s, pool.Set(balance.Endpoint{Addr: "10.1.0.1:80"}))
		return s.proxyTo(pool)
	}, func(s *site) {
		for _, status := range []int{220, 300, 400, 555} {
			require.Equal(s, status, s.get("/"+strconv.Itoa(status)).StatusCode)
		}
		require.Equal(s, []int{220, 400}, errs)
		require.Equal(s, []int{555}, fails)
	})
}
