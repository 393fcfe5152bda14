// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/health"
	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/ratelimit"
)

// A result is the result of a trial.
type result struct {
	requests, failed atomic.Int64
	firstFailure     atomic.Pointer[string]
	admitted         atomic.Int64 // by the limit
	refused          atomic.Int64
	possible         atomic.Int64 // what one limiter that hears of all requests admits
	took             time.Duration
	settled          []settling
}

// A settling is how long it took until all gateways agreed again.
type settling struct {
	what   string
	killed time.Duration // after the kill
	back   time.Duration // after it was started again
}

// law is what the limit allows in the time that the trial took.
func (r *result) law() float64 { return limited * (1 + r.took.Seconds()) }

func (r *result) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d requests in %v, %d failed\n", r.requests.Load(), r.took.Round(100*time.Millisecond), r.failed.Load())
	fmt.Fprintf(&b, "the limit admitted %d of %d, %.3f of the law and %.3f of what one limiter admits\n", r.admitted.Load(), r.admitted.Load()+r.refused.Load(),
		float64(r.admitted.Load())/r.law(), float64(r.admitted.Load())/float64(r.possible.Load()))
	for _, s := range r.settled {
		fmt.Fprintf(&b, "%-8s all agreed %5v after it was killed, %5v after it was back\n", s.what, s.killed.Round(10*time.Millisecond), s.back.Round(10*time.Millisecond))
	}
	return b.String()
}

// wrong returns what must not have happened.
func (r *result) wrong() error {
	var errs []error
	if n := r.failed.Load(); n > 0 {
		errs = append(errs, fmt.Errorf("%d requests failed, the first: %s", n, *r.firstFailure.Load()))
	}
	if share := float64(r.admitted.Load()) / r.law(); share > 1.02 {
		errs = append(errs, fmt.Errorf("the limit admitted %.3f of the law", share))
	}
	// A machine that stalls asks for less than the law allows.
	if n, possible := r.admitted.Load(), r.possible.Load(); float64(n) < 0.8*float64(possible) {
		errs = append(errs, fmt.Errorf("the limit admitted %d, and one limiter admits %d", n, possible))
	}
	return errors.Join(errs...)
}

// A trial is a fleet of real processes.
type trial struct {
	result
	dir              string
	etcd, redis      *process
	servers, gateway []*process
	client           *http.Client
	limit            ratelimit.Keyed[string] // the one limiter
}

// try plays a fleet.
func try(ctx context.Context, short bool) (*result, error) {
	dir, err := os.MkdirTemp("", "fleet")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	t := &trial{dir: dir, limit: ratelimit.Keyed[string]{Law: ratelimit.GCRA{Rate: ratelimit.PerSecond(limited)}}}
	defer t.stop()
	if err := t.start(ctx); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var load sync.WaitGroup
	defer load.Wait()
	defer cancel()
	if err := t.connect(ctx, &load); err != nil {
		return nil, err
	}
	begin := time.Now()
	for range 4 {
		load.Go(func() { t.load(ctx, "/", 20*time.Millisecond) })
		load.Go(func() { t.load(ctx, "/limited", 6*time.Millisecond) })
	}
	// Gateways come last: one that has just started and finds no Redis does not know what was
	// used, and begins with its part of the limit.
	engines := []*process{t.redis, t.etcd}
	victims := slices.Concat(t.servers[:2], engines, t.gateway)
	if !short {
		victims = slices.Concat(t.servers, engines, t.gateway)
	}
	for _, p := range victims {
		if err := t.kill(ctx, p); err != nil {
			return nil, err
		}
	}
	cancel()
	load.Wait()
	t.took = time.Since(begin)
	return &t.result, nil
}

// start starts all processes and waits until the gateways agree.
func (t *trial) start(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	ports, err := freePorts(26)
	if err != nil {
		return err
	}
	url, peers := "http://"+ports[0], "http://"+ports[1]
	t.etcd = &process{name: "etcd", addr: ports[0], args: []string{"etcd", "--name", "one", "--data-dir", filepath.Join(t.dir, "etcd"),
		"--listen-client-urls", url, "--advertise-client-urls", url, "--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers, "--initial-cluster", "one=" + peers}}
	_, port, _ := strings.Cut(ports[2], ":")
	t.redis = &process{name: "redis", addr: ports[2], args: []string{"redis-server", "--bind", "127.0.0.1", "--port", port, "--save", "", "--dir", t.dir}}
	all := []*process{t.etcd, t.redis}
	for i := range 20 {
		name := fmt.Sprintf("web-%d", i+1)
		t.servers = append(t.servers, &process{name: name, addr: ports[3+i], args: []string{self, "server", "-name", name, "-http", ports[3+i], "-etcd", ports[0]}})
	}
	for i := range 3 {
		name := fmt.Sprintf("gw-%d", i+1)
		t.gateway = append(t.gateway, &process{name: name, addr: ports[23+i], args: []string{self, "gateway", "-name", name, "-http", ports[23+i], "-etcd", ports[0], "-redis", ports[2]}})
	}
	for _, p := range slices.Concat(all, t.servers, t.gateway) {
		p.log = filepath.Join(t.dir, p.name+".log")
		if err := p.start(); err != nil {
			return err
		}
	}
	_, err = t.agree(ctx)
	return err
}

// stop kills all processes.
func (t *trial) stop() {
	for _, p := range slices.Concat(t.gateway, t.servers, []*process{t.redis, t.etcd}) {
		if p != nil {
			p.kill()
		}
	}
}

// connect makes the client: it balances over the gateways, and asks another one when one is gone.
func (t *trial) connect(ctx context.Context, running *sync.WaitGroup) error {
	pool := &balance.Pool{Name: "fleet"}
	var eps []balance.Endpoint
	for _, p := range t.gateway {
		eps = append(eps, balance.Endpoint{Name: p.name, Addr: p.addr})
	}
	if err := pool.Set(eps...); err != nil {
		return err
	}
	checks := &health.Checker{Pools: []*balance.Pool{pool}, Probe: health.HTTP{Path: "/-/view"}, Interval: 300 * time.Millisecond, Fall: 2}
	running.Go(func() { _ = checks.Run(ctx) })
	t.client = &http.Client{Timeout: 10 * time.Second, Transport: &l7.Transport{
		Pool: pool, Retry: l7.Retry{Tries: 4, Statuses: []int{502, 503, 504}},
	}}
	return nil
}

// load asks again and again until ctx ends.
func (t *trial) load(ctx context.Context, path string, every time.Duration) {
	ticks := time.NewTicker(every)
	defer ticks.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
		}
		if path == "/limited" && t.limit.Take("all", 1).OK {
			t.possible.Add(1)
		}
		status, err := t.get(context.WithoutCancel(ctx), "http://fleet"+path, nil)
		t.requests.Add(1)
		switch {
		case err == nil && status == 200 && path == "/limited":
			t.admitted.Add(1)
		case err == nil && status == 429 && path == "/limited":
			t.refused.Add(1)
		case err != nil || status != 200:
			t.failed.Add(1)
			text := fmt.Sprintf("%s at %v: %d %v", path, time.Now().Format(time.TimeOnly), status, err)
			t.firstFailure.CompareAndSwap(nil, &text)
		}
	}
}

// get asks for url, and decodes the answer into v unless that is nil.
func (t *trial) get(ctx context.Context, url string, v any) (status int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	client := t.client
	if v != nil {
		client = http.DefaultClient // a gateway of its own, not the fleet
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if v != nil {
		return resp.StatusCode, json.NewDecoder(resp.Body).Decode(v)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}

// kill kills p, waits until all agree, starts it again, and waits once more.
func (t *trial) kill(ctx context.Context, p *process) (err error) {
	s := settling{what: p.name}
	p.kill()
	if s.killed, err = t.agree(ctx); err != nil {
		return fmt.Errorf("after %s was killed: %w", p.name, err)
	}
	if p == t.redis || p == t.etcd { // which changes no set: give it time to be missed
		time.Sleep(2 * time.Second)
	}
	if err := p.start(); err != nil {
		return err
	}
	if s.back, err = t.agree(ctx); err != nil {
		return fmt.Errorf("after %s was back: %w", p.name, err)
	}
	t.settled = append(t.settled, s)
	return nil
}

// agree waits until every gateway that runs knows how many there are, and all together use
// every server that runs and no other.
func (t *trial) agree(ctx context.Context) (time.Duration, error) {
	begin := time.Now()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		differs := t.differ(ctx)
		if differs == "" {
			return time.Since(begin), nil
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("they do not agree in a minute: %s", differs)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// differ says in what the gateways are wrong.
func (t *trial) differ(ctx context.Context) string {
	used := map[string]bool{}
	gateways := 0
	for _, p := range t.gateway {
		if p.runs() {
			gateways++
		}
	}
	for _, p := range t.gateway {
		if !p.runs() {
			continue
		}
		var v view
		if _, err := t.get(ctx, "http://"+p.addr+"/-/view", &v); err != nil {
			return err.Error()
		}
		if v.Gateways != gateways {
			return fmt.Sprintf("%s knows %d gateways of %d", p.name, v.Gateways, gateways)
		}
		for _, s := range v.Servers {
			used[s] = true
		}
	}
	for _, p := range t.servers {
		if p.runs() != used[p.name] {
			return fmt.Sprintf("%s runs: %v, is used: %v", p.name, p.runs(), used[p.name])
		}
	}
	return ""
}
