// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"errors"
	"os"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4"
)

// grpcTimeout parses a grpc-timeout: at most eight digits and a unit. It is
// false for anything else.
func grpcTimeout(v string) (time.Duration, bool) {
	n := len(v) - 1
	if n < 1 || n > 8 {
		return 0, false
	}
	count, ok := parseLength(v[:n])
	if !ok {
		return 0, false
	}
	var unit time.Duration
	switch v[n] {
	case 'H':
		unit = time.Hour
	case 'M':
		unit = time.Minute
	case 'S':
		unit = time.Second
	case 'm':
		unit = time.Millisecond
	case 'u':
		unit = time.Microsecond
	case 'n':
		unit = time.Nanosecond
	default:
		return 0, false
	}
	if count > int64(longest/unit) {
		return longest, true
	}
	return time.Duration(count) * unit, true
}

// boundByGRPC applies the client's deadline to the request, if it is earlier.
func (t *attempt) boundByGRPC() {
	d, ok := grpcTimeout(t.x.Header.Get("Grpc-Timeout"))
	if !ok {
		return
	}
	if at := t.x.Record.Start.Add(d); t.deadline.IsZero() || at.Before(t.deadline) {
		t.deadline, t.byCall = at, true
	}
}

// wholeLimit returns the name and the length of the limit that deadline is.
func (t *attempt) wholeLimit() (string, time.Duration) {
	if t.byCall {
		return callTimeout, t.deadline.Sub(t.x.Record.Start)
	}
	return t.name("Timeout"), t.p.Timeout
}

// headerTimeout returns how long the head of a reply may take; 0 means no
// limit. A gRPC server sends the head with the first message, which may be the
// event that a client waits for. headTime handles other requests for streams.
func (t *attempt) headerTimeout() time.Duration {
	if t.x.grpc {
		return t.headLimit()
	}
	return orDefault(t.p.HeaderTimeout, defaultHeadersTimeout)
}

// bodyTimeout returns how long a body may pause.
func (t *attempt) bodyTimeout() time.Duration {
	if t.x.grpc {
		return t.bodyWait().stream
	}
	return orDefault(t.p.BodyTimeout, defaultReplyTimeout)
}

// callLate returns a failure of the server's after the client's deadline as that of the
// deadline: a gRPC server keeps it too, and the reset that it sends may be read before our
// own timer has fired.
func (t *attempt) callLate(src source, err error) error {
	if !t.byCall || time.Now().Before(t.deadline) {
		return err
	}
	if class, by := src.end().blame(err); class != balance.Reset || by != l4.ServerAborted {
		return err
	}
	name, limit := t.wholeLimit()
	return &TimeoutError{name, limit, err}
}

// grpcLate reports whether a call failed because its deadline passed, and
// answers if so.
func (t *attempt) grpcLate(f *failure) bool {
	if !t.x.grpc || f.by != l4.ServerTimeout || t.deadline.IsZero() || time.Now().Before(t.deadline) || t.x.replied {
		return false
	}
	t.x.Record.Termination = endOf(f.by, f.phase)
	t.x.grpcError(grpcDeadlineExceeded, "deadline exceeded")
	return true
}

// grpcCut ends a reply that was cut on the server's side with a grpc-status,
// which tells a gRPC client more than a reset. False means that the stream has
// to be reset.
func (t *attempt) grpcCut(src source, err error) bool {
	x := t.x
	if !x.grpc || src.end().interrupted.Load() || !grpcType(src.reply().Header.Get("Content-Type")) {
		return false
	}
	var ce *clientError
	var pe *panicError
	if errors.As(err, &ce) || errors.As(err, &pe) {
		return false
	}
	status := grpcStatus(grpcUnavailable, "the connection to the server ended")
	if errors.Is(err, os.ErrDeadlineExceeded) {
		status = grpcStatus(grpcDeadlineExceeded, "deadline exceeded")
		if t.deadline.IsZero() || time.Now().Before(t.deadline) {
			status = grpcStatus(grpcUnavailable, "the server is silent")
		}
	}
	return x.down.finish(&status) == nil
}

// grpcHead judges the server at once by the grpc-status of a reply without
// messages.
func grpcHead(r *Reply, o *balance.Outcome) {
	if grpcType(r.Header.Get("Content-Type")) {
		judgeGRPC(r.Header.Get("Grpc-Status"), o)
	}
}

// grpcPushback returns how long a gRPC server asks clients to wait before a
// retry (gRFC A6). False means that they must not retry.
func grpcPushback(r *Reply) (time.Duration, bool) {
	v, ok := r.Header.Lookup("Grpc-Retry-Pushback-Ms")
	if !ok {
		return 0, true
	}
	ms, ok := parseLength(v)
	return time.Duration(min(ms, 1<<31)) * time.Millisecond, ok
}

// judge is grpcHead at the end of a reply.
func (s *h2Stream) judge(o *balance.Outcome) {
	if s.trailing != nil && grpcType(s.rep.Header.Get("Content-Type")) {
		judgeGRPC(s.trailing.Get("Grpc-Status"), o)
	}
}

// judgeGRPC sets the outcome by a grpc-status, as the HTTP status would: a gRPC
// server fails with status 200.
func judgeGRPC(code string, o *balance.Outcome) {
	if status, ok := grpcHTTP[code]; ok && o.Class == balance.OK {
		o.Class, o.Status = balance.StatusError, status
		o.Err = errors.New("l7: grpc-status " + code)
	}
}
