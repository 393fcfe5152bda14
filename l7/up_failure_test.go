// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4"
)

// around is the client's side below a handler, which may be present.
type around struct {
	noClient
	there bool
}

func (a *around) present() bool { return a.there }

// One error means the same before the reply and within it: who is to blame, what
// the pool is told, and before the reply also what the client is told.
func TestBlame(t *testing.T) {
	late := fmt.Errorf("read: %w", os.ErrDeadlineExceeded)
	tooLong := &headError{http.StatusRequestEntityTooLarge, "body too long"}
	panicked := &panicError{"boom"}
	type ends struct{ cut, interrupted, gotHead, reused, present, expired bool }
	for _, c := range []struct {
		name   string
		err    error
		end    ends
		class  balance.Class
		by     l4.Cause
		status int
		phase  l4.Phase
		quiet  bool
		unsent bool
		told   bool
	}{
		{"panic", panicked, ends{gotHead: true}, balance.ClientAborted, l4.Internal, 500, l4.PhaseHeaders, false, false, false},
		{"panic of the client's body", &clientError{panicked}, ends{}, balance.ClientAborted, l4.Internal, 500, l4.PhaseHeaders, false, false, false},
		{"panic that aborts", &panicError{http.ErrAbortHandler}, ends{}, balance.ClientAborted, l4.Internal, 0, l4.PhaseHeaders, false, false, false},
		{"panic goes before a cut", panicked, ends{cut: true, interrupted: true}, balance.ClientAborted, l4.Internal, 500, l4.PhaseHeaders, false, false, false},
		{"panic unsent", &unsentError{error: panicked}, ends{}, balance.ClientAborted, l4.Internal, 500, l4.PhaseHeaders, false, false, false},
		{"cut", late, ends{cut: true, interrupted: true}, balance.Reset, l4.ServerDown, 503, l4.PhaseHeaders, true, false, false},
		{"cut within the head", late, ends{cut: true, gotHead: true}, balance.Reset, l4.ServerDown, 503, l4.PhaseHeaders, false, false, false},
		{"interrupted", late, ends{interrupted: true, reused: true}, balance.ClientAborted, l4.ClientAborted, 0, l4.PhaseHeaders, false, false, false},
		{"interrupted while the client sends", &clientError{late}, ends{interrupted: true}, balance.ClientAborted, l4.ClientAborted, 0, l4.PhaseHeaders, false, false, false},
		{"client", &clientError{io.ErrUnexpectedEOF}, ends{}, balance.ClientAborted, l4.ClientAborted, 0, l4.PhaseRequest, false, false, false},
		{"client whose handler around is present", &clientError{io.ErrUnexpectedEOF}, ends{present: true}, balance.ClientAborted, l4.ClientAborted, 400, l4.PhaseRequest, false, false, false},
		{"interrupted by a handler around", late, ends{interrupted: true, present: true}, balance.Canceled, l4.Killed, 502, l4.PhaseHeaders, false, false, false},
		{"interrupted by a deadline around", late, ends{interrupted: true, present: true, expired: true}, balance.Timeout, l4.ServerTimeout, 504, l4.PhaseHeaders, false, false, false},
		{"client too slow", &clientError{late}, ends{}, balance.ClientAborted, l4.ClientTimeout, 408, l4.PhaseRequest, false, false, false},
		{"client sends too much", &clientError{tooLong}, ends{}, balance.ClientAborted, l4.Denied, 413, l4.PhaseRequest, false, false, false},
		{"client sends more than a handler around takes", &clientError{&http.MaxBytesError{}}, ends{present: true}, balance.ClientAborted, l4.Denied, 413, l4.PhaseRequest, false, false, false},
		{"client sends what a body refuses", &clientError{&BodyError{422, io.ErrUnexpectedEOF}}, ends{}, balance.ClientAborted, l4.Denied, 422, l4.PhaseRequest, false, false, false},
		{"client sends what a body refuses, oddly", &clientError{&BodyError{200, io.ErrUnexpectedEOF}}, ends{}, balance.ClientAborted, l4.Denied, 400, l4.PhaseRequest, false, false, false},
		{"client sends too much, late", &clientError{errors.Join(tooLong, late)}, ends{}, balance.ClientAborted, l4.Denied, 413, l4.PhaseRequest, false, false, false},
		{"server too slow", late, ends{reused: true}, balance.Timeout, l4.ServerTimeout, 504, l4.PhaseHeaders, false, false, false},
		{"bad reply", &badReply{errNotHTTP}, ends{gotHead: true}, balance.Protocol, l4.ServerAborted, 502, l4.PhaseHeaders, false, false, false},
		{"bad reply of a stream", &badReply{errNotHTTP}, ends{reused: true}, balance.Protocol, l4.ServerAborted, 502, l4.PhaseHeaders, false, false, false},
		{"bad reply too late", &badReply{late}, ends{gotHead: true}, balance.Timeout, l4.ServerTimeout, 504, l4.PhaseHeaders, false, false, false},
		{"ended within the head", io.EOF, ends{gotHead: true, reused: true}, balance.Reset, l4.ServerAborted, 502, l4.PhaseHeaders, false, false, false},
		{"ended quietly", io.EOF, ends{}, balance.Reset, l4.ServerAborted, 502, l4.PhaseHeaders, true, false, false},
		{"ended quietly on a reused connection", io.EOF, ends{reused: true}, balance.Stale, l4.ServerAborted, 502, l4.PhaseHeaders, true, false, false},
		{"unsent", &unsentError{error: io.EOF}, ends{}, balance.Reset, l4.ServerAborted, 502, l4.PhaseHeaders, true, true, false},
		{"refused", &unsentError{io.EOF, true, false}, ends{gotHead: true}, balance.Reset, l4.ServerAborted, 502, l4.PhaseHeaders, false, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := &sourceEnd{gotHead: c.end.gotHead, reused: c.end.reused}
			f.interrupted.Store(c.end.interrupted)
			if c.end.cut {
				reason := "gone"
				f.cutReason.Store(&reason)
			}
			ctx := t.Context()
			if c.end.expired {
				var cancel context.CancelFunc
				ctx, cancel = context.WithDeadline(ctx, past)
				defer cancel()
			}
			fail := f.failure(&Exchange{down: &around{noClient{ctx: ctx}, c.end.present}}, c.err)
			require.Equal(t, c.by, fail.by)
			require.Equal(t, c.class, fail.class)
			class, by := f.blame(c.err)
			switch {
			case c.end.interrupted && c.end.present: // which ends an exchange before the reply otherwise
				require.Equal(t, l4.ClientAborted, by)
				require.Equal(t, balance.ClientAborted, class)
			case c.class == balance.Stale: // which is known of a head only
				require.Equal(t, balance.Reset, class)
			default:
				require.Equal(t, c.by, by)
				require.Equal(t, c.class, class)
			}
			require.Equal(t, c.status, fail.status)
			require.Equal(t, c.phase, fail.phase)
			require.Equal(t, c.quiet, fail.quiet)
			require.Equal(t, c.unsent, fail.unsent)
			require.Equal(t, c.told, fail.refused)
			if c.by == l4.ServerDown {
				require.EqualError(t, fail.err, "l7: server was cut: gone")
			} else {
				require.Equal(t, c.err, fail.err)
			}
		})
	}
}
