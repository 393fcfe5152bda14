// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"
)

const (
	events  = 60  // that are kept
	outputs = 100 // lines of the gateways that are kept
)

// A ledger has what happened, and ends everything at the first fault.
type ledger struct {
	seed    uint64
	start   time.Time
	stop    context.CancelCauseFunc
	crashes atomic.Int64 // time of the end of the last one, or 1<<62 during one, in nanoseconds since start
	tallies []*tally

	mu       sync.Mutex
	events   []string
	output   []string
	posts    map[string]int // how often a request has reached servers whole, in this round
	repeated int            // requests that reached servers more than once, as they may
	restarts int
	crashed  int
}

// A tally counts what became of the requests of a kind.
type tally struct {
	kind                       string
	asked, whole, cut, refused atomic.Int64
}

func newLedger(seed uint64, stop context.CancelCauseFunc) *ledger {
	return &ledger{seed: seed, start: time.Now(), stop: stop, posts: make(map[string]int)}
}

func (l *ledger) now() string { return time.Since(l.start).Round(time.Millisecond).String() }

// A fault is a promise that was not kept.
type fault struct{ at, what string }

func (f *fault) Error() string { return "at " + f.at + ": " + f.what }

// wrong ends the run, unless it has ended.
func (l *ledger) wrong(format string, args ...any) {
	l.stop(&fault{l.now(), fmt.Sprintf(format, args...)})
}

// event notes what was done.
func (l *ledger) event(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = keep(l.events, events, l.now()+"  "+fmt.Sprintf(format, args...))
}

// said notes a line of a gateway.
func (l *ledger) said(gate, line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.output = keep(l.output, outputs, l.now()+"  "+gate+": "+line)
}

func keep(list []string, most int, line string) []string {
	if len(list) == most {
		list = append(list[:0], list[1:]...)
	}
	return append(list, line)
}

// served notes that a request has reached a server whole. One of POST must not do so
// twice.
func (l *ledger) served(token string, once bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.posts[token]++
	if l.posts[token] == 1 {
		return
	}
	if l.repeated++; once {
		go l.wrong("request %s, which may not be repeated, has reached servers %d times", token, l.posts[token])
	}
}

// crash notes that a gateway is killed next; the one who kills it calls ended when what
// comes of it has come: servers that are busy begin streams of it later.
func (l *ledger) crash() (ended func()) {
	l.crashes.Store(1 << 62)
	l.mu.Lock()
	l.crashed++
	l.mu.Unlock()
	return func() { l.crashes.Store(int64(time.Since(l.start))) }
}

// crashedSince reports whether a gateway was killed since then: the kernel closes its
// connections in ways that cannot be told from a good end.
func (l *ledger) crashedSince(t time.Time) bool {
	at := l.crashes.Load()
	return at > 0 && at >= int64(t.Sub(l.start))
}

func (l *ledger) newRound() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.posts)
}

func (l *ledger) total() (asked, whole, cut, refused int64) {
	for _, t := range l.tallies {
		asked, whole, cut, refused = asked+t.asked.Load(), whole+t.whole.Load(), cut+t.cut.Load(), refused+t.refused.Load()
	}
	return asked, whole, cut, refused
}

// table writes what became of all requests.
func (l *ledger) table(out io.Writer) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\tasked\twhole\tcut and named\trefused or lost\t")
	for _, t := range l.tallies {
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t\n", t.kind, t.asked.Load(), t.whole.Load(), t.cut.Load(), t.refused.Load())
	}
	_ = w.Flush()
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintf(out, "%d requests reached servers twice, as they may; %d hot restarts, %d crashes\n", l.repeated, l.restarts, l.crashed)
}

// tell writes the fault, and what came before it.
func (l *ledger) tell(out io.Writer, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintf(out, "\nThe last events:\n")
	for _, e := range l.events {
		fmt.Fprintln(out, "  "+e)
	}
	fmt.Fprintf(out, "\nWhat the gateways said:\n")
	for _, o := range l.output {
		fmt.Fprintln(out, "  "+o)
	}
	fmt.Fprintf(out, "\nFAULT, seed %d, %v\n", l.seed, err)
}
