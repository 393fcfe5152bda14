// SPDX-License-Identifier: Apache-2.0

package balance

import "time"

// EventKind is the kind of an event.
type EventKind uint8

const (
	Joined       EventKind = iota // a server came into the set
	Left                          // a server left the set; its leases may go on
	StateChanged                  // a server changed from Event.From to Event.To
	PanicBegan                    // too few servers are usable: a tier uses all of them
	PanicEnded
	SourceFailed // the source of Follow has an error, or an invalid set: the last good set stays; once a minute while it is so
)

func (k EventKind) String() string {
	return word(k, "joined", "left", "state changed", "panic began", "panic ended", "source failed")
}

// MarshalText returns what String does, for JSON and slog.
func (k EventKind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// An Event is a change that an operator wants to know about.
type Event struct {
	Kind     EventKind
	Pool     *Pool
	Server   *Server // nil if it is about the pool
	From, To State   // of the server; both StateUp, which means nothing, if Server is nil
	Reason   string  // why, in words
	Err      error   // of SourceFailed
	Time     time.Time
}

// String returns a line for a log: the kind; the names of the pool and the server and the
// states, where it has them (of one that has joined or left, the one in the set); and the
// reason.
func (e Event) String() string {
	s := e.Kind.String()
	if e.Pool != nil && e.Pool.Name != "" {
		s += ": pool " + e.Pool.Name
	}
	if e.Server != nil {
		s += ": server " + e.Server.Name() + ": "
		switch e.Kind {
		case Joined:
			s += e.To.String()
		case Left:
			s += "was " + e.From.String()
		default:
			s += e.From.String() + " to " + e.To.String()
		}
	}
	if e.Reason != "" {
		s += ": " + e.Reason
	}
	return s
}

// kindOf names a change of state.
func kindOf(from, to State) EventKind {
	switch {
	case from == StateLeft:
		return Joined
	case to == StateLeft:
		return Left
	}
	return StateChanged
}

// A cut is a server whose idle connections are to be closed.
type cut struct {
	server *Server
	reason string
}

// emit notes an event, to be told when the lock is free. c.mu is held.
func (c *core) emit(e Event) {
	if c.conf.OnEvent != nil {
		e.Pool = c.conf
		c.events = append(c.events, e)
	}
}

func (c *core) emitPanic(began bool) {
	e := Event{Kind: PanicEnded, Reason: "enough servers are usable", Time: time.Now()}
	if began {
		e.Kind, e.Reason = PanicBegan, "too few servers are usable: all are used"
	}
	c.emit(e)
}

// unlock unlocks c.mu and does the work that must not be done under it: it serves the
// queue, closes connections, logs panics and emits the events. Events are emitted in
// order: the goroutine that does it also emits those added meanwhile, also by OnEvent
// itself.
func (c *core) unlock() {
	touched := c.touched
	c.touched = nil
	if c.flushing {
		c.mu.Unlock()
		c.queue.review(c, touched)
		c.panics.log()
		return
	}
	c.flushing = true
	for {
		events, cuts := c.events, c.cuts
		c.events, c.cuts = nil, nil
		c.mu.Unlock()
		c.queue.review(c, touched)
		c.panics.log()
		for _, x := range cuts {
			x.server.Cut(false, x.reason)
		}
		for _, e := range events {
			tellEvent(c.conf.OnEvent, e)
		}
		c.mu.Lock()
		touched = nil
		if len(c.events)+len(c.cuts) == 0 {
			break
		}
	}
	c.flushing = false
	c.mu.Unlock()
}
