// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// started is a gateway that runs until the end of the test.
type started struct {
	t         *testing.T
	http, tcp string
}

func start(t *testing.T) started {
	var out output
	g := &Gateway{HTTP: "127.0.0.1:0", TCP: "127.0.0.1:0", Broken: 2 * time.Second, Out: &out, Logger: slog.New(slog.DiscardHandler)}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		require.NoError(t, <-done, "it drains and ends well")
	})
	addrs := regexp.MustCompile(`HTTP on (\S+) and TCP on (\S+)\.`)
	var found []string
	require.Eventually(t, func() bool { found = addrs.FindStringSubmatch(out.String()); return found != nil }, 5*time.Second, 10*time.Millisecond)
	return started{t, found[1], found[2]}
}

// ask sends a request to path, with a Host and header lines if given.
func (s started) ask(method, path string, lines ...string) (status int, body string) {
	req, err := http.NewRequestWithContext(s.t.Context(), method, "http://"+s.http+path, nil)
	require.NoError(s.t, err)
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		if req.Header.Set(name, value); name == "Host" {
			req.Host = value
		}
	}
	resp, err := http.DefaultClient.Do(req)
	require.NoError(s.t, err)
	defer resp.Body.Close()
	all, err := io.ReadAll(resp.Body)
	require.NoError(s.t, err)
	return resp.StatusCode, string(all)
}

// by is the name of the server that answers.
func (s started) by(path string, lines ...string) string {
	_, body := s.ask("GET", path, lines...)
	name, _, _ := strings.Cut(body, ":")
	return name
}

func TestRoutes(t *testing.T) {
	s := start(t)
	require.ElementsMatch(t, []string{"one", "two"}, []string{s.by("/"), s.by("/")}, "in turn")
	require.Equal(t, "three", s.by("/docs/intro"), "by path")
	require.Contains(t, "one two", s.by("/docsintro"), "a prefix ends at a slash")
	require.Equal(t, "three", s.by("/", "X-Beta: yes"), "by header")
	require.Equal(t, "three", s.by("/", "Cookie: a=b; beta=yes"), "by cookie")
	_, body := s.ask("GET", "/x?y", "Host: api.localhost")
	require.Contains(t, body, ": GET api.localhost/x?y, 0 bytes, for 127.0.0.1", "by host, which is forwarded as it is")
}

func TestLimit(t *testing.T) {
	s := start(t)
	var statuses []int
	for range 8 {
		status, _ := s.ask("GET", "/", "Host: api.localhost")
		statuses = append(statuses, status)
	}
	require.Equal(t, []int{200, 200, 200}, statuses[:3], "the burst")
	require.Contains(t, statuses, http.StatusTooManyRequests)
	status, _ := s.ask("GET", "/")
	require.Equal(t, 200, status, "other routes have no limit")
}

func TestServerLeavesAndReturns(t *testing.T) {
	s := start(t)
	state := func(want string) func() bool {
		return func() bool {
			_, body := s.ask("GET", "/servers")
			return regexp.MustCompile(`(?m)^one +` + want).MatchString(body)
		}
	}
	require.Eventually(t, state("up"), 5*time.Second, 20*time.Millisecond)
	_, body := s.ask("POST", "/break")
	require.Contains(t, body, "one: I fail for 2s")
	require.Eventually(t, state("down .*status 503"), 10*time.Second, 20*time.Millisecond)
	for range 4 {
		require.Equal(t, "two", s.by("/"), "one gets nothing")
	}
	require.Eventually(t, state("up"), 10*time.Second, 20*time.Millisecond)
	require.ElementsMatch(t, []string{"one", "two"}, []string{s.by("/"), s.by("/")})
}

func TestLines(t *testing.T) {
	s := start(t)
	c, err := net.Dial("tcp", s.tcp)
	require.NoError(t, err)
	defer c.Close()
	fmt.Fprint(c, "hello\nbye\n")
	all, err := io.ReadAll(bufio.NewReader(c))
	require.NoError(t, err)
	require.Equal(t, "four: say something, or bye\nfour: hello\nfour: bye\n", string(all))
}

// TestAdmin has the page show all there is, and take a server out.
func TestAdmin(t *testing.T) {
	var out output
	g := &Gateway{HTTP: "127.0.0.1:0", TCP: "127.0.0.1:0", Admin: "127.0.0.1:0", Broken: time.Second, Out: &out, Logger: slog.New(slog.DiscardHandler)}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	defer func() {
		stop()
		require.NoError(t, <-done)
	}()
	addrs := regexp.MustCompile(`(http://\S+/)\n.*HTTP on (\S+) and`)
	var found []string
	require.Eventually(t, func() bool { found = addrs.FindStringSubmatch(out.String()); return found != nil }, 5*time.Second, 10*time.Millisecond)
	page := found[1]
	get := func(path string) string {
		resp, err := http.Get(page + path)
		require.NoError(t, err)
		defer resp.Body.Close()
		all, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return string(all)
	}
	for _, what := range []string{"web", "lines", "one", "four", "per client", "docs"} {
		require.Contains(t, get(""), what)
	}
	resp, err := http.PostForm(page+"action", url.Values{"pool": {"web"}, "server": {"one"}, "action": {"drain"}, "reason": {"test"}, "wait": {"drained"}})
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, 200, resp.StatusCode)
	s := started{t, found[2], ""}
	for range 4 {
		require.Equal(t, "two", s.by("/"))
	}
	require.Contains(t, get("explain?url=/docs"), `"taken":"docs"`)
}

func TestTakenAddress(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	g := &Gateway{HTTP: "127.0.0.1:0", TCP: ln.Addr().String(), Out: io.Discard, Logger: slog.New(slog.DiscardHandler)}
	require.ErrorContains(t, g.Run(t.Context()), "choose another address with -tcp")
}

// output is a buffer that one goroutine writes and another reads.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}
