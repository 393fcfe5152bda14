// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/l7/l7test"
)

// A record as slog writes it: what is not known is left out, and what the
// servers or the gateway did wrong is a warning.
func TestLogTo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log := l7.LogTo(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}})))
		byteFront(t, func(n *l4test.Network) http.Handler {
			p := newProxy(n, one)
			p.Pool.Name = "web"
			return p
		}, new(l7.Server), func(t *testing.T, f *front) {
			origin(t, f.network, one, l7test.Script{l7test.Wait(2 * time.Second), l7test.Reply(200, "hello")}, l7test.Script{l7test.Stall()})
			c := f.dial(t)
			c.send("POST /x?q HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody").reply("POST")
			c.send(getA).reply("GET")
			for _, r := range f.done() {
				if r.Local.String() != c.RemoteAddr().String() {
					t.Errorf("record of %v; want %v", r.Local, c.RemoteAddr())
				}
				log(&r)
			}
			port := c.LocalAddr().String()
			want := "level=INFO msg=request request.method=POST request.host=a request.path=/x request.status=200 request.remote=" + port +
				" request.pool=web request.server=10.0.0.1:80 request.tries=1 request.in=4 request.out=5 request.assigned=1ns request.connected=1ns request.first_byte=2s request.total=2s request.end=-- request.front=byte\n" +
				"level=WARN msg=request request.method=GET request.host=a request.path=/ request.status=504 request.remote=" + port +
				" request.pool=web request.server=10.0.0.1:80 request.tries=1 request.in=0 request.out=20 request.assigned=1ns request.connected=1ns request.first_byte=0s request.total=TOTAL request.end=sH request.front=byte request.error="
			want = strings.Replace(want, "TOTAL", f.last(t).Total.String(), 1)
			if got := out.String(); !strings.HasPrefix(got, want) {
				t.Errorf("log:\n%s\nwant:\n%s", got, want)
			}
		})
	})
}

// The limits of the pool are a circuit breaker: a request that finds its
// servers full waits in the queue, and is told 503 when that is full, or when
// the wait is over.
func TestPoolLimits(t *testing.T) {
	for _, tc := range []struct {
		name  string
		queue balance.Queue
		want  []int // statuses, of three requests at once
		after time.Duration
		end   l4.Termination // of the last one
	}{
		{"no queue", balance.Queue{Size: -1}, []int{200, 503, 503}, 0, l4.Termination{Cause: l4.Resource, Phase: l4.PhaseQueue}},
		{"full", balance.Queue{Size: 1, Timeout: time.Minute}, []int{200, 200, 503}, 0, l4.Termination{Cause: l4.Resource, Phase: l4.PhaseQueue}},
		{"late", balance.Queue{Size: 10, Timeout: 12 * time.Second}, []int{200, 200, 503}, 12 * time.Second, l4.Termination{Cause: l4.ServerTimeout, Phase: l4.PhaseQueue}},
		{"enough", balance.Queue{Size: 10, Timeout: time.Minute}, []int{200, 200, 200}, 30 * time.Second, l4.Termination{}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			fronts(t, func(n *l4test.Network) http.Handler {
				pool := &balance.Pool{Queue: tc.queue}
				if err := pool.Set(balance.Endpoint{Addr: one, MaxConns: 1}); err != nil {
					panic(err)
				}
				return &l7.Proxy{Pool: pool, Upstream: &l7.Upstream{Dial: n.DialContext}}
			}, func(t *testing.T, f *front) {
				serveHTTP(t, f.network, one, func(w http.ResponseWriter, r *http.Request) { time.Sleep(10 * time.Second) })
				var clients []*rawConn
				for range tc.want {
					clients = append(clients, f.dial(t).send(getA))
					synctest.Wait()
				}
				for i, c := range clients {
					res, _, err := c.reply("GET")
					if err != nil || res.StatusCode != tc.want[i] {
						t.Fatalf("request %d: %v, %v; want %d", i, res, err, tc.want[i])
					}
				}
				for _, r := range f.done() {
					if r.Status == 503 || tc.after == 30*time.Second && r.Assigned == 20*time.Second {
						if r.Termination != tc.end || f.server != nil && r.Total != tc.after {
							t.Errorf("record %v after %v; want %v, %v", r.Termination, r.Total, tc.end, tc.after)
						}
					}
				}
			})
		})
	}
}

// A member of the pool may be a handler of this program.
func TestProxyLocalMember(t *testing.T) {
	var outcomes []balance.Outcome
	fronts(t, func(n *l4test.Network) http.Handler {
		outcomes = nil
		pool := &balance.Pool{Policy: balance.RoundRobin{}, Seed: 1, OnOutcome: []func(*balance.Server, balance.Outcome){
			func(_ *balance.Server, o balance.Outcome) { outcomes = append(outcomes, o) },
		}}
		local := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			if len(b) == 0 {
				w.WriteHeader(500)
			}
			fmt.Fprintf(w, "local %s %s", r.Header.Get("X-A"), b)
		})
		if err := pool.Set(balance.Endpoint{Name: "here", Value: local}); err != nil {
			panic(err)
		}
		return &l7.Proxy{Pool: pool}
	}, func(t *testing.T, f *front) {
		c := f.dial(t)
		c.send("POST / HTTP/1.1\r\nHost: a\r\nX-A: b\r\nContent-Length: 4\r\n\r\nbody").wantReply(200, "local b body")
		if r := f.last(t); r.Server != "here" || r.Tries != 1 || r.Status != 200 {
			t.Errorf("record = %+v", r)
		}
		c.send(getA).wantReply(500, "local  ")
		synctest.Wait()
		if len(outcomes) != 2 || outcomes[0].Class != balance.OK || outcomes[1].Class != balance.StatusError {
			t.Errorf("outcomes = %+v", outcomes)
		}
	})
}

// A Mirror copies the share of the requests that it is told to.
func TestMirrorShare(t *testing.T) {
	var copies atomic.Int32
	withSite := func(n *l4test.Network) http.Handler {
		p := newProxy(n, one)
		p.Mirror = &l7.Mirror{Share: 0.25, MaxInFlight: -1, To: l7.HandlerFunc(func(x *l7.Exchange) { copies.Add(1); x.Respond(200, nil, "") })}
		return p
	}
	synctest.Test(t, func(t *testing.T) {
		byteFront(t, withSite, new(l7.Server), func(t *testing.T, f *front) {
			origin(t, f.network, one)
			c := f.dial(t)
			for range 2000 {
				c.send(getA).wantReply(200, "ok")
			}
			synctest.Wait()
			if n := copies.Load(); n < 400 || n > 600 { // 500, and five standard deviations
				t.Errorf("%d copies of 2000 requests; want about 500", n)
			}
		})
	})
}

// The connections of a burst are kept for the next one, however many.
func TestUpstreamKeepsTheConnectionsOfABurst(t *testing.T) {
	withTransport(t, []string{one}, func(t *testing.T, n *l4test.Network, tr *l7.Transport) {
		const burst = 700
		var c counter
		o := startOrigin(t, n, one, nil, false, c.ServeHTTP)
		for range 3 {
			var wg sync.WaitGroup
			for range burst {
				wg.Go(func() {
					if got := fetch(t, tr, "http://a/?wait=1s"); !strings.HasPrefix(got, "200 ") {
						t.Error(got)
					}
				})
			}
			wg.Wait()
			synctest.Wait()
			if o.open() != burst {
				t.Errorf("%d connections are open; want %d", o.open(), burst)
			}
		}
		for _, st := range tr.Upstream.Stats() {
			if st.Dials != burst {
				t.Errorf("%d connections were opened; want %d", st.Dials, burst)
			}
		}
		time.Sleep(46 * time.Second)
		synctest.Wait()
		if o.open() != 0 {
			t.Errorf("%d connections are open after IdleTimeout; want none", o.open())
		}
	})
}

// No more idle connections are kept than MaxIdle says, those used last, and
// none for longer than IdleTimeout.
func TestUpstreamIdle(t *testing.T) {
	withTransport(t, []string{one}, func(t *testing.T, n *l4test.Network, tr *l7.Transport) {
		tr.Upstream.MaxIdle, tr.Upstream.IdleTimeout = 2, 10*time.Second
		var c counter
		o := startOrigin(t, n, one, nil, false, c.ServeHTTP)
		errs := make(chan error, 5)
		for range 5 {
			go func() {
				if got := fetch(t, tr, "http://a/?wait=1s"); !strings.HasPrefix(got, "200 ") {
					errs <- errors.New(got)
				}
				errs <- nil
			}()
		}
		for range 5 {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
		synctest.Wait()
		if o.open() != 2 {
			t.Errorf("%d connections are open; want 2", o.open())
		}
		time.Sleep(16 * time.Second)
		synctest.Wait()
		if o.open() != 0 {
			t.Errorf("%d connections are open after IdleTimeout; want none", o.open())
		}
	})
}
