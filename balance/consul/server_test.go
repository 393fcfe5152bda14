// SPDX-License-Identifier: Apache-2.0

package consul_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/balance/consul"
)

var errDown = errors.New("consul is away")

// A server is as much of Consul's HTTP interface in memory as is asked of it here: blocking
// queries for the health of the service web.
type server struct {
	mu      sync.Mutex
	changed chan struct{} // closed when anything below has changed
	index   uint64
	entries map[string]*api.ServiceEntry
	status  int // of all answers; 0 means that all is well, -1 that there are none
	mute    bool
	asked   []string // index and wait of each query
	waiting int
}

func newServer() *server {
	return &server{changed: make(chan struct{}), index: 10, entries: make(map[string]*api.ServiceEntry)}
}

func (s *server) client() *api.Client {
	c, err := api.NewClient(&api.Config{Address: "consul:8500", HttpClient: &http.Client{Transport: s}})
	if err != nil {
		panic(err)
	}
	return c
}

// change changes s, and the index.
func (s *server) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.index++
	f()
	close(s.changed)
	s.changed = make(chan struct{})
}

// queries returns the index and the wait of each query.
func (s *server) queries() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[:len(s.asked):len(s.asked)]
}

// set has an instance with the statuses of its checks: passing, warning, critical, maint,
// node-maint, or node-critical.
func (s *server) set(id, addr string, edit func(*api.ServiceEntry), checks ...string) {
	host, port, _ := strings.Cut(addr, ":")
	n, _ := strconv.Atoi(port)
	e := &api.ServiceEntry{
		Node:    &api.Node{Node: "n1", Address: "10.9.9.9", Datacenter: "dc1"},
		Service: &api.AgentService{ID: id, Service: "web", Address: host, Port: n, Weights: api.AgentWeights{Passing: 1, Warning: 1}},
	}
	for i, c := range checks {
		check := &api.HealthCheck{CheckID: fmt.Sprint("check-", i), Status: c, ServiceID: id}
		switch c {
		case "maint":
			check.CheckID, check.Status = api.ServiceMaintPrefix+id, api.HealthCritical
		case "node-maint":
			check.CheckID, check.Status, check.ServiceID = api.NodeMaint, api.HealthCritical, ""
		case "node-critical":
			check.CheckID, check.Status, check.ServiceID = "serfHealth", api.HealthCritical, ""
		}
		e.Checks = append(e.Checks, check)
	}
	if edit != nil {
		edit(e)
	}
	s.change(func() { s.entries[id] = e })
}

func (s *server) RoundTrip(r *http.Request) (*http.Response, error) {
	q := r.URL.Query()
	index, _ := strconv.ParseUint(q.Get("index"), 10, 64)
	wait, _ := time.ParseDuration(q.Get("wait"))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, q.Get("index")+" "+q.Get("wait"))
	s.waiting++
	defer func() { s.waiting-- }()
	over := time.NewTimer(wait + wait/16)
	defer over.Stop()
	for done := false; !done && s.status == 0 && (s.mute || index > 0 && s.index <= index); {
		changed := s.changed
		s.mu.Unlock()
		select {
		case <-changed:
		case <-over.C:
			done = true
		case <-r.Context().Done():
		}
		s.mu.Lock()
		if s.mute {
			done = false
		}
		if err := r.Context().Err(); err != nil {
			return nil, err
		}
	}
	if s.status < 0 {
		return nil, errDown
	}
	res := &http.Response{StatusCode: max(s.status, 200), Header: http.Header{}, Request: r}
	body := []byte("No cluster leader")
	if s.status == 0 {
		res.Header.Set("X-Consul-Index", strconv.FormatUint(s.index, 10))
		all := []*api.ServiceEntry{}
		for _, e := range s.entries {
			if r.URL.Path == "/v1/health/service/"+e.Service.Service && has(e.Service.Tags, q["tag"]) {
				all = append(all, e)
			}
		}
		body, _ = json.Marshal(all)
	}
	res.Body = io.NopCloser(bytes.NewReader(body))
	return res, nil
}

func has(tags, wanted []string) bool {
	for _, w := range wanted {
		if !strings.Contains(","+strings.Join(tags, ",")+",", ","+w+",") {
			return false
		}
	}
	return true
}

// A followed pool, and what it was told of failures.
type followed struct {
	*balance.Pool

	mu     sync.Mutex
	failed []string
}

func follow(t *testing.T, src *consul.Source) *followed {
	t.Helper()
	src.Service = "web"
	f := &followed{}
	f.Pool = &balance.Pool{AllowEmpty: true, OnEvent: func(e balance.Event) {
		if e.Kind == balance.SourceFailed {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.failed = append(f.failed, e.Reason)
		}
	}}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- f.Follow(ctx, src) }()
	t.Cleanup(func() {
		cancel()
		require.ErrorIs(t, <-ended, context.Canceled)
	})
	return f
}

// settle waits until changes have been told.
func settle() {
	time.Sleep(150 * time.Millisecond)
	synctest.Wait()
}

// servers is each server as name=address, with its weight.
func (f *followed) servers() string {
	var all []string
	for s := range f.All() {
		all = append(all, fmt.Sprintf("%s=%s/%d", strings.TrimPrefix(s.Name(), "n1/"), s.Addr(), s.Endpoint().Weight))
	}
	return strings.Join(all, " ")
}

func (f *followed) failures() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.failed
}
