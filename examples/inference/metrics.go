// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/penstock-lb/penstock/balance"
)

// The numbers that count, by vLLM's names of its metrics. Other servers have others:
// sglang:num_queue_reqs and sglang:token_usage, say.
const (
	waiting    = "vllm:num_requests_waiting"
	cacheUsage = "vllm:kv_cache_usage_perc"
)

// poll asks each server of the pool for its metrics and reports those that count, every so
// often, until ctx ends. A server that does not answer is left out: its numbers grow old,
// and balance.Scored ignores them then.
func poll(ctx context.Context, pool *balance.Pool, client *http.Client, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		var wg sync.WaitGroup
		for s := range pool.All() {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(ctx, every)
				defer cancel()
				if loads, err := scrape(ctx, client, "http://"+s.Addr()+"/metrics"); err == nil {
					s.ReportLoad(loads...)
				}
			})
		}
		wg.Wait()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// scrape reads the metrics at a URL.
func scrape(ctx context.Context, client *http.Client, url string) ([]balance.Load, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("metrics: %s", resp.Status)
	}
	// A server of several engines has a line for each: their queues add up, and of their
	// caches the fullest counts.
	found := map[string]float64{}
	err = samples(io.LimitReader(resp.Body, 4<<20), func(name string, value float64) {
		switch was, again := found[name]; {
		case name == waiting:
			found[name] = was + value
		case name == cacheUsage && (!again || value > was):
			found[name] = value
		}
	})
	var loads []balance.Load
	for name, value := range found {
		loads = append(loads, balance.Load{Name: name, Value: value})
	}
	return loads, err
}

// samples calls f for each sample of a text in Prometheus' exposition format, version 0.0.4.
// Labels are skipped, and so are lines that are not well-formed.
func samples(r io.Reader, f func(name string, value float64)) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 64<<10)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		end := strings.IndexAny(line, "{ \t")
		if end <= 0 || line[0] == '#' {
			continue
		}
		name, rest := line[:end], line[end:]
		if rest[0] == '{' {
			end := labelsEnd(rest)
			if end < 0 {
				continue
			}
			rest = rest[end:]
		}
		if fields := strings.Fields(rest); len(fields) == 1 || len(fields) == 2 { // a time may follow
			if value, err := strconv.ParseFloat(fields[0], 64); err == nil {
				f(name, value)
			}
		}
	}
	return lines.Err()
}

// labelsEnd returns where the labels at the beginning of s end, -1 if they do not. A brace
// may be in a value, and a quote behind a backslash.
func labelsEnd(s string) int {
	quoted := false
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && quoted:
			i++
		case s[i] == '"':
			quoted = !quoted
		case s[i] == '}' && !quoted:
			return i + 1
		}
	}
	return -1
}
