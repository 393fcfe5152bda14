// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4/l4test"
)

// A connection that somebody has interrupted, or cut, as its exchange came to a good end
// is not kept: its deadline is in the past.
func TestInterruptedConnectionIsNotKept(t *testing.T) {
	for name, tc := range map[string]struct {
		do   func(c *upConn)
		want int
	}{
		"left alone":  {func(*upConn) {}, 1},
		"interrupted": {(*upConn).interrupt, 0},
		"cut":         {func(c *upConn) { c.cut("test") }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			u, p := new(Upstream), new(balance.Pool)
			u.init()
			defer u.CloseIdle()
			require.NoError(t, p.Set(balance.Endpoint{Addr: "10.0.1.1:80"}))
			h := u.host(p.Server("10.0.1.1:80"))
			a, b := net.Pipe()
			defer b.Close()
			c := h.newConn(a, dialingOf(t, h), identity{}, nil)
			c.keep = true
			tc.do(c)
			c.release(true)
			require.Len(t, h.idle, tc.want)
			require.Len(t, h.conns, tc.want)
		})
	}
}

// hangs answers at once, but for /hang, which it answers when the gate opens. Of /busy
// the first answer is 503.
func hangs(gate chan struct{}) http.HandlerFunc {
	var busy atomic.Int32
	return func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/hang":
			<-gate
		case "/busy":
			if busy.Add(1) == 1 {
				w.Header().Set("Retry-After", "5")
				w.WriteHeader(503)
				return
			}
		}
		_, _ = io.WriteString(w, "ok")
	}
}

// A client that leaves ends nothing but its own request, although the connection to the
// server that it used is another client's by now.
func TestConnectionGivenBackIsNotInterrupted(t *testing.T) {
	for name, before := range map[string]string{"after a reply": "/", "before a retry": "/busy"} {
		t.Run(name, func(t *testing.T) {
			var gate chan struct{}
			var dials *atomic.Int64
			onBoth(t, func(s *site) http.Handler {
				gate = make(chan struct{})
				s.origin("10.0.1.1:80", hangs(gate))
				p := s.proxy("10.0.1.1:80")
				p.Retry = Retry{Statuses: []int{503}, Backoff: time.Second, MaxBackoff: time.Minute}
				dials = countDials(p.Upstream)
				return NewRouter(
					Route{Match: Path("/wait"), Handler: HandlerFunc(func(x *Exchange) { <-x.Context().Done() })},
					Route{Handler: p},
				)
			}, func(s *site) {
				leaver := s.from("10.9.9.8")
				ctx, leave := context.WithCancel(s.Context())
				gone := make(chan error, 1)
				ask := func(path string) error {
					req, err := http.NewRequestWithContext(ctx, "GET", "http://10.0.0.1"+path, nil)
					require.NoError(s, err)
					resp, err := leaver.Do(req)
					if err == nil {
						_, _ = io.Copy(io.Discard, resp.Body)
						_ = resp.Body.Close()
					}
					return err
				}
				go func() {
					err := ask(before)
					if before == "/" {
						err = ask("/wait") // over the same connection
					}
					gone <- err
				}()
				time.Sleep(time.Second)
				require.Empty(s, gone)

				got := make(chan string, 1)
				go func() {
					a, err := s.ask(s.client, "/hang", "")
					if err != nil {
						a.body = err.Error()
					}
					got <- a.body
				}()
				time.Sleep(time.Second)
				require.EqualValues(s, 1, dials.Load(), "they use the same connection")
				leave()
				require.Error(s, <-gone)
				synctest.Wait()
				close(gate)
				require.Equal(s, "ok", <-got)
				require.EqualValues(s, 1, dials.Load())
			})
		})
	}
}

// A context that ends after the reply was read is nobody's concern.
func TestTransportContextEndsAfterTheReply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &site{T: t, net: l4test.NewNetwork()}
		gate := make(chan struct{})
		s.origin("10.0.1.1:80", hangs(gate))
		p := s.proxy("10.0.1.1:80")
		dials := countDials(p.Upstream)
		tr := &Transport{Pool: p.Pool, Upstream: p.Upstream}
		ask := func(ctx context.Context, path string) string {
			req, err := http.NewRequestWithContext(ctx, "GET", "http://a.test"+path, nil)
			require.NoError(t, err)
			resp, err := tr.RoundTrip(req)
			if err != nil {
				return err.Error()
			}
			defer resp.Body.Close()
			b, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			return string(b)
		}
		ctx, cancel := context.WithCancel(t.Context())
		require.Equal(t, "ok", ask(ctx, "/"))
		got := make(chan string, 1)
		go func() { got <- ask(t.Context(), "/hang") }()
		synctest.Wait()
		cancel()
		synctest.Wait()
		close(gate)
		require.Equal(t, "ok", <-got)
		require.EqualValues(t, 1, dials.Load())
	})
}

// An interrupt that has begun and not arrived yet counts: it may reach the connection
// at any time from now on.
func TestConnectionWithAnInterruptOnItsWayIsNotKept(t *testing.T) {
	late := func() bool { return false } // as stop of context.AfterFunc says it
	synctest.Test(t, func(t *testing.T) {
		s := &site{T: t, net: l4test.NewNetwork()}
		s.origin("10.0.1.1:80", hangs(nil))
		p := s.proxy("10.0.1.1:80")
		idle := func() int { return len(p.Upstream.host(p.Pool.Server("10.0.1.1:80")).idle) }

		w := httptest.NewRecorder()
		p.ServeHTTP(w, httptest.NewRequest("GET", "http://a.test/", nil))
		require.Equal(t, 1, idle(), "or this test shows nothing")
		ServeHTTP(HandlerFunc(func(x *Exchange) {
			x.OnReply(ReplyFunc(func(x *Exchange, _ *Reply) { x.down.(*standard).stopGone = late }))
			Serve(p, x)
		}), w, httptest.NewRequest("GET", "http://a.test/", nil))
		require.Zero(t, idle())

		tr := &Transport{Pool: p.Pool, Upstream: p.Upstream}
		for want, stop := range map[int]func() bool{0: late, 1: nil} {
			req, err := http.NewRequest("GET", "http://a.test/", nil)
			require.NoError(t, err)
			resp, err := tr.RoundTrip(req)
			require.NoError(t, err)
			if stop != nil {
				resp.Body.(*replyBody).c.unwatch = stop
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			require.Equal(t, want, idle())
			p.Upstream.CloseIdle()
		}
	})
}

// The end of a request that was raced does not reach the connection that won.
func TestHedgeLeavesTheWinnersConnectionAlone(t *testing.T) {
	var dials *atomic.Int64
	onBoth(t, func(s *site) http.Handler {
		s.origin("10.0.1.1:80", hangs(nil))
		s.origin("10.0.1.2:80", hangs(nil))
		p := s.proxy("10.0.1.1:80", "10.0.1.2:80")
		p.Hedge = Hedge{Delay: time.Minute}
		dials = countDials(p.Upstream)
		return p
	}, func(s *site) {
		for range 6 {
			require.Equal(s, "ok", s.get("/").body)
			synctest.Wait()
		}
		require.EqualValues(s, 2, dials.Load(), "connections to two servers")
	})
}

// The scheme of a login ends at any white space.
func TestConnectionSchemes(t *testing.T) {
	for v, want := range map[string]bool{
		"NTLM abc": true, "ntlm\tabc": true, "Negotiate": true, "Negotiate, Basic x": true,
		"Basic NTLM": false, "NTLMv2 abc": false, "": false,
	} {
		if got := connectionScheme(v); got != want {
			t.Errorf("connectionScheme(%q) = %v", v, got)
		}
	}
}
