// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
)

// A watcher writes down tries, and tells each server the number of its own.
type watcher struct {
	mu    sync.Mutex
	lines []string
	tries map[*Try]bool
	bad   func() // called in both methods; nil means nothing
}

func (w *watcher) BeginTry(t *Try) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.tries == nil {
		w.tries = make(map[*Try]bool)
	}
	w.tries[t] = true
	w.lines = append(w.lines, fmt.Sprintf("begin %d %s", t.Number, t.Server.Name()))
	t.Header.Set("X-A", fmt.Sprintf("try-%d", t.Number))
	t.Header.Add("Host", "not.this")
	t.Header.Add("Expect", "100-continue")
	if w.bad != nil {
		w.bad()
	}
}

func (w *watcher) EndTry(t *Try) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.tries[t] {
		w.lines = append(w.lines, "an end without a beginning")
	}
	delete(w.tries, t)
	line := fmt.Sprintf("end %d %d %v", t.Number, t.Status, t.Outcome.Class)
	if t.Hedge {
		line += " hedge"
	}
	if t.Lost {
		line += " lost"
	}
	if t.Reused {
		line += " reused"
	}
	if t.Version != "" {
		line += " " + t.Version
	}
	if t.Assigned <= 0 || t.Connected > 0 && t.Connected < t.Assigned || t.FirstByte > 0 && t.FirstByte < t.Connected {
		line += " phases out of order"
	}
	w.lines = append(w.lines, line)
	if w.bad != nil {
		w.bad()
	}
}

func (w *watcher) take(t *testing.T) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	require.Empty(t, w.tries, "tries that have not ended")
	lines := w.lines
	w.lines = nil
	return lines
}

// watch puts w before h.
func (w *watcher) watch(h http.Handler) HandlerFunc {
	return func(x *Exchange) {
		x.ObserveTries(w)
		Serve(h, x)
	}
}

func TestTryObserverIsToldOfEachTry(t *testing.T) {
	var w *watcher
	onBoth(t, func(s *site) http.Handler {
		w = new(watcher)
		s.origin("10.1.0.2:80", func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Expect") != "" {
				_, _ = io.WriteString(w, "expect ")
			}
			echo(w, r)
		})
		p := s.proxy("10.1.0.1:80", "10.1.0.2:80")
		return w.watch(p)
	}, func(s *site) {
		a := s.get("/", "X-A", "client's", "X_a", "alias", "X-B", "kept")
		require.Equal(s, "GET / 10.0.0.1\nX-A: try-2\nX-B: kept\n", a.body)
		synctest.Wait()
		require.Equal(s, []string{
			"begin 1 10.1.0.1:80", "end 1 0 connect failed", "begin 2 10.1.0.2:80", "end 2 200 ok 1.1",
		}, w.take(s.T))
		a, err := s.ask(s.client, "/", "the body")
		require.NoError(s, err)
		require.Equal(s, "POST / 10.0.0.1\nX-A: try-2\nthe body", a.body)
		synctest.Wait()
		require.Equal(s, "end 2 200 ok reused 1.1", w.take(s.T)[3])
	})
}

func TestTryObserverOverHTTP2(t *testing.T) {
	var w *watcher
	onBoth(t, func(s *site) http.Handler {
		w = new(watcher)
		ln, err := s.net.Listen("tcp", "10.1.0.1:80")
		require.NoError(s, err)
		protocols := new(http.Protocols)
		protocols.SetUnencryptedHTTP2(true)
		srv := &http.Server{Protocols: protocols, Handler: http.HandlerFunc(echo)}
		go func() { _ = srv.Serve(ln) }()
		s.Cleanup(func() { _ = srv.Close() })
		p := s.proxy("10.1.0.1:80")
		p.Upstream.Protocols = protocols
		return w.watch(p)
	}, func(s *site) {
		a, err := s.ask(s.client, "/", "the body", "X-A", "client's")
		require.NoError(s, err)
		require.Equal(s, "POST / 10.0.0.1\nX-A: try-1\nthe body", a.body)
		synctest.Wait()
		require.Equal(s, []string{"begin 1 10.1.0.1:80", "end 1 200 ok 2.0"}, w.take(s.T))
	})
}

func TestTryObserverIsToldWhoLostTheRace(t *testing.T) {
	var w *watcher
	onBoth(t, func(s *site) http.Handler {
		w = new(watcher)
		s.origin("10.1.0.1:80", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		s.origin("10.1.0.2:80", echo)
		p := s.proxy("10.1.0.1:80", "10.1.0.2:80")
		p.Hedge.Delay = time.Second
		return w.watch(p)
	}, func(s *site) {
		require.Equal(s, "GET / 10.0.0.1\nX-A: try-2\n", s.get("/").body)
		synctest.Wait()
		require.Equal(s, []string{
			"begin 1 10.1.0.1:80", "begin 2 10.1.0.2:80",
			"end 1 0 client aborted lost 1.1", "end 2 200 ok hedge 1.1",
		}, w.take(s.T))
	})
}

func TestTryObserverSeesMembersOfTheProcess(t *testing.T) {
	var w *watcher
	onBoth(t, func(s *site) http.Handler {
		w = new(watcher)
		p := &balance.Pool{}
		require.NoError(s, p.Set(balance.Endpoint{Name: "here", Addr: "here:1", Value: http.HandlerFunc(echo)}))
		return w.watch(s.proxyTo(p))
	}, func(s *site) {
		require.Equal(s, "GET / 10.0.0.1\nX-A: try-1\n", s.get("/").body)
		synctest.Wait()
		require.Equal(s, []string{"begin 1 here", "end 1 200 ok"}, w.take(s.T))
	})
}

// What observes outside of a handler of net/http is told of tries inside of it, as
// is what observes inside.
func TestTryObserverThroughASandwich(t *testing.T) {
	var outer, inner *watcher
	onBoth(t, func(s *site) http.Handler {
		outer, inner = new(watcher), new(watcher)
		s.origin("10.1.0.1:80", echo)
		in := inner.watch(s.proxy("10.1.0.1:80"))
		return outer.watch(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { in.ServeHTTP(w, r) }))
	}, func(s *site) {
		require.Equal(s, "GET / 10.0.0.1\nX-A: try-1\n", s.get("/").body)
		want := []string{"begin 1 10.1.0.1:80", "end 1 200 ok 1.1"}
		synctest.Wait()
		require.Equal(s, want, outer.take(s.T))
		require.Equal(s, want, inner.take(s.T))
	})
}

// The next exchange of a connection is not observed by what observed the one before.
func TestTryObserverIsOfOneExchange(t *testing.T) {
	var w *watcher
	onBoth(t, func(s *site) http.Handler {
		w = new(watcher)
		s.origin("10.1.0.1:80", echo)
		p := s.proxy("10.1.0.1:80")
		watched := w.watch(p)
		return HandlerFunc(func(x *Exchange) {
			if x.Path == "/watched" {
				Serve(watched, x)
				return
			}
			Serve(p, x)
		})
	}, func(s *site) {
		s.get("/watched")
		synctest.Wait()
		require.Len(s, w.take(s.T), 2)
		require.Equal(s, "GET / 10.0.0.1\n", s.get("/").body)
		require.Empty(s, w.take(s.T))
	})
}

func TestTryEndsWhenItsTunnelDoes(t *testing.T) {
	var w *watcher
	onBoth(t, func(s *site) http.Handler {
		w = new(watcher)
		s.origin("10.1.0.1:80", func(w http.ResponseWriter, _ *http.Request) {
			c, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
			time.Sleep(time.Minute)
			_ = c.Close()
		})
		return w.watch(s.proxy("10.1.0.1:80"))
	}, func(s *site) {
		if s.http2 {
			return // it is upgraded in another way, and by the same code
		}
		req, err := http.NewRequestWithContext(s.Context(), "GET", "http://10.0.0.1/", nil)
		require.NoError(s, err)
		req.Header.Set("Connection", "Upgrade")
		req.Header.Set("Upgrade", "websocket")
		reply, err := s.client.Do(req)
		require.NoError(s, err)
		require.Equal(s, 101, reply.StatusCode)
		time.Sleep(30 * time.Second)
		w.mu.Lock()
		require.Equal(s, []string{"begin 1 10.1.0.1:80"}, w.lines)
		w.mu.Unlock()
		_, _ = io.Copy(io.Discard, reply.Body)
		_ = reply.Body.Close()
		synctest.Wait()
		synctest.Wait()
		require.Equal(s, []string{"begin 1 10.1.0.1:80", "end 1 101 ok 1.1"}, w.take(s.T))
	})
}

func TestTryObserverPanics(t *testing.T) {
	var w *watcher
	onBoth(t, func(s *site) http.Handler {
		w = &watcher{bad: func() { panic("boom") }}
		s.origin("10.1.0.1:80", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		s.origin("10.1.0.2:80", echo)
		p := s.proxy("10.1.0.1:80", "10.1.0.2:80")
		p.Hedge.Delay = time.Second
		return w.watch(p)
	}, func(s *site) {
		require.Equal(s, "GET / 10.0.0.1\nX-A: try-2\n", s.get("/").body)
		synctest.Wait()
		require.Len(s, w.take(s.T), 4)
	})
}
