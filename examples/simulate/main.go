// SPDX-License-Identifier: Apache-2.0

// Simulate compares the algorithms of package balance: it lets real pools balance over
// simulated servers, in virtual time, and draws the results.
//
//	go run ./examples/simulate -out plots
//
// The code reads like a program that waits in real time. It runs in a bubble of
// testing/synctest, where time moves on as soon as everybody waits: minutes of work
// take seconds, and the same seed gives the same figures. It also plays a fleet of gateways: parts of
// a large pool, limits that they keep together, and a store that is away for a while.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func main() {
	// Virtual time exists inside a test only, so the whole program is one.
	testing.Main(func(string, string) (bool, error) { return true, nil },
		[]testing.InternalTest{{Name: "simulate", F: run}}, nil, nil)
}

var (
	out    = flag.String("out", "plots", "folder for the plots")
	seed   = flag.Uint64("seed", 1, "of all random numbers; not 0")
	length = flag.Duration("length", 30*time.Second, "of each scenario, in virtual time; at least 1s")
)

// run draws all plots.
func run(t *testing.T) {
	if *length < time.Second || *seed == 0 {
		t.Fatal("simulate: -length must be at least 1s, -seed must not be 0")
	}
	if err := os.MkdirAll(*out, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, p := range slices.Concat(plots, fleetPlots) {
		begin := time.Now()
		c := p.draw(t, *seed, *length)
		if err := os.WriteFile(filepath.Join(*out, p.file), []byte(c.svg()), 0o644); err != nil {
			t.Fatal(err)
		}
		fmt.Printf("%s (%.1f s)\n%s\n", p.file, time.Since(begin).Seconds(), c.table())
	}
}

// A plot is one picture.
type plot struct {
	file string
	draw func(t *testing.T, seed uint64, length time.Duration) *chart
}

var plots = []plot{
	{"steady.svg", steady},
	{"slow.svg", oneSlow},
	{"failing.svg", oneFailing},
	{"cold.svg", oneCold},
	{"canary.svg", canary},
	{"spread.svg", keySpread},
	{"moved.svg", keysMoved},
	{"skew.svg", skew},
	{"pairs.svg", moved},
	{"cachehits.svg", cacheHits},
	{"firsttoken.svg", firstToken},
}

// fleetPlots differ a little from run to run, as they are made of many goroutines.
var fleetPlots = []plot{
	{"overshoot.svg", overshoot},
	{"questions.svg", questions},
	{"stampede.svg", stampede},
}

// bubble runs f in virtual time.
func bubble(t *testing.T, f func()) {
	synctest.Test(t, func(*testing.T) { f() })
}
