// SPDX-License-Identifier: Apache-2.0

//go:build !race

package l7_test

import "testing"

// A GET over HTTP/2 through the proxy costs two allocations of the process, those of this
// test's client and server included. The race detector allocates too.
func TestProxyHTTP2Allocations(t *testing.T) {
	if testing.Short() {
		t.Skip("a benchmark of a second")
	}
	const streams = 32
	var r testing.BenchmarkResult
	for range 5 { // what a busy machine adds, as the collector empties pools, is not in every measurement
		r = testing.Benchmark(func(b *testing.B) { benchProxyHTTP2(b, streams) })
		if r.N > 0 && r.AllocsPerOp() < 3*streams-streams/2 {
			return
		}
	}
	t.Errorf("%d rounds, %d allocations for %d requests", r.N, r.AllocsPerOp(), streams)
}
