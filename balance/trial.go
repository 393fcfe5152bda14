// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"sync/atomic"
	"time"
)

// SetTrial, with on, puts s on trial until SetTrial without: whatever its limit, it gets
// one new lease at a time, and the next one when that has ended or [Lease.Works] was
// called on it. Leases from before the trial neither count nor stand in its way. It is
// for an observer that took s out of use and wants to see how one piece of work goes
// before it gives s all of its share again; such an observer calls it before it reports
// s Up, and ignores what [Outcome.BeforeTrial] marks.
func (s *Server) SetTrial(on bool) {
	s.core.change(s, func(time.Time) {
		switch {
		case !on:
			s.trial.Store(nil)
		case s.trial.Load() == nil:
			s.trial.Store(&trial{first: s.tickets.Load() | 1})
		}
	})
}

// Trying reports whether s is on trial and its one lease is in use, so that the next
// cannot be taken yet.
func (s *Server) Trying() bool { return !s.trialRoom() }

// A trial lets one lease at a time be taken. Each lease that is taken on a trial has a
// ticket, which no other lease of the server has; other leases have ticket 0.
type trial struct {
	first  uint32        // tickets up to it are of earlier trials
	holder atomic.Uint32 // ticket of the lease whose end is awaited; 0: the place is free
}

// free frees the place if the lease with that ticket has it.
func (t *trial) free(ticket uint32) bool {
	return t != nil && ticket != 0 && t.holder.CompareAndSwap(ticket, 0)
}

// onTrial reports whether leases have to ask the trial. It reads the hot line only.
func (s *Server) onTrial() bool { return s.limit.Load() < 0 }

// takeTicket takes the place of the trial.
func (s *Server) takeTicket() (ticket uint32, how takeResult) {
	t := s.trial.Load()
	if t == nil {
		return 0, taken // it has just ended
	}
	ticket = s.tickets.Add(2) | 1 // never 0, even if it wraps
	if !t.holder.CompareAndSwap(0, ticket) {
		return 0, full
	}
	return ticket, taken
}

// freeTicket gives back the place of a trial, if the lease with that ticket has it, after
// its slot. Without a ticket it only tells of the slot.
func (s *Server) freeTicket(ticket uint32, locked bool) {
	if ticket != 0 {
		s.trial.Load().free(ticket)
	}
	s.freed(locked)
}

// trialRoom reports whether a trial, if there is one, leaves room for a lease.
func (s *Server) trialRoom() bool {
	t := s.trial.Load()
	return t == nil || t.holder.Load() == 0
}

// beforeTrial reports whether the lease with that ticket was taken before the trial
// that s is on.
func (s *Server) beforeTrial(ticket uint32) bool {
	t := s.trial.Load()
	return t != nil && (ticket == 0 || int32(ticket-t.first) <= 0)
}

// Works reports that the server works although the lease has not ended: it has begun to
// answer, and the answer may take long. Status is that of an HTTP answer, 0 without
// one. It matters only to a server on trial (see [Server.SetTrial]), which need not
// wait for Done then: [Pool.OnOutcome] are told OK with [Outcome.Early], and the next
// lease may be taken.
//
// Otherwise it costs a comparison, so it may be called for each long connection or
// stream. Further calls do nothing.
func (l Lease) Works(status int) {
	if l.ticket != 0 {
		l.s.works(l.ticket, status)
	}
}

func (s *Server) works(ticket uint32, status int) {
	if !s.trial.Load().free(ticket) {
		return
	}
	s.freed(false)
	if h := s.core.hooks.Load(); h != nil {
		h.done(s, Outcome{Class: OK, Status: status, Early: true})
	}
}
