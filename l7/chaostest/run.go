// SPDX-License-Identifier: Apache-2.0

package chaostest

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A Gateway is what is tested: an [l7.Server], or an [http.Server].
type Gateway interface {
	Serve(net.Listener) error
	Shutdown(context.Context) error
}

// shrinkTries is how often a story that failed is played again, shorter.
const shrinkTries = 300

// Run plays the seeds of p, each in a subtest of its own and in a world of its own.
// Build makes the gateway; it is called for each, inside the bubble, and must make
// everything anew.
func Run(t *testing.T, p Plan, build func(w *World) Gateway) {
	p = p.complete()
	if v := os.Getenv("PENSTOCK_SEED"); v != "" {
		seed, err := strconv.ParseUint(v, 10, 64)
		if err != nil {
			t.Fatalf("PENSTOCK_SEED: %v", err)
		}
		p.First, p.Seeds = seed, 1
	}
	for i := range p.Seeds {
		seed := p.First + uint64(i)
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			steps := story(seed, p)
			faults := play(t, p, build, steps)
			if len(faults) == 0 {
				return
			}
			short := shrink(steps, shrinkTries, func(s []step) bool { return len(play(t, p, build, s)) > 0 })
			if f := play(t, p, build, short); len(f) > 0 {
				faults = f
			} else {
				short = steps // it fails now and then
			}
			t.Errorf("%s\nPENSTOCK_SEED=%d plays it again. The shortest story found:\n%s", strings.Join(faults, "\n"), seed, tell(short))
		})
	}
}

// play plays a story and returns what was wrong.
func play(t *testing.T, p Plan, build func(w *World) Gateway, steps []step) (faults []string) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(p)
		gateway := build(w)
		ln, err := w.net.Listen("tcp", front)
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan error, 1)
		go func() { served <- gateway.Serve(ln) }()
		for _, s := range steps {
			time.Sleep(time.Until(w.start.Add(s.at)))
			w.do(s)
			w.look()
		}
		time.Sleep(time.Millisecond) // a connection that is not accepted yet may be refused
		ctx, cancel := context.WithTimeout(context.Background(), p.Patience)
		defer cancel()
		if err := gateway.Shutdown(ctx); err != nil {
			w.wrong("Shutdown has not come to its end: %v", err)
		}
		w.asking.Wait()
		w.end()
		<-served
		synctest.Wait()
		w.empty()
		faults = w.faults
	})
	return faults
}
