// SPDX-License-Identifier: Apache-2.0

package admin_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/l7/admin"
)

// A page repeats what it is asked in each of its links: that must not be a way to have
// it make, and keep for others, what is many times as long as the request.
func TestLongQueryMakesNoLongPage(t *testing.T) {
	w := newWorld(t, 3)
	plain := w.do("GET", "/", "", "Accept: text/html").Body.Len()
	long := strings.Repeat("x", 500_000)
	for _, name := range []string{"q", "pool", "state", "sort", "page"} {
		body := w.do("GET", "/?"+url.Values{name: {long}}.Encode(), "", "Accept: text/html").Body
		require.Less(t, body.Len(), plain+20_000, name)
	}
}

// What an operator writes beside a reason is a value only where one is asked for, and
// a short line of text.
func TestValueOfAnActionIsALine(t *testing.T) {
	w := newWorld(t, 3)
	var log bytes.Buffer
	w.h.Logger = slog.New(slog.NewTextHandler(&log, nil))
	var told []admin.Action
	w.h.OnAction = func(a admin.Action) { told = append(told, a) }
	const line = "x\nlevel=ERROR msg=forged"
	long := strings.Repeat("y", 50_000)
	require.Equal(t, 200, w.act("pool", "web", "server", "one", "action", "ready", "reason", "r"+line, "value", line+long).Code)
	require.Equal(t, 404, w.act("pool", line+long, "server", line, "action", "ready", "reason", "r").Code)
	require.Equal(t, 404, w.act("limit", line+long, "key", line, "action", "forget", "reason", "r").Code)
	require.Equal(t, 404, w.act("pool", "p", "server", "s", "action", line+long, "reason", "r").Code)
	require.Equal(t, 4, strings.Count(log.String(), "\n"), "a line each")
	require.Less(t, log.Len(), 10_000)
	require.Empty(t, told[0].Value)
	for _, a := range told {
		for _, v := range []string{a.Do, a.Pool, a.Server, a.Limit, a.Key, a.Value, a.Reason} {
			require.NotContains(t, v, "\n")
			require.LessOrEqual(t, len(v), 1000)
		}
	}
}

// A stranger cannot fill the log by asking for what he must not do.
func TestRefusedActionsFillNoLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		w.h.Allow = nil
		var log bytes.Buffer
		w.h.Logger = slog.New(slog.NewTextHandler(&log, nil))
		for range 1000 {
			require.Equal(t, 403, w.act("action", "ready").Code)
		}
		require.Equal(t, 10, strings.Count(log.String(), "\n"))
		time.Sleep(time.Second)
		w.act("action", "ready")
		require.Contains(t, log.String(), "left_out=990")
	})
}

// Those who look leave half of a core to the gateway.
func TestWhatIsMadeIsFollowedByARest(t *testing.T) {
	for _, path := range []string{"/explain?router=slow&url=/", "/server?pool=web&name=one"} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 3)
			slow := l7.MatchFunc(func(*l7.Exchange) bool { time.Sleep(time.Second); return true })
			w.h.Routers["slow"] = l7.NewRouter(l7.Route{Match: slow, Handler: &l7.Deny{}})
			w.h.Checks = []admin.Prober{counting{new(atomic.Int64)}}
			start := time.Now()
			var one time.Duration
			for range 3 {
				require.Equal(t, 200, w.do("GET", path, "").Code)
				if one == 0 {
					one = time.Since(start)
				}
			}
			require.Equal(t, 5*one, time.Since(start), "two rests between three")
			start = time.Now()
			require.Equal(t, 200, w.act("action", "ready").Code)
			require.Equal(t, 10*time.Millisecond, time.Since(start), "an action waits for no turn")
			time.Sleep(one)
		})
	}
}

// stuck is the writer of a client that does not read.
type stuck struct {
	http.ResponseWriter
	until chan struct{}
}

func (s *stuck) Write(p []byte) (int, error) {
	<-s.until
	return len(p), nil
}

// A viewer who asks and does not read stops no other.
func TestViewerWhoDoesNotReadStopsNoOther(t *testing.T) {
	for _, path := range []string{"/explain?url=/api", "/state", "/", "/?q=one", "/server?pool=web&name=one", "/events"} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 3)
			until := make(chan struct{})
			w.do("GET", "/", "")
			go w.h.ServeHTTP(&stuck{httptest.NewRecorder(), until}, httptest.NewRequest("GET", path, nil))
			time.Sleep(time.Second)
			for _, other := range []string{"/", "/?q=two", "/state", "/explain?url=/api", "/server?pool=web&name=one"} {
				done := make(chan int, 1)
				go func() { done <- w.do("GET", other, "").Code }()
				select {
				case code := <-done:
					require.Equal(t, 200, code)
				case <-time.After(10 * time.Second):
					close(until)
					t.Fatal(path, " stops ", other)
				}
			}
			w.h.Close()
			close(until)
			time.Sleep(time.Second)
		})
	}
}

// What is sent to a viewer who does not read is not kept for ever, even under a server
// without a WriteTimeout.
func TestViewerWhoDoesNotReadIsCut(t *testing.T) {
	for _, path := range []string{"/state", "/?sort=name", "/explain?url=/api", "/events"} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 3000)
			n := l4test.NewNetwork()
			ln, err := n.Listen("tcp", "10.0.0.1:80")
			require.NoError(t, err)
			srv := &http.Server{Handler: w.h}
			served := make(chan struct{})
			go func() { _ = srv.Serve(ln); close(served) }()
			c, err := n.DialContext(t.Context(), "tcp", "10.0.0.1:80")
			require.NoError(t, err)
			_, err = io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: a\r\n\r\n")
			require.NoError(t, err)
			time.Sleep(time.Minute)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			require.NoError(t, srv.Shutdown(ctx), "it has ended: %s", path)
			<-served
			c.Close()
		})
	}
}

// An error page is cheap: it has no turn, and strangers can cause it.
func TestErrorPageIsCheap(t *testing.T) {
	w := newWorld(t, 3)
	ask := func() {
		require.Equal(t, 404, w.do("GET", "/server?pool=web&name=none", "", "Accept: text/html").Code)
	}
	ask()
	require.Less(t, testing.AllocsPerRun(20, ask), 300.0, "a page takes thousands")
}
