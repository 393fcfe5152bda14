// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/examples/inference/model"
	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
)

// A cluster is a gateway and four fake servers, in memory and in virtual time.
type cluster struct {
	*testing.T
	net    *l4test.Network
	pool   *balance.Pool
	client *http.Client
	models map[string]*model.Server
	fault  atomic.Pointer[http.HandlerFunc] // answers requests for completions in place of all servers, if there is one
}

// server is a model whose answers the test may replace.
func (c *cluster) server(m *model.Server) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if f := c.fault.Load(); f != nil && r.Method == http.MethodPost {
			(*f)(w, r)
			return
		}
		m.ServeHTTP(w, r)
	}
}

// inCluster runs a story.
func inCluster(t *testing.T, policy string, story func(c *cluster)) {
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{T: t, net: l4test.NewNetwork(), models: map[string]*model.Server{}}
		var addrs []string
		for i := range 4 {
			addr := fmt.Sprintf("10.0.0.%d:8000", i+1)
			addrs = append(addrs, addr)
			c.models[addr] = &model.Server{Blocks: 1200}
			c.serve(addr, &http.Server{Handler: c.server(c.models[addr])})
		}
		var err error
		c.pool, err = newPool(policy, addrs...)
		require.NoError(t, err)
		c.pool.Seed = 1
		upstream := &l7.Upstream{Dial: c.net.DialContext}
		t.Cleanup(upstream.CloseIdle)
		c.serve("10.0.0.9:80", &l7.Server{Handler: gateway(c.pool, upstream)})
		transport := &http.Transport{DialContext: c.net.DialContext}
		t.Cleanup(transport.CloseIdleConnections)
		c.client = &http.Client{Transport: transport}

		ctx, cancel := context.WithCancel(t.Context())
		polled := make(chan struct{})
		go func() { defer close(polled); poll(ctx, c.pool, c.client, time.Second) }()
		t.Cleanup(func() { cancel(); <-polled })
		story(c)
	})
}

// serve starts a server at an address, and stops it at the end.
func (c *cluster) serve(addr string, s interface {
	Serve(ln net.Listener) error
	Close() error
}) {
	ln, err := c.net.Listen("tcp", addr)
	require.NoError(c, err)
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(ln) }()
	c.Cleanup(func() { _ = s.Close(); <-done })
}

// chat asks for 20 tokens that stream. It returns them, when the first and the last one came,
// and why the reply ended early.
func (c *cluster) chat(messages string) (tokens int, first, last time.Duration, err error) {
	begin := time.Now()
	body := `{"model": "m", "stream": true, "max_tokens": 20, "messages": [` + messages + `]}`
	resp, err := c.client.Post("http://10.0.0.9/v1/chat/completions", "application/json", strings.NewReader(body))
	if err != nil {
		return 0, 0, 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return 0, 0, 0, fmt.Errorf("status %d", resp.StatusCode)
	}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "data: {") {
			if last = time.Since(begin); tokens == 0 {
				first = last
			}
			tokens++
		}
	}
	return tokens, first, last, lines.Err()
}

func message(role, content string) string {
	return fmt.Sprintf(`{"role": %q, "content": %q}`, role, content)
}

// hits returns the part of all blocks of prompts that were in a cache.
func (c *cluster) hits() float64 {
	hits, asked := 0, 0
	for _, m := range c.models {
		hits, asked = hits+m.Figures().Hits, asked+m.Figures().Asked
	}
	return float64(hits) / float64(asked)
}

// TestConversations: each turn is sent where the turns before are in the cache.
func TestConversations(t *testing.T) {
	hits := map[string]float64{}
	for policy := range policies {
		inCluster(t, policy, func(c *cluster) {
			var wg sync.WaitGroup
			for user := range 30 {
				rng := rand.New(rand.NewPCG(1, uint64(user)))
				pause := func() { time.Sleep(time.Duration(rng.Int64N(int64(6 * time.Second)))) }
				wg.Go(func() {
					pause()
					history := message("system", strings.Repeat("You are helpful. ", 100)) + ", " + message("user", strings.Repeat(fmt.Sprint("I am user ", user), 400))
					for turn := range 6 {
						tokens, first, last, err := c.chat(history)
						require.NoError(c, err)
						require.Equal(c, 20, tokens)
						require.GreaterOrEqual(c, last-first, 19*20*time.Millisecond, "tokens come as they are made")
						history += ", " + message("assistant", strings.Repeat("Indeed. ", 40)) + ", " + message("user", fmt.Sprint("Question ", turn))
						pause()
					}
				})
			}
			wg.Wait()
			hits[policy] = c.hits()
		})
	}
	t.Log(hits)
	require.Greater(t, hits["scored"], hits["leastconn"]+0.1)
	require.Greater(t, hits["ring"], hits["leastconn"]+0.1)
}

// TestBusyServerIsSpared has work that the gateway does not know of: the metrics tell.
func TestBusyServerIsSpared(t *testing.T) {
	inCluster(t, "scored", func(c *cluster) {
		busy := c.models["10.0.0.1:8000"]
		ctx, cancel := context.WithCancel(c.Context())
		var wg sync.WaitGroup
		for range 60 {
			wg.Go(func() { _ = busy.Generate(ctx, make([]uint64, 9), 5000, func(int) error { return nil }) })
		}
		time.Sleep(2 * time.Second)
		l, ok := c.pool.Server("10.0.0.1:8000").Load(waiting)
		require.True(c, ok)
		require.Equal(c, 44.0, l.Value)
		for user := range 40 {
			_, _, _, err := c.chat(message("user", fmt.Sprint("I am ", user)))
			require.NoError(c, err)
		}
		require.Zero(c, c.pool.Server("10.0.0.1:8000").Stats().Picks)
		cancel()
		wg.Wait()
		time.Sleep(2 * time.Second) // it has said so
		for user := range 40 {
			_, _, _, err := c.chat(message("user", fmt.Sprint("I am ", user)))
			require.NoError(c, err)
		}
		require.NotZero(c, c.pool.Server("10.0.0.1:8000").Stats().Picks)
	})
}

// TestRetriesEndWithTheFirstToken: a server that fails before it answers is replaced by
// another one, and one that breaks off in the middle is not.
func TestRetriesEndWithTheFirstToken(t *testing.T) {
	inCluster(t, "scored", func(c *cluster) {
		var tries, after atomic.Int64
		fails := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.ReadAll(r.Body)
			if tries.Add(1); after.Load() == 0 {
				c.fault.Store(nil) // the next one is well
			}
			for i := range after.Load() {
				w.Header().Set("Content-Type", "text/event-stream")
				fmt.Fprintf(w, "data: {\"token\": %d}\n\n", i)
				_ = http.NewResponseController(w).Flush()
				time.Sleep(time.Second)
			}
			panic(http.ErrAbortHandler)
		})
		c.fault.Store(&fails)
		tokens, _, _, err := c.chat(message("user", strings.Repeat("long ", 10000)))
		require.NoError(c, err)
		require.Equal(c, []int64{20, 1}, []int64{int64(tokens), tries.Load()}, "tries that failed")

		after.Store(3)
		tries.Store(0)
		c.fault.Store(&fails)
		tokens, _, _, err = c.chat(message("user", "Hello!"))
		require.Error(c, err)
		require.Equal(c, []int64{3, 1}, []int64{int64(tokens), tries.Load()})
	})
}

func TestPrompt(t *testing.T) {
	for body, want := range map[string]string{
		`{"model": "m", "prompt": "Once upon"}`:                       "m\nOnce upon",
		`{"prompt": ["Once", "upon"], "n": {"a": [1]}, "model": "m"}`: "m\nOnceupon",
		`{"prompt": "Once up`:                                         "\nOnce up",
		`{"prompt": "Once\u00`:                                        "\nOnce",
		`{"messages": [{"role": "system", "content": "Be brief."}, {"content": "Hi", "role": "user"}], "model": "m"}`:         "m\nsystem: Be brief.\nuser: Hi\n",
		`{"model": "m", "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}, {"role": "us`: "m\nuser: Hi\n",
		`{"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]}`:                                       "\nuser: typetexttextHi\n",
		`{}`: "", `[]`: "", `{"prompt": 7}`: "", `{"messages": {}}`: "", `{"messages": [1, 2], "x": 1}`: "", ``: "",
	} {
		require.Equal(t, want, promptOf([]byte(body), 100), body)
	}
	require.Equal(t, "\nOnc", promptOf([]byte(`{"prompt": "Once upon"}`), 3))
}

func FuzzPrompt(f *testing.F) {
	f.Add([]byte(`{"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi\u00e9"}]}]}`), 40)
	f.Add([]byte(`{"prompt": "Once`), 3)
	f.Fuzz(func(t *testing.T, body []byte, most int) {
		if most < 0 {
			return
		}
		before := string(body)
		p := promptOf(body, most)
		require.Equal(t, before, string(body), "the body is changed")
		require.Equal(t, p, promptOf(body, most))
	})
}

func TestSamples(t *testing.T) {
	text := "# HELP x y\n\nvllm:num_requests_waiting{engine=\"0\",name=\"a}\\\"b\"} 3.0\nplain 4 1700000000000\n" +
		"bad\n{} 1\nbroken{a=\"b 1\nmany 1 2 3\nword x\nnan NaN\ninf{} +Inf\n"
	var got []string
	require.NoError(t, samples(strings.NewReader(text), func(name string, v float64) { got = append(got, fmt.Sprint(name, " ", v)) }))
	require.Equal(t, []string{"vllm:num_requests_waiting 3", "plain 4", "nan NaN", "inf +Inf"}, got)
}

func FuzzSamples(f *testing.F) {
	f.Add("a{b=\"c\"} 1\n# x\nd 2 3\n")
	f.Fuzz(func(t *testing.T, s string) {
		_ = samples(strings.NewReader(s), func(name string, _ float64) {
			if name == "" || strings.ContainsAny(name, " {\n") {
				t.Errorf("%q in %q", name, s)
			}
		})
	})
}
