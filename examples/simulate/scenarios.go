// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"
	"time"

	"github.com/penstock-lb/penstock/balance"
)

// A contender is an algorithm with a name for the legend.
type contender struct {
	name   string
	policy balance.Policy
}

var contenders = []contender{
	{"Random", balance.Random{}},
	{"RoundRobin", balance.RoundRobin{}},
	{"TwoChoices", balance.TwoChoices{}},
	{"LeastConn", balance.LeastConn{}},
	{"PeakEWMA", balance.PeakEWMA{}},
	{"Maglev", balance.Maglev{}},
	{"Maglev 1.25", balance.Maglev{Bound: 1.25}},
}

// load is how many requests come in a second: 70 % of what the servers can do.
const load = 0.7 * servers * 400

// contest runs the same requests through every contender.
func contest(t *testing.T, seed uint64, length time.Duration, prepare func(*world)) (names []string, seen [][]sample) {
	for _, c := range contenders {
		bubble(t, func() {
			w := newWorld(&balance.Pool{Policy: c.policy}, seed)
			prepare(w)
			w.run(seed, load, length)
			names = append(names, c.name)
			seen = append(seen, w.seen)
		})
	}
	return names, seen
}

// latencies draws the median and the 99th percentile.
func latencies(title string, names []string, seen [][]sample) *chart {
	c := &chart{title: title, y: "milliseconds", x: names, log: true}
	var p50, p99 []float64
	for _, s := range seen {
		p50 = append(p50, quantile(s, 0.5))
		p99 = append(p99, quantile(s, 0.99))
	}
	c.series = []series{{"p50", p50}, {"p99", p99}}
	return c
}

// steady has servers which are all alike and well.
func steady(t *testing.T, seed uint64, length time.Duration) *chart {
	names, seen := contest(t, seed, length, func(*world) {})
	return latencies("Ten equal servers at 70 % load: latency", names, seen)
}

// oneSlow has one server that takes three times as long.
func oneSlow(t *testing.T, seed uint64, length time.Duration) *chart {
	names, seen := contest(t, seed, length, func(w *world) {
		w.machines["server3"].set(always(30 * time.Millisecond))
	})
	return latencies("One of ten servers is three times as slow: latency", names, seen)
}

// oneFailing has one server that fails fast in the second third of the time. Nobody
// ejects it: this is what the algorithm alone makes of it.
func oneFailing(t *testing.T, seed uint64, length time.Duration) *chart {
	names, seen := contest(t, seed, length, func(w *world) {
		w.machines["server3"].fails = func() bool {
			since := time.Since(w.start)
			return since > length/3 && since < 2*length/3
		}
	})
	c := &chart{title: "One of ten servers fails fast for a while: failed requests", y: "percent while it fails", x: names}
	var failed []float64
	for _, all := range seen {
		var during []sample
		for _, s := range all {
			if s.at > length/3 && s.at < 2*length/3 {
				during = append(during, s)
			}
		}
		failed = append(failed, failures(during))
	}
	c.series = []series{{"failed", failed}}
	return c
}

// oneCold has one server that comes back at a third of the time with cold caches: it
// begins five times as slow, and each request it serves makes it a bit faster.
func oneCold(t *testing.T, seed uint64, length time.Duration) *chart {
	const slots = 30
	c := &chart{title: "A cold server comes back at one third of the time: p99 over time", y: "milliseconds", lines: true, log: true}
	for i := range slots {
		c.x = append(c.x, (length * time.Duration(i) / slots).Round(100*time.Millisecond).String())
	}
	for _, run := range []struct {
		name string
		pool *balance.Pool
	}{
		{"RoundRobin", &balance.Pool{Policy: balance.RoundRobin{}}},
		{"RoundRobin, slow start", &balance.Pool{Policy: balance.RoundRobin{}, SlowStart: balance.SlowStart{Window: length / 3}}},
		{"LeastConn", &balance.Pool{Policy: balance.LeastConn{}}},
		{"LeastConn, slow start", &balance.Pool{Policy: balance.LeastConn{}, SlowStart: balance.SlowStart{Window: length / 3}}},
	} {
		bubble(t, func() {
			w := newWorld(run.pool, seed)
			cold := w.pool.Server("server3")
			m := w.machines["server3"]
			time.Sleep(length) // everybody else is warm
			w.start = time.Now()
			cold.Report(balance.Check, balance.Down, "restarting")
			time.AfterFunc(length/3, func() {
				m.set(func(served int) time.Duration {
					return time.Duration(float64(10*time.Millisecond) * (1 + 4*max(0, 1-float64(served)/1000)))
				})
				cold.Report(balance.Check, balance.Up, "")
			})
			w.run(seed, load, length)
			bySlot := make([][]sample, slots)
			for _, s := range w.seen {
				i := min(int(s.at*slots/length), slots-1)
				bySlot[i] = append(bySlot[i], s)
			}
			var p99 []float64
			for _, s := range bySlot {
				p99 = append(p99, quantile(s, 0.99))
			}
			c.series = append(c.series, series{run.name, p99})
		})
	}
	return c
}
