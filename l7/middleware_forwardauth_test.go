// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l4"
)

// latest is the record of the exchange that ended last.
type latest struct {
	mu sync.Mutex
	r  Record
}

func (l *latest) set(r Record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.r = r
}

// get waits for all that is under way.
func (l *latest) get() Record {
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.r
}

// doorman is a service that knows two sessions.
type doorman struct {
	mu    sync.Mutex
	asked []*http.Request
	wait  time.Duration
	fails bool
	body  string
}

func (d *doorman) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	d.asked = append(d.asked, r)
	d.mu.Unlock()
	time.Sleep(d.wait)
	if d.fails {
		w.WriteHeader(500)
		return
	}
	c, _ := r.Cookie("session")
	if c == nil || c.Value != "ann" && c.Value != "old" {
		w.Header().Set("Location", "https://login.example/?rd="+r.Header.Get("X-Forwarded-Uri"))
		w.Header().Add("Set-Cookie", "csrf=1")
		w.Header().Add("Set-Cookie", "state=2")
		w.WriteHeader(302)
		_, _ = io.WriteString(w, "log in"+d.body)
		return
	}
	if c.Value == "old" {
		w.Header().Add("Set-Cookie", "session=ann")
	}
	w.Header().Set("X-User", c.Value)
	w.Header().Add("X-B", "one")
	w.Header().Add("X-B", "two")
	w.Header().Set("X-Unused", "1")
	w.WriteHeader(202)
	_, _ = io.WriteString(w, strings.Repeat("a", 100_000)) // which nobody reads
}

// forwardAuth tells a story of a ForwardAuth whose service is a pool, and of one whose
// service is in the process.
func forwardAuth(t *testing.T, made func(*ForwardAuth), story func(s *site, d *doorman, last func() Record)) {
	for _, local := range []bool{false, true} {
		t.Run(fmt.Sprint("local=", local), func(t *testing.T) {
			var d *doorman
			var kept latest
			onBoth(t, func(s *site) http.Handler {
				d = new(doorman)
				s.origin("10.1.0.1:80", echo)
				s.origin("10.1.0.2:80", d.ServeHTTP)
				h := &ForwardAuth{
					Service: s.proxy("10.1.0.2:80"), Target: "/check?a=b",
					ToRequest: []string{"X-User", "X-B"}, ToClient: []string{"Set-Cookie"}, UserField: "X-User", Next: s.proxy("10.1.0.1:80"),
				}
				if local {
					h.Service = d
				}
				made(h)
				return HandlerFunc(func(x *Exchange) {
					Serve(h, x)
					kept.set(x.Record)
				})
			}, func(s *site) {
				story(s, d, func() Record {
					time.Sleep(time.Second)
					return kept.get()
				})
			})
		})
	}
}

func TestForwardAuth(t *testing.T) {
	forwardAuth(t, func(*ForwardAuth) {}, func(s *site, d *doorman, last func() Record) {
		t := s.T
		a := s.get("/a/%2e%2e/b?c=d", "X-Forwarded-Uri", "/public", "X-User", "root", "X_User", "root", "x_b", "three")
		require.Equal(t, 302, a.StatusCode)
		require.Equal(t, "https://login.example/?rd=/a/%2e%2e/b?c=d", a.Header.Get("Location"))
		require.Equal(t, []string{"csrf=1", "state=2"}, a.Header.Values("Set-Cookie"))
		require.Equal(t, "log in", a.body)
		r := last()
		require.Equal(t, endOf(l4.Denied, l4.PhaseRequest), r.Termination)
		require.Equal(t, "ForwardAuth: refused", r.Decision)
		require.Equal(t, 302, r.Status)
		require.NoError(t, r.Err)
		require.Zero(t, r.Tries)

		a, err := s.ask(s.client, "/up?x", "body", "Cookie", "session=ann", "X-User", "root", "X_User", "root", "X-Forwarded-For", "6.6.6.6", "X-A", "stays")
		require.NoError(t, err)
		require.Equal(t, 200, a.StatusCode)
		require.Equal(t, "POST /up?x 10.0.0.1\nCookie: session=ann\nX-A: stays\nX-B: one\nX-B: two\nX-User: ann\nbody", a.body)
		require.Equal(t, "ForwardAuth: allowed", last().Decision)
		require.Equal(t, "ann", last().User)
		require.Equal(t, 1, last().Tries)

		require.Len(t, d.asked, 2)
		q := d.asked[1]
		require.Equal(t, "GET", q.Method)
		require.Equal(t, "/check?a=b", q.RequestURI)
		require.Equal(t, "10.0.0.1", q.Host)
		require.Zero(t, q.ContentLength)
		for name, want := range map[string]string{
			"X-Forwarded-Method": "POST", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "10.0.0.1", "X-Forwarded-Uri": "/up?x",
			"X-Forwarded-For": "10.9.9.9", "Cookie": "session=ann",
		} {
			require.Equal(t, []string{want}, q.Header.Values(name), name)
		}
		require.Empty(t, q.Header.Values("X-A"))

		a = s.get("/", "Cookie", "session=old")
		require.Equal(t, 200, a.StatusCode)
		require.Equal(t, []string{"session=ann"}, a.Header.Values("Set-Cookie"))
	})
}

func TestForwardAuthFails(t *testing.T) {
	for _, open := range []bool{false, true} {
		forwardAuth(t, func(h *ForwardAuth) { h.Open = open }, func(s *site, d *doorman, last func() Record) {
			t := s.T
			want, decision := 503, "ForwardAuth: the service failed"
			if open {
				want, decision = 200, "ForwardAuth: open, the service failed"
			}
			d.fails = true
			a := s.get("/", "Cookie", "session=ann", "X-User", "root")
			require.Equal(t, want, a.StatusCode)
			require.NotContains(t, a.body, "root")
			require.Equal(t, decision, last().Decision)
			var err *ForwardAuthError
			require.ErrorAs(t, last().Err, &err)
			require.Equal(t, 500, err.Status)

			d.fails = false
			d.body = strings.Repeat("a", 64<<10)
			require.Equal(t, want, s.get("/").StatusCode, "a refusal that is too long")
			require.ErrorContains(t, last().Err, "BodyBytes")
			d.body = ""
			require.Equal(t, 302, s.get("/").StatusCode)
		})
	}
}

func TestForwardAuthTimeout(t *testing.T) {
	forwardAuth(t, func(h *ForwardAuth) { h.Timeout = time.Second }, func(s *site, d *doorman, last func() Record) {
		t := s.T
		d.wait = 2 * time.Second
		a := s.get("/", "Cookie", "session=ann")
		if strings.Contains(t.Name(), "local=true") { // which nothing ends
			require.Equal(t, 200, a.StatusCode)
			return
		}
		require.Equal(t, 503, a.StatusCode)
		require.Equal(t, endOf(l4.ServerTimeout, l4.PhaseRequest), last().Termination)
		var err *TimeoutError
		require.ErrorAs(t, last().Err, &err)
		require.Equal(t, "ForwardAuth.Timeout", err.Field)
		time.Sleep(3 * time.Second)
	})
}

func TestForwardAuthKeeps(t *testing.T) {
	forwardAuth(t, func(h *ForwardAuth) { h.KeepFor = time.Minute }, func(s *site, d *doorman, last func() Record) {
		t := s.T
		asked := func(n int, target string, fields ...string) answer {
			t.Helper()
			d.asked = nil
			a := s.get(target, fields...)
			last()
			require.Len(t, d.asked, n)
			return a
		}
		asked(1, "/", "Cookie", "session=ann")
		a := asked(0, "/", "Cookie", "session=ann", "X-User", "root")
		require.Equal(t, "GET / 10.0.0.1\nCookie: session=ann\nX-B: one\nX-B: two\nX-User: ann\n", a.body)
		require.Equal(t, "ForwardAuth: allowed, kept", last().Decision)
		require.Equal(t, "ann", last().User)
		asked(1, "/other", "Cookie", "session=ann")
		asked(1, "/", "Cookie", "session=ann", "Host", "other.example")
		asked(1, "/", "Cookie", "session=ann", "Method", "PUT")
		asked(1, "/", "Cookie", "session=ann", "Authorization", "x")
		asked(1, "/", "Cookie", "a=b; session=ann")
		asked(0, "/", "Cookie", "session=ann")
		time.Sleep(time.Minute)
		asked(1, "/", "Cookie", "session=ann")
		for range 2 { // refusals are not kept, nor is what sets a cookie
			asked(1, "/")
			asked(1, "/", "Cookie", "session=old")
		}
	})
	forwardAuth(t, func(h *ForwardAuth) { h.KeepFor, h.Key, h.MaxKept = time.Minute, ByHost, 4 }, func(s *site, d *doorman, _ func() Record) {
		t := s.T
		for i := range 10 {
			require.Equal(t, 200, s.get(fmt.Sprint("/", i), "Cookie", "session=ann").StatusCode)
		}
		require.Len(t, d.asked, 1)
		require.Equal(t, 302, s.get("/").StatusCode, "Fields always count")
		for i := range 10 {
			require.Equal(t, 200, s.get("/", "Cookie", "session=ann", "Host", fmt.Sprint(i, ".example")).StatusCode)
		}
		require.Len(t, d.asked, 12)
	})
}

// A client that has left is not let through by an open door.
func TestForwardAuthWithoutClient(t *testing.T) {
	for _, open := range []bool{false, true} {
		forwardAuth(t, func(h *ForwardAuth) { h.Open = open }, func(s *site, d *doorman, last func() Record) {
			t := s.T
			d.wait = 5 * time.Second
			s.client.Timeout = time.Second
			_, err := s.ask(s.client, "/", "", "Cookie", "session=ann")
			require.Error(t, err)
			time.Sleep(10 * time.Second)
			require.Equal(t, l4.ClientAborted, last().Termination.Cause)
			require.Zero(t, last().Tries)
		})
	}
}

// What is told apart is told apart by its key, however it is cut.
func TestForwardAuthKeysAreInjective(t *testing.T) {
	h := &ForwardAuth{Fields: []string{"A", "B"}}
	seen := map[string]string{}
	for _, f := range [][]string{
		{}, {"A", ""}, {"B", ""}, {"A", "", "A", ""}, {"A", "", "B", ""}, {"A", "x"}, {"A", "x", "A", "y"}, {"A", "x", "B", "y"}, {"B", "x", "B", "y"}, {"A", "xy"},
		{"A", "x, y"},
	} {
		for _, path := range []string{"/", "/a"} {
			x := &Exchange{Method: "GET", Path: path, Header: MakeFields(f...)}
			key, ok := h.key(x, nil)
			require.True(t, ok)
			what := fmt.Sprint(path, f)
			require.Empty(t, seen[string(key)], what)
			seen[string(key)] = what
		}
	}
}
