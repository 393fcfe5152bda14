// SPDX-License-Identifier: Apache-2.0

package replay_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/l7/replay"
)

// candidates are a pool of one server, in this process.
func candidates(h http.HandlerFunc) *l7.Transport {
	p := &balance.Pool{Name: "candidates"}
	if err := p.Set(balance.Endpoint{Name: "a", Addr: "a:80", Value: h}); err != nil {
		panic(err)
	}
	return &l7.Transport{Pool: p}
}

// recorded returns the file of what a gateway was asked for, a second apart.
func recorded(t *testing.T, requests ...string) string {
	var file bytes.Buffer
	hook := replay.To(&file)
	h := l7.HandlerFunc(func(x *l7.Exchange) {
		x.Respond(200, nil, "")
		r := x.Record
		r.Status = 200
		hook(&r)
	})
	for _, r := range requests {
		method, target, _ := strings.Cut(r, " ")
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(method, target, nil))
		time.Sleep(time.Second)
	}
	require.Equal(t, len(requests), strings.Count(file.String(), "\n"))
	return file.String()
}

func TestPlayer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := recorded(t, "GET http://a.example/a%2Fb?c=d%20e", "POST http://a.example/", "GET http://b.example/gone", "HEAD http://a.example/h")
		var asked []string
		var mu sync.Mutex
		start := time.Now()
		p := &replay.Player{Header: http.Header{"X-Replay": {"1"}}, To: candidates(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			asked = append(asked, fmt.Sprint(time.Since(start), " ", r.Method, " ", r.Host, r.RequestURI, " ", r.Header.Get("X-Replay")))
			if r.URL.Path == "/gone" {
				w.WriteHeader(410)
			}
		})}
		result, err := p.Run(t.Context(), strings.NewReader(file))
		require.NoError(t, err)
		require.Equal(t, []string{"0s GET a.example/a%2Fb?c=d%20e 1", "2s GET b.example/gone 1", "3s HEAD a.example/h 1"}, asked)
		require.Equal(t, replay.Result{Played: 3, Left: 1, Same: 2, Other: 1}, result)

		for speed, want := range map[float64]time.Duration{2: 1500 * time.Millisecond, 0.5: 6 * time.Second, -1: 0} {
			start = time.Now()
			p.Speed = speed
			_, err = p.Run(t.Context(), strings.NewReader(file))
			require.NoError(t, err)
			require.Equal(t, want, time.Since(start))
		}
	})
}

func TestPlayerIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := strings.Repeat(`{"at":"2026-01-01T00:00:00Z","method":"GET","host":"a","target":"/","status":200}`+"\n", 10)
		now, most := 0, 0
		var mu sync.Mutex
		count := func(n int) {
			mu.Lock()
			defer mu.Unlock()
			now += n
			most = max(most, now)
		}
		failed := 0
		p := &replay.Player{MaxInFlight: 3, Timeout: 2 * time.Second, To: candidates(func(_ http.ResponseWriter, r *http.Request) {
			count(1)
			defer count(-1)
			select {
			case <-time.After(time.Second):
			case <-r.Context().Done():
			}
		}), OnResult: func(_ *replay.Request, _ int, _ time.Duration, err error) {
			if err != nil {
				mu.Lock()
				failed++
				mu.Unlock()
			}
		}}
		result, err := p.Run(t.Context(), strings.NewReader(file))
		require.NoError(t, err)
		require.Equal(t, 3, most)
		require.Equal(t, replay.Result{Played: 10, Same: 10, Late: 7, Longest: time.Second}, result)

		p.Timeout = 500 * time.Millisecond
		result, err = p.Run(t.Context(), strings.NewReader(file))
		require.NoError(t, err)
		require.Equal(t, 10, result.Failed)
		require.Equal(t, 10, failed)

		ctx, cancel := context.WithTimeout(t.Context(), 700*time.Millisecond)
		defer cancel()
		result, err = p.Run(ctx, strings.NewReader(file))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Less(t, result.Played, 10)
	})
}

func TestPlayerRefuses(t *testing.T) {
	p := &replay.Player{To: candidates(func(http.ResponseWriter, *http.Request) {})}
	for _, file := range []string{"x\n", `{"method":"GET","target":"a b"}`, `{"method":"GET","target":""}`, `"` + strings.Repeat("a", 300<<10)} {
		_, err := p.Run(t.Context(), strings.NewReader(file))
		require.ErrorContains(t, err, "replay: ")
	}
	_, err := p.Run(t.Context(), io.MultiReader(strings.NewReader("\n"), failing{}))
	require.ErrorContains(t, err, "broken")
	_, err = (&replay.Player{}).Run(t.Context(), strings.NewReader(""))
	require.ErrorContains(t, err, "Player.To")
}

// What a client sends to the gateway, however odd, does not end a later Run.
func TestPlayerAsksForWhatClientsHaveSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := l4test.NewNetwork()
		ln, err := n.Listen("tcp", "10.0.0.1:80")
		require.NoError(t, err)
		var file bytes.Buffer
		srv := &l7.Server{Handler: l7.HandlerFunc(func(x *l7.Exchange) { x.Respond(200, nil, "") }), OnDone: replay.To(&file)}
		go func() { _ = srv.Serve(ln) }()
		for _, head := range []string{
			"GET /%zz HTTP/1.1\r\nHost: a\r\n", "GET /^{|}\"<> HTTP/1.1\r\nHost: a\r\n", "GET //b/?^%zz HTTP/1.1\r\nHost: a\r\n",
			"GET //b/%zz HTTP/1.1\r\nHost: a\r\n", "GET /%41/%2e?? HTTP/1.1\r\nHost: a\r\n", "GET http://b/c HTTP/1.1\r\nHost: a\r\n",
			"GET / HTTP/1.1\r\n", "GET / HTTP/1.0\r\n", "GET /\xff HTTP/1.1\r\nHost: a\r\n", "GET x HTTP/1.1\r\nHost: a\r\n",
			"GET / HTTP/1.1\r\nHost: a b\r\n", "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n", "\r\nGET / HTTP/1.1\r\nHost: a\r\n x: y\r\n",
		} {
			c, err := n.DialContext(t.Context(), "tcp", "10.0.0.1:80")
			require.NoError(t, err)
			_, err = io.WriteString(c, head+"Connection: close\r\n\r\n")
			require.NoError(t, err)
			_, _ = io.Copy(io.Discard, c)
			_ = c.Close()
			synctest.Wait() // for its OnDone: a refusal is sent before
		}
		require.NoError(t, srv.Close())

		var asked []string
		p := &replay.Player{MaxInFlight: 1, To: candidates(func(_ http.ResponseWriter, r *http.Request) { asked = append(asked, r.Host+r.RequestURI) })}
		result, err := p.Run(t.Context(), &file)
		require.NoError(t, err)
		require.Equal(t, []string{"a/%zz", `a/^{|}"<>`, "a//b/?^%zz", "a/%41/%2e??", "b/c"}, asked)
		require.Equal(t, replay.Result{Played: 5, Left: 1, Same: 5}, result)
	})
}

// A request that took long is written after those that began later. It is not late.
func TestPlayerAndTheOrderOfTheFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		line := func(target string, at int) string {
			return fmt.Sprintf(`{"at":"2026-01-01T00:00:%02dZ","method":"GET","host":"a","target":%q,"status":200}`+"\n", at, target)
		}
		var asked []string
		start := time.Now()
		p := &replay.Player{MaxInFlight: 1, To: candidates(func(_ http.ResponseWriter, r *http.Request) {
			asked = append(asked, fmt.Sprint(r.RequestURI, " ", time.Since(start)))
		})}
		result, err := p.Run(t.Context(), strings.NewReader(line("/a", 10)+line("/b", 20)+line("/slow", 5)+line("/c", 30)))
		require.NoError(t, err)
		require.Equal(t, []string{"/a 0s", "/b 10s", "/slow 10s", "/c 20s"}, asked)
		require.Equal(t, replay.Result{Played: 4, Same: 4}, result)

		p.Speed = 1e-300 // the second one is due in 36 years
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		result, err = p.Run(ctx, strings.NewReader(line("/a", 10)+line("/b", 20)))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 1, result.Played)
	})
}

// tripper is a RoundTripper of the host.
type tripper func(*http.Request) (*http.Response, error)

func (f tripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestPlayerAndPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := strings.Repeat(`{"at":"2026-01-01T00:00:00Z","method":"GET","host":"a","target":"/","status":200}`+"\n", 3)
		p := &replay.Player{To: tripper(func(*http.Request) (*http.Response, error) { panic("broken") })}
		result, err := p.Run(t.Context(), strings.NewReader(file))
		require.NoError(t, err)
		require.Equal(t, replay.Result{Played: 3, Failed: 3}, result)

		p.OnResult = func(_ *replay.Request, _ int, _ time.Duration, err error) { panic(err) }
		p.MaxInFlight = 1
		result, err = p.Run(t.Context(), strings.NewReader(file))
		require.EqualError(t, err, "replay: panic in Player.OnResult: replay: panic in Player.To: broken")
		require.NotZero(t, result.Failed)
	})
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("broken") }

func ExamplePlayer() {
	file := strings.NewReader(`
{"at":"2026-01-01T00:00:00Z","method":"GET","host":"shop.example","target":"/cart","status":200}
{"at":"2026-01-01T00:00:00.01Z","method":"GET","host":"shop.example","target":"/old","status":200}
`)
	next := candidates(func(w http.ResponseWriter, r *http.Request) { // the version to be tried
		if r.URL.Path == "/old" {
			http.NotFound(w, r)
		}
	})
	p := &replay.Player{To: next, OnResult: func(r *replay.Request, status int, _ time.Duration, _ error) {
		if status != r.Status {
			fmt.Println(r.Target, status)
		}
	}}
	result, err := p.Run(context.Background(), file)
	fmt.Println(result.Same, result.Other, err)
	// Output:
	// /old 404
	// 1 1 <nil>
}
