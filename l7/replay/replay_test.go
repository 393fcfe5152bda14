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
