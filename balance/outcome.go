// SPDX-License-Identifier: Apache-2.0

package balance

import "time"

// Class says how a piece of work ended.
type Class uint8

const (
	OK             Class = iota // answered
	ConnectFailed               // refused, unreachable, no such host
	ConnectTimeout              // no connection in time
	TLSFailed                   // handshake or certificate
	Timeout                     // connected, but no answer in time
	Reset                       // closed or reset before the answer was complete
	Protocol                    // an answer that breaks the protocol
	StatusError                 // the server says that it failed (HTTP 5xx)
	ClientAborted               // the client disconnected: not the server's fault
	Canceled                    // nothing was sent to the server
	Stale                       // a reused connection was already closed: not the server's fault
)

const classes = int(Stale) + 1

func (c Class) String() string {
	return word(c, "ok", "connect failed", "connect timeout", "tls failed", "timeout", "reset", "protocol",
		"status error", "client aborted", "canceled", "stale")
}

// ServerFault reports whether c counts against the server.
func (c Class) ServerFault() bool { return c >= ConnectFailed && c <= StatusError }

// An Outcome is the argument of [Lease.Done].
type Outcome struct {
	Class Class

	// Of a server on trial, see [Server.SetTrial]; set for observers by the pool.
	Early       bool // the lease goes on: Lease.Works was called, not Done
	BeforeTrial bool // the lease was taken before the trial

	Status  int           // of the answer, for HTTP; 0 means none
	Latency time.Duration // until the first byte of the answer, as the caller measured it; 0 means not measured
	At      time.Time     // when the lease ended, if the caller has just read the clock; only PeakEWMA uses it
	Err     error         // what went wrong
}

// A Lease is the right to use one server once. It is a value; the copy on which Done is
// called does not matter, but it must be called exactly once.
type Lease struct {
	s      *Server
	flags  leaseFlags
	ticket uint32 // of a trial; 0: none
}

type leaseFlags uint8

const (
	leaseQueued leaseFlags = 1 << iota
	leasePreferred
	leaseForeign // of a server of another pool: no lease at all
)

// Server returns the server to use. It is nil for the zero Lease only.
func (l Lease) Server() *Server { return l.s }

// Queued reports whether the request waited in a queue.
func (l Lease) Queued() bool { return l.flags&leaseQueued != 0 }

// Preferred reports whether the server is the one that [Request.Prefer] named. If it is
// not, persistence was broken and should be established anew.
func (l Lease) Preferred() bool { return l.flags&leasePreferred != 0 }

// Done releases the slot and reports the outcome. It panics if it is called more often
// than there are leases, as in [sync.WaitGroup], and on the zero Lease.
func (l Lease) Done(o Outcome) {
	s := l.s
	s.count(&o)
	s.release(l.ticket)
	if h := s.core.hooks.Load(); h != nil && len(h.observers)+len(h.funcs) > 0 {
		o.Early, o.BeforeTrial = false, s.onTrial() && s.beforeTrial(l.ticket)
		h.done(s, o)
	}
}
