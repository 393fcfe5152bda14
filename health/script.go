// SPDX-License-Identifier: Apache-2.0

package health

import (
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
	Dialer   Dialer
	Steps    []Step // none means that the connection is enough
	MaxBytes int    // of what is read in all; 0 means 16 KiB, negative means 1 GiB
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
	s, err := p.Dialer.open(ctx, e, p.MaxBytes)
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
	for {
		found := !m.zero() && m.found(got)
		enough := len(got) >= max(step.Min, 1)
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
			if found || m.Not {
				return got, nil
			}
			if m.zero() {
				return got, s.error(CodeContent, "%d bytes of %d", len(got), step.Min)
			}
			return got, s.error(CodeContent, "no %s in %s", m, quote(got))
		default:
			return got, s.fail(err)
		}
	}
}

// quote prints the beginning of an answer.
func quote(b []byte) string {
	const most = 60
	if len(b) > most {
		return fmt.Sprintf("%q...", b[:most])
	}
	return fmt.Sprintf("%q", b)
}
