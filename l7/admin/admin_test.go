// SPDX-License-Identifier: Apache-2.0

package admin_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock"
	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/health"
	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/l7/admin"
	"github.com/penstock-lb/penstock/ratelimit"
)

func TestLoadsAreShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		const page = "/server?pool=web&name=one"
		require.NotContains(t, w.do("GET", page, "", "Accept: text/html").Body.String(), "reports of its load")
		w.web.Server("one").ReportLoad(balance.Load{Name: "queue<b>", Value: 3.5})
		time.Sleep(2 * time.Second)
		require.Contains(t, w.do("GET", page, "", "Accept: text/html").Body.String(), "<li>queue&lt;b&gt;: 3.5 <small>2s ago</small></li>")
		var v admin.Snapshot
		require.NoError(t, json.Unmarshal(w.do("GET", "/state", "").Body.Bytes(), &v))
		var loads []admin.LoadView
		for _, p := range v.Pools {
			for _, s := range p.Servers {
				loads = append(loads, s.Loads...)
			}
		}
		require.Len(t, loads, 1)
		require.Equal(t, "queue<b>", loads[0].Name)
		require.WithinDuration(t, time.Now().Add(-2*time.Second), loads[0].At, 0)
	})
}

func TestActions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		checks, outliers := &stub{}, &stub{}
		w.h.Checks, w.h.Outliers = []admin.Prober{checks}, []admin.Returner{outliers}
		var told []admin.Action
		w.h.OnAction = func(a admin.Action) { told = append(told, a) }
		one := w.web.Server("one")
		state := func() balance.Explanation { return w.web.Explain()[0] }
		ok := func(values ...string) admin.ServerView {
			t.Helper()
			rec := w.act(values...)
			require.Equal(t, 200, rec.Code, rec.Body)
			var v admin.ServerView
			require.NoError(t, json.Unmarshal(rec.Body.Bytes(), &v))
			return v
		}
		v := ok("action", "drain", "reason", "  deploy\nof \x1b[31m2.4 ")
		require.Equal(t, balance.StateDrain, one.State())
		require.Equal(t, "drain", v.State)
		require.Equal(t, "drain: deploy of  [31m2.4", state().Reason, "one line, without control characters")
		require.Equal(t, "deploy of  [31m2.4", v.LastAction.Reason)
		ok("action", "maint")
		require.Equal(t, balance.StateMaint, one.State())
		ok("action", "ready", "reason", "done")
		require.Equal(t, balance.StateUp, one.State())
		require.Equal(t, "done", state().Operator.Reason)
		ok("action", "weight", "value", "0")
		require.Equal(t, balance.StateUnweighted, one.State())
		ok("action", "weight", "value", "1")
		ok("action", "maxconns", "value", "7")
		require.Equal(t, 7, state().Limit)
		ok("action", "cut")
		ok("action", "probe")
		require.Equal(t, "one", checks.probed)
		ok("action", "return")
		require.Equal(t, "one: test", outliers.returned)
		require.Len(t, told, 9)
		require.Equal(t, "drain", told[0].Do)
		require.NotNil(t, told[0].Request)

		for status, values := range map[int][][]string{
			400: {{"action", "nothing"}, {"action", "drain", "reason", " \n "}, {"action", "weight", "value", "x"}, {"action", "weight", "value", "-1"}, {"action", "drain", "deadline", "-1s"}},
			404: {{"action", "drain", "server", "four"}, {"action", "drain", "pool", "other"}},
			409: {{"action", "probe", "server", "two"}, {"action", "return", "server", "two"}},
		} {
			for _, v := range values {
				require.Equal(t, status, w.act(v...).Code, v)
			}
		}
		require.Error(t, told[len(told)-1].Err, "what failed is told too")
	})
}

func TestForgetKey(t *testing.T) {
	w := newWorld(t, 3)
	client := netip.MustParseAddr("192.0.2.1")
	w.limit.Take(client, 1)
	require.False(t, w.limit.Take(client, 1).OK)
	forget := func(limit, key string) int {
		return w.do("POST", "/action", url.Values{"action": {"forget"}, "limit": {limit}, "key": {key}, "reason": {"asked"}}.Encode()).Code
	}
	require.Equal(t, 204, forget("per client", "192.0.2.1"))
	require.True(t, w.limit.Take(client, 1).OK)
	require.Equal(t, 400, forget("per client", "somebody"))
	require.Equal(t, 404, forget("other", "192.0.2.1"))
	w.h.Limits["one for all"] = &ratelimit.Limiter{Law: ratelimit.GCRA{Rate: ratelimit.PerSecond(1)}}
	require.Equal(t, 409, forget("one for all", "x"))
	byNumber := &ratelimit.Keyed[int]{Law: ratelimit.GCRA{Rate: ratelimit.PerSecond(1)}}
	byNumber.Take(7, 1)
	w.h.Limits["number"] = admin.Keys[int]{Keyed: byNumber, Parse: func(s string) (n int, err error) { _, err = fmt.Sscan(s, &n); return n, err }}
	require.Equal(t, 204, forget("number", "7"))
	require.True(t, byNumber.Take(7, 1).OK)
}

// TestDrainDeadline cuts what is left, unless somebody changes his mind.
func TestDrainDeadline(t *testing.T) {
	for _, ready := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 3)
			c := &conn{}
			w.web.Server("one").Attach(c)
			require.Equal(t, 200, w.act("action", "drain", "deadline", "30s").Code)
			time.Sleep(29 * time.Second)
			if ready {
				require.Equal(t, 200, w.act("action", "ready").Code)
			}
			require.Empty(t, c.cut.Load())
			time.Sleep(2 * time.Second)
			synctest.Wait()
			if ready {
				require.Nil(t, c.cut.Load())
			} else {
				require.Equal(t, "drain deadline: test", c.cut.Load())
			}
		})
	}
}

type conn struct{ cut atomic.Value }

func (c *conn) Cut(live bool, reason string) {
	if live {
		c.cut.Store(reason)
	}
}

func TestWaitUntilDrained(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		w.hold("one", 1)
		start := time.Now()
		rec := w.act("action", "drain", "wait", "drained", "timeout", "10s")
		require.Equal(t, 504, rec.Code)
		require.Equal(t, 10*time.Second, time.Since(start))
		require.Contains(t, rec.Body.String(), `"inFlight":1`)
		time.AfterFunc(3*time.Second, func() { w.leave[0].Done(balance.Outcome{}) })
		start = time.Now()
		rec = w.do("GET", "/server?pool=web&name=one&wait=drained", "")
		require.Equal(t, 200, rec.Code)
		require.Equal(t, 3*time.Second, time.Since(start).Truncate(time.Second))
		require.Equal(t, 400, w.do("GET", "/server?pool=web&name=one&wait=rain", "").Code)
		require.Equal(t, 400, w.do("GET", "/server?pool=web&name=one&wait=up&timeout=1y", "").Code)
	})
}

// TestNoActionWithoutAllow, none by GET, none across sites.
func TestNoActionWithoutAllow(t *testing.T) {
	w := newWorld(t, 3)
	one := w.web.Server("one")
	const form = "pool=web&server=one&action=maint&reason=x"
	refused := func(status int, method, target, form string, edits ...string) {
		t.Helper()
		rec := w.do(method, target, form, edits...)
		require.Equal(t, status, rec.Code, rec.Body)
		require.Equal(t, balance.StateUp, one.State())
	}
	for _, method := range []string{"GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"} {
		refused(405, method, "/action?"+form, "")
	}
	refused(405, "GET", "/action?"+form, form)
	refused(405, "POST", "/?"+form, form)
	refused(400, "POST", "/action?"+form, "", "Content-Type: application/x-www-form-urlencoded") // what is in the address does not count
	refused(400, "POST", "/action", form, "Content-Type: text/plain")
	refused(403, "POST", "/action", form, "Sec-Fetch-Site: cross-site")
	refused(403, "POST", "/action", form, "Sec-Fetch-Site: same-site")
	refused(403, "POST", "/action", form, "Origin: http://evil.test")
	refused(403, "POST", "/action", form, "Origin: null")
	refused(400, "POST", "/action", form+"&pad="+strings.Repeat("x", 1<<17))
	w.h.Allow = func(*http.Request) bool { return false }
	refused(403, "POST", "/action", form)
	w.h.Allow = nil
	refused(403, "POST", "/action", form)
	require.NotContains(t, w.do("GET", "/server?pool=web&name=one", "", "Accept: text/html").Body.String(), "<form method=\"post\"", "what is off is not offered")
	w.h.Allow = func(*http.Request) bool { return true }
	require.Equal(t, 303, w.do("POST", "/action", form, "Accept: text/html", "Sec-Fetch-Site: same-origin").Code)
	require.Equal(t, balance.StateMaint, one.State())
}

func TestLocal(t *testing.T) {
	for _, test := range []struct {
		remote, host string
		want         bool
	}{
		{"127.0.0.1:1", "127.0.0.1:9090", true}, {"[::1]:1", "[::1]:9090", true}, {"[::1]:1", "[::1]", true}, {"127.0.0.1:1", "localhost", true},
		{"[::ffff:127.0.0.1]:1", "localhost:1", true},
		{"127.0.0.1:1", "evil.test", false}, {"127.0.0.1:1", "localhost.evil.test", false}, {"127.0.0.1:1", "192.0.2.1", false}, {"127.0.0.1:1", "", false},
		{"192.0.2.1:1", "localhost", false}, {"@", "localhost", false},
	} {
		require.Equal(t, test.want, admin.Local(&http.Request{RemoteAddr: test.remote, Host: test.host}), test)
	}
}

// TestNamesFromOutsideAreText: nothing that comes from outside is HTML, or leaves its
// place in a script, an address or a stream.
func TestNamesFromOutsideAreText(t *testing.T) {
	const evil = `</script><script>alert(1)</script>"'><img src=x onerror=alert(2)>` + "\r\n\ndata: x\n\n"
	w := newWorld(t, 3)
	w.h.Title = evil
	w.web.Name = evil
	require.NoError(t, w.web.Set(balance.Endpoint{Name: evil, Addr: "a:1", Zone: evil}))
	w.web.Server(evil).Report(balance.Check, balance.Down, evil)
	w.h.Limits[evil] = w.limit
	w.h.Servers[evil] = &l4.Server{}
	w.h.Routers[evil] = l7.NewRouter(l7.Route{Name: evil, Handler: &l7.Deny{}})
	w.h.Checks = []admin.Prober{&stub{err: errors.New(evil)}}
	rec := w.act("pool", evil, "server", evil, "action", "drain", "reason", evil)
	require.Equal(t, 200, rec.Code)
	q := url.Values{"pool": {evil}, "name": {evil}, "q": {evil}, "sort": {evil}, "state": {evil}, "page": {evil}}.Encode()
	for _, target := range []string{"/", "/?q=" + url.QueryEscape(evil), "/server?" + q, "/server?name=none&pool=" + url.QueryEscape(evil)} {
		body := w.do("GET", target, "", "Accept: text/html").Body.String()
		require.NotContains(t, body, "<script>", target)
		require.NotContains(t, body, "<img", target)
		require.NotContains(t, body, `"'><`, target)
	}
	rec = w.do("GET", "/", "", "Accept: text/html")
	require.Contains(t, rec.Header().Get("Content-Security-Policy"), "default-src 'none'")
	ctx, cancel := context.WithTimeout(t.Context(), 400*time.Millisecond)
	defer cancel()
	r := httptest.NewRequestWithContext(ctx, "GET", "/events", nil)
	out := httptest.NewRecorder()
	w.h.ServeHTTP(out, r)
	for line := range strings.Lines(out.Body.String()) {
		require.True(t, line == "\n" || strings.HasPrefix(line, `data: "`), line)
	}
}

func TestStreamsAreBounded(t *testing.T) {
	w := newWorld(t, 3)
	w.h.Streams, w.h.Interval = 2, 50*time.Millisecond
	srv := httptest.NewServer(w.h)
	defer srv.Close()
	defer w.h.Close()
	read := func(n int) {
		resp, err := http.Get(srv.URL + "/events")
		require.NoError(t, err)
		t.Cleanup(func() { resp.Body.Close() })
		require.Equal(t, 200, resp.StatusCode)
		lines := bufio.NewScanner(resp.Body)
		lines.Buffer(nil, 1<<20)
		for range 2 * n {
			require.True(t, lines.Scan())
		}
	}
	read(3)
	read(3)
	resp, err := http.Get(srv.URL + "/events")
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, 503, resp.StatusCode)
	require.NotEmpty(t, resp.Header.Get("Retry-After"))
	require.Equal(t, 503, w.do("GET", "/server?pool=web&name=one&wait=down", "").Code, "waits count too")
	require.Equal(t, 200, w.do("GET", "/", "").Code, "the page goes on")
}

// TestManyViewersShareOneReading counts how often figures are read.
func TestManyViewersShareOneReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		var reads atomic.Int64
		w.h.Checks = []admin.Prober{counting{&reads}}
		w.do("GET", "/", "")
		time.Sleep(time.Second) // what there is is old
		before := reads.Load()
		var all sync.WaitGroup
		for i := range 10_000 {
			all.Go(func() {
				if rec := w.do("GET", "/?q="+fmt.Sprint(i%60), ""); rec.Code != 200 {
					t.Error(rec.Code)
				}
			})
		}
		all.Wait()
		require.Equal(t, before+1, reads.Load())
	})
}

type counting struct{ n *atomic.Int64 }

func (c counting) Probed(*balance.Server) (last time.Time, took time.Duration, next time.Time, err error) {
	c.n.Add(1)
	time.Sleep(10 * time.Millisecond) // so that all of them meet
	return
}
func (c counting) ProbeNow(*balance.Server) bool { return false }

// TestProberPanicHoldsUpNobody: the next one who looks tries again.
func TestProberPanicHoldsUpNobody(t *testing.T) {
	w := newWorld(t, 1)
	broken := true
	w.h.Checks = []admin.Prober{panics{&broken}}
	require.Panics(t, func() { w.do("GET", "/state", "") })
	broken = false
	require.Equal(t, 200, w.do("GET", "/state", "").Code)
}

type panics struct{ now *bool }

func (p panics) Probed(*balance.Server) (last time.Time, took time.Duration, next time.Time, err error) {
	if *p.now {
		panic("oops")
	}
	return
}
func (p panics) ProbeNow(*balance.Server) bool { return false }

func snapshot(t *testing.T, w *world) admin.Snapshot {
	t.Helper()
	rec := w.do("GET", "/deep/below/state", "")
	require.Equal(t, 200, rec.Code)
	var s admin.Snapshot
	d := json.NewDecoder(rec.Body)
	d.DisallowUnknownFields()
	require.NoError(t, d.Decode(&s))
	return s
}

func TestStateSaysWhatIsWrong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 5)
		require.Empty(t, snapshot(t, w).Problems)
		w.work(10)
		w.trouble()
		time.Sleep(time.Second)
		synctest.Wait()
		s := snapshot(t, w)
		var got []string
		for _, p := range s.Problems {
			got = append(got, strings.TrimSpace(p.Level+" "+p.Pool+p.Limit+" "+p.Server+" "+p.What))
		}
		require.Equal(t, []string{"bad web one down", "warn web two ejected", "warn reports  queue", "warn reports big at its limit", "warn per client  refuses", "note web three draining"}, got)
		require.InDelta(t, 50, s.Pools[0].Rate, 3)
		require.InDelta(t, 0.0025, s.Pools[0].P50, 0.002)
		require.Equal(t, 5, s.Pools[1].Queued)
		require.InDelta(t, 19, s.Limits[0].RefuseRate, 1)
		w.h.Close()
		for i := range w.leave {
			w.leave[i].Done(balance.Outcome{})
		}
		_ = w.h.Pools[1].Set()
	})
}

func TestExplain(t *testing.T) {
	w := newWorld(t, 3)
	w.web.Server("one").Report(balance.Check, balance.Down, "refused")
	ask := func(q string) (v []admin.ExplainView) {
		t.Helper()
		rec := w.do("GET", "/explain?"+q, "")
		require.Equal(t, 200, rec.Code, rec.Body)
		require.NoError(t, json.Unmarshal(rec.Body.Bytes(), &v))
		return v
	}
	v := ask("url=http://a.test/api/x&client=192.0.2.1&header=" + url.QueryEscape("X-A: b"))[0]
	require.Equal(t, "api", v.Taken)
	require.Equal(t, []admin.LimitVerdict{{Policy: "perClient", Known: true, OK: true, Remaining: 1}}, v.Limits)
	require.Equal(t, admin.ServerVerdict{Name: "one", State: "down", Reason: "check says down: refused"}, v.Pools[0].Servers[0])
	require.True(t, v.Pools[0].Servers[1].Used)
	w.limit.Take(netip.MustParseAddr("192.0.2.1"), 1)
	v = ask("url=/api&client=192.0.2.1")[0]
	require.False(t, v.Limits[0].OK)
	require.Positive(t, v.Limits[0].Reset)
	v = ask("method=POST&url=/other")[0]
	require.Empty(t, v.Taken)
	require.Equal(t, "Method(GET)", v.Routes[1].Why)
	require.Equal(t, 400, w.do("GET", "/explain?url=%25zz", "").Code)
	require.Equal(t, 400, w.do("GET", "/explain?header=x", "").Code)
}

func TestCheckNamesMistakes(t *testing.T) {
	h := &admin.Handler{Interval: -1, Pools: []*balance.Pool{{Name: "a"}, {Name: "a"}, nil}}
	err := h.Check()
	for _, field := range []string{"Handler.Interval", "Handler.Pools[1].Name", "Handler.Pools[2]"} {
		require.ErrorContains(t, err, field)
	}
	var e *penstock.ConfigError
	require.ErrorAs(t, err, &e)
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequest("GET", "/", nil))
	require.Equal(t, 500, rec.Code)
}

func BenchmarkState(b *testing.B) {
	w := newWorld(b, 3000)
	w.h.Interval = 1 // each one is new
	w.work(2)
	w.do("GET", "/state", "")
	b.Run("state", func(b *testing.B) {
		for b.Loop() {
			w.do("GET", "/state", "")
		}
	})
	b.Run("page", func(b *testing.B) {
		for b.Loop() {
			w.do("GET", "/", "")
		}
	})
}

// What goes on at once, and how fast bytes go, are limits too.
func TestLimitsOfPlacesAndBytes(t *testing.T) {
	w := newWorld(t, 3)
	places := &ratelimit.Concurrency{Max: 7, MaxQueue: 1}
	bytes := &ratelimit.Bandwidth{BytesPerSecond: 1 << 20}
	w.h.Limits["at once"], w.h.Limits["bytes"] = places, bytes
	require.True(t, places.TryAcquire())
	bytes.Reserve(1 << 20)
	bytes.Reserve(1)
	var s admin.Snapshot
	require.NoError(t, json.Unmarshal(w.do("GET", "/state", "").Body.Bytes(), &s))
	require.Equal(t, "at once", s.Limits[0].Name)
	require.Equal(t, []int{1, 7, 0}, []int{s.Limits[0].Held, s.Limits[0].Places, s.Limits[0].Queued})
	require.Equal(t, []uint64{1<<20 + 1, 1}, []uint64{s.Limits[1].Bytes, s.Limits[1].Delayed})
	page := w.do("GET", "/", "").Body.String()
	require.Contains(t, page, "1 of 7")
	require.Contains(t, page, "0 B/s")
}

// What goes wrong now and then stays a problem until it has not for a minute: the rates
// of one second would show it to those only who look at the right one.
func TestTroubleStaysForAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		what := func() (list []string) {
			for _, p := range snapshot(t, w).Problems {
				list = append(list, p.What+": "+p.Why)
			}
			return list
		}
		require.Empty(t, what())
		client := netip.MustParseAddr("192.0.2.1")
		w.limit.Take(client, 1)
		w.limit.Take(client, 1)
		for i := range 30 {
			l, err := w.web.Acquire(t.Context(), balance.Request{Prefer: "one"})
			require.NoError(t, err)
			o := balance.Outcome{}
			if i%10 == 0 {
				o.Class = balance.StatusError
			}
			l.Done(o)
		}
		for i := range 24 {
			time.Sleep(time.Second)
			refused := "refused 1 in the last minute, admits 0/s now"
			if i == 0 {
				refused = "refused 1.0/s, admits 1.0/s now"
			}
			require.Equal(t, []string{"errors: 10 % of its work has failed in the last minute", "refuses: " + refused}, what(), i)
		}
		time.Sleep(40 * time.Second)
		what()
		time.Sleep(31 * time.Second)
		require.Empty(t, what())
		w.limit.Take(client, 1)
		w.limit.Take(client, 1)
		time.Sleep(time.Hour)
		require.Empty(t, what(), "when it was is not known")
	})
}

// A front of either layer says that it has as many connections as it may.
func TestFullFrontIsAProblem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := l4test.NewNetwork()
		done := make(chan struct{}, 2)
		requests := &l7.Server{MaxConns: 1, Handler: &l7.Deny{}, Logger: quiet}
		streams := &l4.Server{MaxConns: 1, Handler: l4.HandlerFunc(func(ctx context.Context, _ net.Conn) error { <-ctx.Done(); return nil }), Logger: quiet}
		for addr, serve := range map[string]func(net.Listener) error{"10.0.0.1:80": requests.Serve, "10.0.0.1:81": streams.Serve} {
			ln, err := n.Listen("tcp", addr)
			require.NoError(t, err)
			go func() { _ = serve(ln); done <- struct{}{} }()
		}
		w := newWorld(t, 1)
		w.h.Servers = map[string]admin.Server{"a": requests, "b": streams}
		require.Empty(t, snapshot(t, w).Problems)
		for _, addr := range []string{"10.0.0.1:80", "10.0.0.1:81"} {
			c, err := n.DialContext(t.Context(), "tcp", addr)
			require.NoError(t, err)
			defer c.Close()
		}
		time.Sleep(time.Second)
		s := snapshot(t, w)
		require.Equal(t, []admin.Problem{
			{Level: "warn", What: "full", Why: "a has reached its limit of connections"},
			{Level: "warn", What: "full", Why: "b has reached its limit of connections"},
		}, s.Problems)
		require.EqualValues(t, 1, s.Fronts[0].AtLimit)
		require.NoError(t, requests.Close())
		require.NoError(t, streams.Close())
		<-done
		<-done
	})
}

// TestReadyWaitsForAProbe pins that a server which comes back from maintenance is not taken
// for up because it was up before: a deploy script would go on to the next server.
func TestReadyWaitsForAProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		var broken atomic.Bool
		checker := &health.Checker{Pools: []*balance.Pool{w.web}, Interval: time.Minute, Probe: health.Func(func(context.Context, balance.Endpoint) error {
			time.Sleep(time.Second)
			if broken.Load() {
				return errors.New("broken")
			}
			return nil
		})}
		w.h.Checks = []admin.Prober{checker}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- checker.Run(ctx) }()
		time.Sleep(10 * time.Second)
		for _, b := range []bool{false, true} {
			require.Equal(t, 200, w.act("action", "maint", "wait", "drained").Code)
			time.Sleep(3 * time.Minute)
			broken.Store(b)
			start := time.Now()
			rec := w.act("action", "ready", "wait", "up", "timeout", "30s")
			if b {
				require.Equal(t, 504, rec.Code)
				continue
			}
			require.Equal(t, 200, rec.Code)
			require.Equal(t, time.Second, time.Since(start).Truncate(time.Second))
		}
		require.Equal(t, 200, w.do("GET", "/server?pool=web&name=two&wait=up", "").Code, "without an action the state alone counts")
		cancel()
		<-ended
	})
}
