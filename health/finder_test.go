// SPDX-License-Identifier: Apache-2.0

package health

import (
	"regexp"
	"strings"
	"testing"
	"time"
)

// An answer of which each byte is a piece of its own is not gone through anew
// for each of them.
func TestFinderCostIsLinear(t *testing.T) {
	const size = 64 << 10
	answer := []byte(strings.Repeat("a", size) + "end")
	for _, m := range []Match{{Contains: "end"}, {Regexp: regexp.MustCompile("e.d$")}, {Contains: "aaaa", Regexp: regexp.MustCompile("end")}} {
		f := finder{m: &m}
		start := time.Now()
		for n := range len(answer) {
			if f.found(answer[:n], false) {
				t.Errorf("%s is found in %d of %d bytes", &m, n, len(answer))
			}
		}
		if !f.found(answer, true) {
			t.Errorf("%s is not found", &m)
		}
		if most := 2*freeBytes + 8*size; f.cost > most {
			t.Errorf("%s was looked for in %d bytes of %d; want at most %d", &m, f.cost, size, most)
		}
		if took := time.Since(start); took > 20*time.Second { // f.cost is what counts
			t.Errorf("%s took %v", &m, took)
		}
	}
}

// What a piece completes is found, wherever the pieces end.
func TestFinderAcrossPieces(t *testing.T) {
	for _, m := range []Match{{Contains: "ready"}, {Regexp: regexp.MustCompile("ready")}} {
		for step := 1; step < 8; step++ {
			answer := []byte("220 server is ready")
			f := finder{m: &m}
			for n := 0; n < len(answer); n += step {
				f.found(answer[:n], false)
			}
			if !f.found(answer, false) {
				t.Errorf("%s is not found in pieces of %d", &m, step)
			}
		}
	}
}
