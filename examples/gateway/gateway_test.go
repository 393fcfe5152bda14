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
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l4/l4test"
)

// A started gateway runs until the end of the test, in memory and in virtual time.
type started struct {
	*testing.T
	net    *l4test.Network
	client *http.Client
	out    *bytes.Buffer // what the gateway says
}

// start starts one and tells a story with it. HTTP is at 10.0.0.1:80, TCP at 10.0.0.1:9000, and
// the page for operators at 127.0.0.1:9090.
func start(t *testing.T, story func(s started)) {
	synctest.Test(t, func(t *testing.T) {
		s := started{T: t, net: l4test.NewNetwork(), out: new(bytes.Buffer)}
		g := &Gateway{
			HTTP: "10.0.0.1:80", TCP: "10.0.0.1:9000", Admin: "127.0.0.1:9090", Broken: 2 * time.Second,
			Out: s.out, Logger: slog.New(slog.DiscardHandler), Listen: s.net.Listen, Dial: s.net.DialContext,
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- g.Run(ctx) }()
		synctest.Wait() // it listens
		require.Contains(t, s.out.String(), "HTTP on 10.0.0.1:80 and TCP on 10.0.0.1:9000.")
		transport := &http.Transport{DialContext: s.net.DialFrom(netip.MustParseAddrPort("127.0.0.1:0"))}
		s.client = &http.Client{Transport: transport}
		story(s)
		transport.CloseIdleConnections()
		stop()
		require.NoError(t, <-done, "it drains and ends well")
	})
}

// ask sends a request to path, with a Host and header lines if given.
func (s started) ask(method, path string, lines ...string) (status int, body string) {
	req, err := http.NewRequestWithContext(s.Context(), method, "http://10.0.0.1"+path, nil)
	require.NoError(s, err)
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		if req.Header.Set(name, value); name == "Host" {
			req.Host = value
		}
	}
	resp, err := s.client.Do(req)
	require.NoError(s, err)
	defer resp.Body.Close()
	all, err := io.ReadAll(resp.Body)
	require.NoError(s, err)
	return resp.StatusCode, string(all)
}

// by is the name of the server that answers.
func (s started) by(path string, lines ...string) string {
	_, body := s.ask("GET", path, lines...)
	name, _, _ := strings.Cut(body, ":")
	return name
}

func TestRoutes(t *testing.T) {
	start(t, func(s started) {
		require.ElementsMatch(t, []string{"one", "two"}, []string{s.by("/"), s.by("/")}, "in turn")
		require.Equal(t, "three", s.by("/docs/intro"), "by path")
		require.Contains(t, "one two", s.by("/docsintro"), "a prefix ends at a slash")
		require.Equal(t, "three", s.by("/", "X-Beta: yes"), "by header")
		require.Equal(t, "three", s.by("/", "Cookie: a=b; beta=yes"), "by cookie")
		_, body := s.ask("GET", "/x?y", "Host: api.localhost")
		require.Contains(t, body, ": GET api.localhost/x?y, 0 bytes, for 127.0.0.1", "by host, which is forwarded as it is")
	})
}

// TestLimit is exact, as the clock stands still while the gateway works.
func TestLimit(t *testing.T) {
	start(t, func(s started) {
		count := func(n int) (passed int) {
			for range n {
				if status, _ := s.ask("GET", "/", "Host: api.localhost"); status == http.StatusOK {
					passed++
				} else {
					require.Equal(t, http.StatusTooManyRequests, status)
				}
			}
			return passed
		}
		require.Equal(t, 3, count(8), "the burst")
		status, _ := s.ask("GET", "/")
		require.Equal(t, 200, status, "other routes have no limit")
		time.Sleep(time.Second)
		require.Equal(t, 2, count(8), "two a second")
		time.Sleep(10 * time.Second)
		require.Equal(t, 3, count(8), "the burst")
	})
}

// TestServerLeavesAndReturns has a server break again and again.
func TestServerLeavesAndReturns(t *testing.T) {
	start(t, func(s started) {
		state := func() string {
			_, body := s.ask("GET", "/servers")
			return regexp.MustCompile(`(?m)^one +(\w+)`).FindStringSubmatch(body)[1]
		}
		for range 10 {
			time.Sleep(10 * time.Second)
			require.Equal(t, "up", state())
			_, body := s.ask("POST", "/break")
			require.Contains(t, body, "one: I fail for 2s")
			time.Sleep(1900 * time.Millisecond)
			require.Equal(t, "down", state())
			for range 4 {
				require.Equal(t, "two", s.by("/"), "one gets nothing")
			}
			time.Sleep(2 * time.Second)
			require.Equal(t, "up", state())
			require.ElementsMatch(t, []string{"one", "two"}, []string{s.by("/"), s.by("/")})
		}
	})
}

func TestLines(t *testing.T) {
	start(t, func(s started) {
		c, err := s.net.DialContext(t.Context(), "tcp", "10.0.0.1:9000")
		require.NoError(t, err)
		defer c.Close()
		fmt.Fprint(c, "hello\nbye\n")
		all, err := io.ReadAll(bufio.NewReader(c))
		require.NoError(t, err)
		require.Equal(t, "four: say something, or bye\nfour: hello\nfour: bye\n", string(all))
	})
}

// TestAdmin has the page show all there is, and take a server out.
func TestAdmin(t *testing.T) {
	start(t, func(s started) {
		const page = "http://127.0.0.1:9090/"
		get := func(path string) string {
			resp, err := s.client.Get(page + path)
			require.NoError(t, err)
			defer resp.Body.Close()
			all, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			return string(all)
		}
		for _, what := range []string{"web", "lines", "one", "four", "per client", "docs"} {
			require.Contains(t, get(""), what)
		}
		resp, err := s.client.PostForm(page+"action", url.Values{"pool": {"web"}, "server": {"one"}, "action": {"drain"}, "reason": {"test"}, "wait": {"drained"}})
		require.NoError(t, err)
		resp.Body.Close()
		require.Equal(t, 200, resp.StatusCode)
		for range 4 {
			require.Equal(t, "two", s.by("/"))
		}
		require.Contains(t, get("explain?url=/docs"), `"taken":"docs"`)
	})
}

// TestSockets is the one test of the real network.
func TestSockets(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	r, w := io.Pipe()
	g := &Gateway{HTTP: "127.0.0.1:0", TCP: "127.0.0.1:0", Out: w, Logger: slog.New(slog.DiscardHandler)}
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	said := bufio.NewScanner(r)
	require.True(t, said.Scan())
	addr := regexp.MustCompile(`HTTP on (\S+) and`).FindStringSubmatch(said.Text())[1]
	go func() { _, _ = io.Copy(io.Discard, r) }()
	resp, err := http.Get("http://" + addr + "/docs")
	require.NoError(t, err)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	resp.Body.Close()
	require.Contains(t, string(body), "three: GET")
	http.DefaultClient.CloseIdleConnections()
	stop()
	require.NoError(t, <-done)
}

func TestTakenAddress(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	g := &Gateway{HTTP: "127.0.0.1:0", TCP: ln.Addr().String(), Out: io.Discard, Logger: slog.New(slog.DiscardHandler)}
	require.ErrorContains(t, g.Run(t.Context()), "choose another address with -tcp")
}
