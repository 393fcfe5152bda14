// SPDX-License-Identifier: Apache-2.0

package health

import (
	"context"
	"errors"
	"log/slog"
	"sync"

	"github.com/penstock-lb/penstock/balance"
)

// A Probe asks one server once whether it is well.
//
// Nil means it is. Probe must return soon after ctx is done, must leave nothing
// open or running behind, and may be called for several servers at once.
// It needs no pool and no [Checker]: any program may call it.
type Probe interface {
	Probe(ctx context.Context, e balance.Endpoint) error
}

// A Func is a Probe in Go: a look into a queue, a file, another service.
type Func func(ctx context.Context, e balance.Endpoint) error

// Probe calls f.
func (f Func) Probe(ctx context.Context, e balance.Endpoint) error { return f(ctx, e) }

// All passes when each of its probes does. It runs them one after another and
// returns the first failure. A CodeStopping among passes is returned, once the
// rest has passed. An empty All passes.
type All []Probe

// Probe runs the probes in order.
func (a All) Probe(ctx context.Context, e balance.Endpoint) error {
	var stopping error
	for _, p := range a {
		err := p.Probe(ctx, e)
		switch {
		case err == nil:
		case CodeOf(err) == CodeStopping:
			stopping = err
		default:
			return err
		}
	}
	return stopping
}

// Any passes when one of its probes does. It runs them at once, since a silent
// one would otherwise use up the time of the rest, cancels those that are left
// when one passes, and waits for them. If none passes, the first in the list
// to ask for a stop counts, or else the first. An empty Any fails with CodeInternal.
type Any []Probe

// Probe runs the probes at once.
func (a Any) Probe(ctx context.Context, e balance.Endpoint) error {
	if len(a) == 0 {
		return &Error{Code: CodeInternal, Text: "no probe to pass"}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make([]error, len(a))
	var wg sync.WaitGroup
	for i, p := range a {
		wg.Go(func() {
			// In a goroutine of ours, where Checker cannot recover.
			errs[i] = askGuarded(ctx, slog.Default(), func(ctx context.Context) error { return p.Probe(ctx, e) })
			if errs[i] == nil {
				cancel()
			}
		})
	}
	wg.Wait()
	first := errs[0]
	for _, err := range errs {
		if err == nil {
			return nil
		}
		if CodeOf(err) == CodeStopping && CodeOf(first) != CodeStopping {
			first = err
		}
	}
	e0 := *AsError(first)
	e0.Err = errors.Join(errs...)
	return &e0
}
