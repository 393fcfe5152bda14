// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// A subject is what a question asks for.
type subject struct {
	name string
	kind dnsmessage.Type
}

// A memory keeps the last answer to each question, so that one that fails does not take
// away what another still knows.
type memory struct {
	hold time.Duration // of an answer after its question fails; negative means for ever

	mu         sync.Mutex
	memos      map[subject]*memo
	round      int
	fresh      bool  // a question of this round was answered
	fails      int   // fewest in a row of those that failed in this round; 0 if none did
	err        error // of those
	newFailure bool  // one of them did not fail in the round before
}

type memo struct {
	answer answer
	at     time.Time
	fails  int // in a row
	round  int // that asked it last
}

// begin begins a round.
func (m *memory) begin() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.round++
	m.fresh, m.fails, m.err, m.newFailure = false, 0, nil, false
}

// end ends a round that knew all there is to ask: what it did not ask is forgotten.
func (m *memory) end() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for s, e := range m.memos {
		if e.round != m.round {
			delete(m.memos, s)
		}
	}
}

// note notes what became of a question at time now, and returns what counts: the answer, or
// the last one, of no validity, if the question failed.
func (m *memory) note(s subject, ans answer, err error, now time.Time) (answer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.memos[s]
	if e == nil {
		e = new(memo)
		if m.memos == nil {
			m.memos = make(map[subject]*memo)
		}
		m.memos[s] = e
	}
	e.round = m.round
	if err == nil || errors.Is(err, ErrNoName) {
		e.answer, e.at, e.fails, m.fresh = ans, now, 0, true
		return ans, err
	}
	e.fails++
	if m.fails == 0 || e.fails < m.fails {
		m.fails = e.fails
	}
	m.err, m.newFailure = errors.Join(m.err, err), m.newFailure || e.fails == 1
	if len(e.answer.records) == 0 || m.hold >= 0 && now.Sub(e.at) >= m.hold {
		return answer{}, err
	}
	held := e.answer
	held.ttl = longestTTL // it says nothing of when to ask again
	return held, nil
}

// longestTTL is the longest that there is (RFC 2181, section 8).
const longestTTL = (1<<31 - 1) * time.Second

// ask asks a question, and returns the answer that counts.
func (w *watcher) ask(ctx context.Context, s subject) (answer, error) {
	ans, err := w.askOnce(ctx, s)
	if ctx.Err() != nil {
		return answer{}, context.Cause(ctx)
	}
	return w.mem.note(s, ans, err, time.Now())
}

// askOnce asks a question. It is called by goroutines of ours, where a panic of the host's
// DialContext would end the process.
func (w *watcher) askOnce(ctx context.Context, s subject) (ans answer, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: panic: %v\n%s", ErrNoAnswer, p, debug.Stack())
		}
	}()
	return w.client.ask(ctx, s.name, s.kind)
}

// addrs appends the addresses of an answer.
func (a *answer) addrs(to []netip.Addr) []netip.Addr {
	for _, r := range a.records {
		switch r := r.(type) {
		case *dnsmessage.AResource:
			to = append(to, netip.AddrFrom4(r.A))
		case *dnsmessage.AAAAResource:
			to = append(to, netip.AddrFrom16(r.AAAA).Unmap())
		}
	}
	return to
}
