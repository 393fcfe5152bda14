// SPDX-License-Identifier: Apache-2.0

package l4

import "time"

// retick schedules tick for when linger has passed, unless it is due earlier.
func (r *relay) retick() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.timer != nil {
		r.timer.Reset(linger)
	}
}

// tick serves both directions: it wakes goroutines that have become idle so that new ones
// replace them, cuts the relay if a timeout has passed, and schedules its next call. A
// message costs no timer, only a note of the time.
func (r *relay) tick() {
	now := r.now()
	r.mu.Lock()
	if r.running == 0 {
		r.mu.Unlock()
		return
	}
	if due, t, which := r.nextTimeout(); due <= now {
		r.mu.Unlock()
		late := which // only this one escapes
		r.cut(t, &late)
		return
	}
	if r.probes && probeAfter <= now {
		r.probes = false
		probePeer(r.up.dst)
	}
	due := r.nextTick()
	var idle [2]*direction
	for i, d := range [...]*direction{&r.up, &r.down} {
		if r.wired || d.state.Load() != running {
			continue
		}
		if end := time.Duration(d.last.Load()) + linger; end > now {
			due = min(due, end)
		} else if d.state.CompareAndSwap(running, kicked) {
			idle[i] = d
		}
	}
	switch {
	case r.wired:
		r.tickAt(due)
	case due < forever:
		r.timer.Reset(due - now)
	}
	r.mu.Unlock()
	defer func() { recovered(recover(), r.log, "connection") }()
	for _, d := range idle {
		if d != nil {
			d.src.SetReadDeadline(time.Unix(1, 0))
		}
	}
}

// probeAfter is the age at which a connection to a server gets its keep-alive probes, if
// it was not dialed with them. The first probe is later than that in any case.
const probeAfter = time.Minute

// nextTick says when tick has something to do if nothing moves until then;
// r.mu is held.
func (r *relay) nextTick() time.Duration {
	due, _, _ := r.nextTimeout()
	if r.probes {
		due = min(due, probeAfter)
	}
	return due
}

const forever = time.Duration(1<<63 - 1)

// nextTimeout says when the next timeout passes if nothing moves until then,
// what it means, and which it is. r.mu is held.
func (r *relay) nextTimeout() (due time.Duration, t Termination, which TimeoutError) {
	up, down := time.Duration(r.up.last.Load()), time.Duration(r.down.last.Load())
	both := max(up, down)
	due = forever
	limit := func(field string, d, std, since time.Duration, cause Cause, phase Phase) {
		if d == 0 {
			d = std
		}
		if d > 0 && d < due-since { // the sum may be more than there is
			due, t = since+d, Termination{cause, phase}
			which.Field, which.Limit = field, d
		}
	}
	o := r.opt
	limit("Lifetime", o.Lifetime, 0, 0, Local, PhaseData)
	switch {
	case r.up.over && o.HalfClosedTimeout == 0: // a client waits for an answer and stays connected
		limit("IdleTimeout", o.IdleTimeout, defaultIdleTimeout, max(both, r.half), ServerTimeout, PhaseData)
		limit("ServerTimeout", o.ServerTimeout, 0, max(down, r.half), ServerTimeout, PhaseData)
	case r.up.over:
		limit("HalfClosedTimeout", o.HalfClosedTimeout, 0, max(both, r.half), ServerTimeout, PhaseData)
	case r.down.over:
		limit("HalfClosedTimeout", o.HalfClosedTimeout, defaultHalfClosedTimeout, max(both, r.half), ClientTimeout, PhaseLast)
	default:
		silent := ClientTimeout
		if up > down {
			silent = ServerTimeout // it did not answer
		}
		limit("IdleTimeout", o.IdleTimeout, defaultIdleTimeout, both, silent, PhaseData)
		limit("ClientTimeout", o.ClientTimeout, 0, up, ClientTimeout, PhaseData)
		limit("ServerTimeout", o.ServerTimeout, 0, down, ServerTimeout, PhaseData)
	}
	return due, t, which
}
