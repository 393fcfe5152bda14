// SPDX-License-Identifier: Apache-2.0

package health

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"

	"github.com/penstock-lb/penstock/balance"
)

// A Probe checks one server once. A nil error means that the server is well.
//
// Probe must return soon after ctx is done, must leave no connection open and no
// goroutine running, and may be called for several servers at once. It needs no pool
// and no [Checker]: any program may call it. A func is a Probe by [Func]; [All] and
// [Any] combine probes.
//
// A probe of your own may return any error; the server is then not well. An [Error] says
// more: its Step and Text are what operators read, and its Code may be CodeStopping, for a
// server that wants no new work but keeps what it has. Errors of package net are better
// wrapped in one, since their text has the port of our side, which differs each time:
//
//	return &health.Error{Code: health.CodeOf(err), Step: "HELLO", Text: "no answer", Err: err}
//
// For a protocol in which one sends a line and expects another, [Script] is enough.
type Probe interface {
	Probe(ctx context.Context, e balance.Endpoint) error
}

// A Func is a func as a [Probe]: it may look at a queue, a file, or another service.
type Func func(ctx context.Context, e balance.Endpoint) error

// Probe calls f.
func (f Func) Probe(ctx context.Context, e balance.Endpoint) error { return f(ctx, e) }

// All passes when each of its probes does. It runs them one after another and
// returns the first failure, whose step begins with the probe and where it went, as in
// "probe 2 (Redis, port 6379): connect: connection refused"; "probe 2.1" is the first of an
// All or Any that is the second here. A CodeStopping among passes is returned, once the rest
// has passed. An empty All passes.
type All []Probe

// Probe runs the probes in order.
func (a All) Probe(ctx context.Context, e balance.Endpoint) error {
	var stopping error
	for i, p := range a {
		err := p.Probe(ctx, e)
		switch {
		case err == nil:
		case CodeOf(err) == CodeStopping:
			stopping = named(i, p, e, err)
		default:
			return named(i, p, e, err)
		}
	}
	return stopping
}

// kindOf returns the name of p's type, without its package.
func kindOf(p any) string {
	kind := fmt.Sprintf("%T", p)
	return kind[strings.LastIndexByte(kind, '.')+1:]
}

// named says of err which probe of several it is of, the i-th, and which port it asked. A Func
// or a host's own probe, which says neither, is left to its own words.
func named(i int, p Probe, e balance.Endpoint, err error) error {
	where := kindOf(p)
	switch p := p.(type) {
	case dialing:
		if network, addr, bad := p.connect().address(e); bad == nil && network == "unix" {
			where += ", socket " + printable(addr)
		} else if _, port, bad := net.SplitHostPort(addr); bad == nil {
			where += ", port " + port
		}
	case Exec, *Exec: // there may be several of them
	case All, Any:
		of := *AsError(err)
		if rest, ok := strings.CutPrefix(of.Step, "probe "); ok {
			of.Step, of.Err = fmt.Sprintf("probe %d.%s", i+1, rest), err
			return &of
		}
		return err
	default:
		return err
	}
	of := *AsError(err)
	of.Step, of.Err = fmt.Sprintf("probe %d (%s)", i+1, where), err
	of.Text = AsError(err).Error()
	return &of
}

// Any passes when one of its probes does. It runs them at once, since a silent
// one would otherwise use up the time of the rest, cancels those that are left
// when one passes, and waits for them. If none passes, the first in the list
// to ask for a stop counts, or else the first, with its name as in All. An empty Any
// fails with CodeInternal.
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
			} else {
				errs[i] = named(i, p, e, errs[i])
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
