// SPDX-License-Identifier: Apache-2.0

package health

import (
	"bytes"
	"context"
	"fmt"

	"github.com/penstock-lb/penstock/balance"
)

// Script plays a conversation of fixed lines or bytes, for any protocol that
// has no probe of its own. It passes when all steps have.
//
//	health.Script{Steps: []health.Step{
//		{Expect: health.Match{Contains: "OK Memcached ready"}},
//		{Send: "stats\r\n", Expect: health.Match{Regexp: regexp.MustCompile(`STAT uptime \d{3,}`)}},
//	}}
//
// Source: HAProxy's tcp-check.
type Script struct {
	Connect  Connect
	Steps    []Step // none means that the connection is enough
	MaxBytes int    // of what is read in all; 0 means 16 KiB, negative means no limit below 1 GiB
}

// A Step sends, or waits for an answer, or both in this order.
//
// An answer is judged as it comes in, again with each piece. A positive Expect
// is met as soon as it is found; a negative one fails as soon as it is found,
// and is met when there are Min bytes. Steps that send nothing look
// at the same bytes as the step before; one that sends forgets them.
type Step struct {
	Name   string // for the error; empty means "step N", from 1
	Send   string // empty means nothing
	Expect Match  // the zero Match waits for Min bytes only
	Min    int    // bytes to have before Expect can be met; 0 means 1, unless Expect is zero too: then nothing is read
}

// Probe plays the steps.
func (p Script) Probe(ctx context.Context, e balance.Endpoint) error {
	s, err := p.Connect.open(ctx, e, p.MaxBytes)
	defer s.close()
	if err != nil {
		return err
	}
	var got []byte
	for i := range p.Steps {
		step := &p.Steps[i]
		if s.step = step.Name; s.step == "" {
			s.step = fmt.Sprintf("step %d", i+1)
		}
		if step.Send != "" {
			got = got[:0]
			if err := s.send([]byte(step.Send)); err != nil {
				return err
			}
		}
		if got, err = s.expect(step, got); err != nil {
			return err
		}
	}
	return nil
}

// expect reads until step is decided, and returns all that was read since the last send.
func (s *session) expect(step *Step, got []byte) ([]byte, error) {
	m := &step.Expect
	if m.zero() && step.Min <= 0 {
		return got, nil
	}
	chunk := make([]byte, 1024)
	for look := (finder{m: m}); ; {
		enough := len(got) >= max(step.Min, 1)
		found := (enough || m.Not) && !m.zero() && look.found(got, enough && m.Not)
		switch {
		case found && m.Not:
			return got, s.error(CodeContent, "found %s in %s", m, quote(got))
		case enough && (found || m.Not || m.zero()):
			return got, nil
		}
		n, err := s.r.Read(chunk)
		got = append(got, chunk[:n]...)
		switch {
		case n > 0 || err == nil:
		case len(got) > 0 && (s.cut(err) || isClosed(err)):
			// All there will be: short of Min, it is judged nevertheless.
			if m.zero() {
				return got, s.error(CodeContent, "%d bytes of %d", len(got), step.Min)
			}
			switch found = look.found(got, true); {
			case found && m.Not:
				return got, s.error(CodeContent, "found %s in %s", m, quote(got))
			case found || m.Not:
				return got, nil
			}
			return got, s.error(CodeContent, "no %s in %s", m, quote(got))
		default:
			return got, s.fail(err)
		}
	}
}

// freeBytes is how many bytes an expression looks through before it is no longer
// asked at each piece that arrives.
const freeBytes = 256 << 10

// A finder asks a Match about an answer that arrives in pieces. What it costs is
// linear in the answer, also where each byte is a piece of its own: Contains
// continues where it stopped, and Regexp, which has to start again each time, is
// tried less often once it has cost much.
type finder struct {
	m        *Match
	contains bool
	searched int // bytes without Contains
	asked    int // bytes that Regexp was asked about last
	cost     int // bytes that Regexp was asked about in all
}

// found is Match.found on the answer so far. Unless the answer has to be exact,
// as nothing is going to be read after it, false may mean that Regexp was not
// asked.
func (f *finder) found(b []byte, exact bool) bool {
	want := f.m.Contains
	if !f.contains {
		from := min(max(0, f.searched-len(want)+1), len(b))
		f.contains = bytes.Contains(b[from:], []byte(want))
		f.searched = len(b)
	}
	if !f.contains || f.m.Regexp == nil {
		return f.contains
	}
	if !exact && f.cost > freeBytes && len(b) < f.asked+f.asked/4 {
		return false
	}
	f.asked = len(b)
	f.cost += len(b)
	return f.m.Regexp.Match(b)
}

// quote prints the beginning of an answer.
func quote(b []byte) string {
	if len(b) > mostQuoted {
		return fmt.Sprintf("%q...", b[:mostQuoted])
	}
	return fmt.Sprintf("%q", b)
}
