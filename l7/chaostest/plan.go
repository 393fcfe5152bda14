// SPDX-License-Identifier: Apache-2.0

package chaostest

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// A Plan says what is played. The zero Plan plays 100 seeds.
type Plan struct {
	Seeds    int           // how many; 0 means 100
	First    uint64        // the first seed, from where they count up; 0 means 1
	Servers  int           // of each world; 0 means 3
	Steps    int           // of each story; 0 means 60
	Patience time.Duration // within which every request must end; 0 means 5 minutes

	// NoLoss also demands that a request that may be repeated is answered by a server if
	// one has been well all the time: the gateway must then try each server, so that
	// [l7.Retry] allows as many tries as there are servers.
	NoLoss bool
}

func (p Plan) complete() Plan {
	p.Seeds, p.First = cmp.Or(p.Seeds, 100), cmp.Or(p.First, 1)
	p.Servers, p.Steps = cmp.Or(p.Servers, 3), cmp.Or(p.Steps, 60)
	p.Patience = cmp.Or(p.Patience, 5*time.Minute)
	return p
}

type kind int

const (
	request kind = iota
	down         // the server is gone: connections are reset, new ones refused
	up
	reset   // all its connections
	stall   // it sends nothing more on connections that exist
	slow    // latency of what it sends
	refuse  // it answers 503
	lose    // packets to it are lost: dials hang
	cut     // its next connection breaks in the middle
	heal    // ends stall, slow, refuse and lose
	remove  // it leaves the pool
	restore // and comes back
	drain
	maint
	ready
	kinds
)

var names = [...]string{"request", "down", "up", "reset", "stall", "slow", "refuse", "lose", "cut", "heal", "remove", "restore", "drain", "maint", "ready"}

// A step is what happens at a time of the story.
type step struct {
	at    time.Duration
	kind  kind
	who   int // server, or client of a request
	bytes int64
	wait  time.Duration
	ask   ask
}

// An ask is a request, and the reply that it asks for.
type ask struct {
	method  string
	body    int64
	chunked bool // the request's length is not told
	reply   int64
	open    bool          // the reply's length is not told
	think   time.Duration // of the server
	leave   time.Duration // after which the client gives up; 0 means never
}

func (s step) String() string {
	at := fmt.Sprintf("%10v  ", s.at.Round(time.Millisecond))
	switch s.kind {
	case request:
		a := s.ask
		line := fmt.Sprintf("%sclient %d: %s, %d bytes, for a reply of %d", at, s.who, a.method, a.body, a.reply)
		if a.think > 0 {
			line += fmt.Sprintf(" after %v", a.think)
		}
		if a.leave > 0 {
			line += fmt.Sprintf(", gives up after %v", a.leave)
		}
		return line
	case slow:
		return fmt.Sprintf("%sserver %d: %s by %v", at, s.who, names[s.kind], s.wait)
	case cut:
		return fmt.Sprintf("%sserver %d: %s after %d bytes", at, s.who, names[s.kind], s.bytes)
	}
	return fmt.Sprintf("%sserver %d: %s", at, s.who, names[s.kind])
}

func tell(steps []step) string {
	var b strings.Builder
	for _, s := range steps {
		b.WriteString("  " + s.String() + "\n")
	}
	return b.String()
}

const clients = 4 // half of them speak HTTP/2

// story draws the steps of a seed.
func story(seed uint64, p Plan) []step {
	r := rand.New(rand.NewPCG(seed, 0))
	var steps []step
	at := time.Duration(0)
	for range p.Steps {
		at += time.Duration(r.ExpFloat64() * float64(300*time.Millisecond))
		if r.IntN(20) == 0 { // past the timeouts that keep things
			at += time.Duration(r.IntN(90)) * time.Second
		}
		s := step{at: at, who: r.IntN(p.Servers)}
		if r.IntN(3) > 0 {
			s.kind, s.who, s.ask = request, r.IntN(clients), drawAsk(r)
		} else {
			s.kind = down + kind(r.IntN(int(kinds-down)))
			s.bytes = size(r)
			s.wait = time.Duration(r.IntN(3000)) * time.Millisecond
		}
		steps = append(steps, s)
	}
	return steps
}

func drawAsk(r *rand.Rand) ask {
	methods := []string{"GET", "GET", "GET", "HEAD", "PUT", "POST", "POST", "DELETE"}
	a := ask{method: methods[r.IntN(len(methods))], reply: size(r), open: r.IntN(3) == 0}
	if a.method == "POST" || a.method == "PUT" {
		a.body, a.chunked = size(r), r.IntN(3) == 0
	}
	if r.IntN(3) == 0 {
		a.think = time.Duration(r.IntN(2000)) * time.Millisecond
	}
	if r.IntN(6) == 0 {
		a.leave = time.Duration(1+r.IntN(1500)) * time.Millisecond
	}
	return a
}

// size draws a length: mostly small, now and then beyond all buffers.
func size(r *rand.Rand) int64 {
	switch r.IntN(6) {
	case 0:
		return 0
	case 1:
		return int64(r.IntN(300_000))
	case 2:
		return int64(r.IntN(20_000))
	}
	return int64(r.IntN(500))
}

// shrink returns the shortest story that it finds which still fails.
func shrink(steps []step, tries int, fails func([]step) bool) []step {
	for part := len(steps) / 2; part > 0; {
		before := len(steps)
		for i := 0; i+part <= len(steps) && tries > 0; tries-- {
			fewer := append(append([]step(nil), steps[:i]...), steps[i+part:]...)
			if fails(fewer) {
				steps = fewer
			} else {
				i += part
			}
		}
		if part > 1 || len(steps) == before || tries == 0 {
			part /= 2
		}
	}
	return steps
}
