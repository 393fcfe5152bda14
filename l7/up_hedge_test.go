// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"context"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
)

// A hedge goes to another server when the first one is slow, and the slow one
// learns that nobody waits.
func TestHedge(t *testing.T) {
	for _, slow := range []time.Duration{0, 100 * time.Millisecond, time.Hour} {
		var left atomic.Int32
		fronts(t, func(n *l4test.Network) http.Handler {
			left.Store(0)
			p := newProxy(n, one, two)
			p.Hedge.Delay = 50 * time.Millisecond
			return p
		}, func(t *testing.T, f *front) {
			serveHTTP(t, f.network, one, func(w http.ResponseWriter, r *http.Request) {
				select {
				case <-time.After(slow):
					io.WriteString(w, "one")
				case <-r.Context().Done():
					left.Add(1)
				}
			})
			serveHTTP(t, f.network, two, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "two") })
			start := time.Now()
			_, body := f.get(t, "/")
			want, d, tries := "two", 50*time.Millisecond, 2
			if slow == 0 {
				want, d, tries = "one", 0, 1
			}
			if body != want || time.Since(start) != d {
				t.Errorf("%q after %v; want %q after %v", body, time.Since(start), want, d)
			}
			if r := f.last(t); r.Tries != tries {
				t.Errorf("%d tries; want %d", r.Tries, tries)
			}
			if slow > 0 && left.Load() != 1 {
				t.Error("the slow server was not told")
			}
		})
	}
}

// Only one in twenty requests is hedged at the quantile 0.95.
func TestHedgeQuantile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := l4test.NewNetwork()
		tr := &l7.Transport{Pool: newPool(one, two), Upstream: &l7.Upstream{Dial: n.DialContext}, Hedge: l7.Hedge{Quantile: 0.95}}
		defer tr.CloseIdleConnections()
		var seen atomic.Int32
		slow := func(w http.ResponseWriter, r *http.Request) {
			i := seen.Add(1)
			time.Sleep(time.Duration(10+i%10) * time.Millisecond)
			if i%50 == 0 {
				time.Sleep(time.Second)
			}
		}
		serveHTTP(t, n, one, slow)
		serveHTTP(t, n, two, slow)
		var worst time.Duration
		for i := range 1000 {
			start := time.Now()
			if got := fetch(t, tr, "http://a.test/"); got != "200 " {
				t.Fatal(got)
			}
			if i > 100 {
				worst = max(worst, time.Since(start))
			}
		}
		time.Sleep(2 * time.Second) // the slow ones end
		if got := seen.Load(); got < 1010 || got > 1150 {
			t.Errorf("%d requests for 1000; want some more", got)
		}
		if worst > 500*time.Millisecond {
			t.Errorf("the slowest took %v", worst)
		}
	})
}

// The client's leaving ends both tries.
func TestHedgeAbort(t *testing.T) {
	withTransport(t, []string{one, two}, func(t *testing.T, n *l4test.Network, tr *l7.Transport) {
		tr.Hedge.Delay = time.Second
		var left atomic.Int32
		hang := func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done(); left.Add(1) }
		serveHTTP(t, n, one, hang)
		serveHTTP(t, n, two, hang)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		if _, err := tr.RoundTrip(get("http://a.test/").WithContext(ctx)); err == nil {
			t.Error("no error")
		}
		synctest.Wait()
		if left.Load() != 2 {
			t.Errorf("%d servers were told; want 2", left.Load())
		}
	})
}
