// SPDX-License-Identifier: Apache-2.0

package ratelimit

import (
	"math"
	"time"
)

// A lease is what a gateway knows of one key of a [Leased], and what it owes the store:
//
//	state   Take                                   is left when
//	open    on credit; what is too much for that   a question fails, or is late and the
//	        is asked for, or refused near the      credit used up, or the store is away: alone
//	        limit
//	alone   by the local law; what it admits is    the store has answered, is not away and
//	        owed as well                           has been back for long enough: open
//
// It is pure: it has no clock, lock or goroutine.
type lease struct {
	law    Law           // a GCRA or Window by value
	rate   Rate          // of it
	limit  int           // of it
	credit int           // the most that may be owed while open; 0 means that each Take is asked for
	margin int           // of the limit: with less than that left, the store is not asked for single Takes
	late   time.Duration // after which a question is late

	owed    int           // admitted and not charged; less than 0 if the store owes us
	during  int           // wanted while the last question was under way, admitted or not
	pace    int           // that of questions before, which count for less and less
	unmet   int           // refused or asked for alone since the last question
	under   bool          // a question is under way
	asked   time.Duration // since when
	covered int           // of owed, what the question is about

	known bool          // the store has answered once
	left  int           // what it had left then
	at    time.Duration // when that was asked for
	need  int           // what it has refused
	until time.Duration // until when, at best

	alone   bool
	trusted bool    // while alone: it has answered since
	misses  uint8   // questions that failed in a row
	told    telling // while alone

	last struct { // of the store's answers, for refunds
		at, reset time.Duration
		life      uint32
	}
}

// telling is whether the local law knows what has been used while the store was there.
type telling uint8

const (
	notTold telling = iota
	isTold          // by a Take that is about it
	told
)

// A verdict is what a lease says of a Take.
type verdict uint8

const (
	verdictYes   verdict = iota // admitted on credit
	verdictNo                   // refused
	verdictAsk                  // the store must be asked for it
	verdictLocal                // the local law decides
)

// leasable returns law by value, and whether batches can be taken of it: whether an event
// more or less is all that a Take changes. A Window may count refusals, and GCRA may
// return a wait: those are asked one by one.
func leasable(law Law) (Law, Rate, bool) {
	switch l := law.(type) {
	case GCRA:
		return law, l.Rate, l.MaxWait <= 0 && l.Rate.Count > 0
	case Window:
		return law, l.Rate, !l.CountRefused && l.Rate.Count > 0
	case *GCRA, *Window:
		if law = plain(law); law != nil {
			return leasable(law)
		}
	}
	return law, Rate{}, false
}

// creditOf returns what each of n gateways may owe, for all of them to owe a share of limit.
func creditOf(limit int, share float64, n int) int {
	return wholeOf(share * float64(limit) / float64(max(1, n)))
}

// wholeOf returns the whole part of f, which is not negative, or half of the greatest int,
// which leaves room to add to it.
func wholeOf(f float64) int {
	if f >= math.MaxInt/2 {
		return math.MaxInt / 2
	}
	return int(f)
}

// best returns what the store has left at now, if nothing has been taken since it
// was asked: an upper bound. No law of a rate gives back faster than its rate.
func (l *lease) best(now time.Duration) int {
	if !l.known {
		return l.limit
	}
	back := float64(now-l.at) * float64(l.rate.Count) / float64(l.rate.span())
	if back >= float64(l.limit-l.left) {
		return l.limit
	}
	return l.left + int(max(0, back))
}

// take decides on n. Away says that the store is, or has not been back for long.
func (l *lease) take(n int, now time.Duration, away bool) verdict {
	if l.alone && l.trusted && !away {
		l.alone = false
	}
	switch {
	case l.alone:
		return verdictLocal
	case away:
		l.leave()
		l.trusted = true // as soon as the store is back: no question of this key has failed
		return verdictLocal
	case n > l.limit:
		return verdictNo
	case l.owed+n <= l.credit:
		l.admit(n)
		return verdictYes
	case n == 0:
		return verdictYes
	}
	l.unmet += min(n, l.margin)
	l.want(min(n, l.margin))
	switch {
	case l.under && now-l.asked > l.late:
		l.leave()
		return verdictLocal
	case now < l.until && l.owed+n >= l.need:
		return verdictNo
	case l.known && l.best(now)-l.owed-n < l.margin:
		return verdictNo
	}
	return verdictAsk
}

// admit notes that n are owed.
func (l *lease) admit(n int) {
	l.owed += n
	l.want(n)
}

// want notes that n were asked for.
func (l *lease) want(n int) {
	if l.under {
		l.during += n
	}
}

// leave makes it alone.
func (l *lease) leave() { l.alone, l.trusted, l.told = true, false, notTold }

// urgent reports whether what is owed must be charged now: what is left of the credit
// might not last for two questions.
func (l *lease) urgent() bool {
	pace := max(l.during, l.pace)
	return l.owed >= min(l.credit-2*pace, max(1, l.credit/2)) && (l.owed > 0 || pace > 0)
}

// ahead returns how many to take before they are needed: what is admitted during two
// questions, if the limit is far, and else what was refused although there was some.
func (l *lease) ahead(now time.Duration) int {
	if !l.known {
		return 0
	}
	left := l.best(now) - l.owed
	if n := min(2*max(l.during, l.pace), max(l.margin, left/8)); left-n >= l.margin {
		return n
	}
	return max(0, min(l.unmet, l.margin, l.left-l.owed))
}

// share returns what the local law of one of n gateways begins with when the lease is
// left alone: its part of what the store had given out, and what it does not know of.
func (l *lease) share(n int, now time.Duration) int {
	used := 0
	if l.known {
		used = l.limit - l.best(now)
	}
	n = max(1, n)
	return max(0, l.owed) + (used+n-1)/n
}

// regained returns at most what the local law of one of n gateways has brought back in the
// time since a store that has forgotten everything is back. The store has brought back as
// much, before it was told what this gateway had used.
func (l *lease) regained(n int, since time.Duration) int {
	return wholeOf(math.Ceil(float64(since) * float64(l.rate.Count) / float64(l.rate.span()) / float64(max(1, n))))
}

// ask begins a question and returns for how many, less than 0 meaning to give back. Used
// is what the local law holds and has brought back since the store is back, if alone: more is not
// owed any longer, as time has brought it back before.
func (l *lease) ask(now time.Duration, used int) (n int, some bool) {
	switch {
	case l.under:
		return 0, false
	case l.alone:
		if l.told == told {
			l.owed = min(l.owed, used)
		}
		n = max(l.owed, 0)
		if n == 0 && l.trusted {
			return 0, false
		}
	case l.urgent():
		n = l.owed + l.ahead(now)
	default:
		n = l.owed
	}
	if n == 0 && !l.alone {
		return 0, false
	}
	if n > 0 {
		n = min(n, max(l.credit, l.sure(now), 1))
	}
	l.pace = max(l.during, l.pace-(l.pace+3)/4)
	l.under, l.asked, l.during, l.unmet, l.covered = true, now, 0, 0, n
	return n, true
}

// sure returns what to count on that the store has left, other gateways asking as well.
func (l *lease) sure(now time.Duration) int {
	if l.need > 0 { // it has refused something
		return l.left
	}
	return l.best(now)
}

// answered takes in the answer to a question under law. Now is when it came.
func (l *lease) answered(law Law, d Decision, now time.Duration) {
	l.under, l.trusted, l.misses = false, true, 0
	if law != l.law { // it has another now
		if d.OK {
			l.owed -= l.covered
		}
		return
	}
	if l.covered < 0 {
		l.owed -= l.covered
		return
	}
	if d.OK {
		l.owed -= l.covered
	}
	l.heard(d, l.covered, l.asked, now)
}

// heard takes in what the store says of n, asked for at asked.
func (l *lease) heard(d Decision, n int, asked, now time.Duration) {
	if l.known && asked < l.at {
		return // it has said more since
	}
	l.known, l.left, l.at = true, d.Remaining, asked
	l.last.at, l.last.reset, l.last.life = d.At, d.Reset, d.Life
	l.until, l.need = 0, 0
	if !d.OK && d.Wait != Never {
		l.until, l.need = later(now, d.Wait), n
		if few := max(l.credit, 1); n > few { // of which less will do
			l.until, l.need = later(now, l.takes(few-l.left)), few
		}
	}
}

// takes returns how long the law takes to give n.
func (l *lease) takes(n int) time.Duration {
	interval := float64(l.rate.span()) / float64(l.rate.Count)
	return time.Duration(min(float64(max(0, n))*interval, float64(longest)))
}

// failed notes that a question had no answer.
func (l *lease) failed() {
	l.under = false
	if !l.alone {
		l.leave()
	}
	l.trusted = false
	l.misses = min(l.misses+1, 8)
}

// due returns when to ask next, given that something is owed.
func (l *lease) due(now time.Duration) time.Duration {
	switch {
	case l.alone && !l.trusted:
		return later(now, leaseRetry<<l.misses)
	case l.until > now && l.left < l.credit:
		return l.until
	case !l.alone && l.urgent():
		return now
	}
	return later(now, leaseDelay)
}

const (
	leaseDelay = 100 * time.Millisecond // for which a little may be owed
	leaseRetry = 5 * time.Millisecond   // after a question that failed, and twice as long after each further one
)

// tell fills in the answer to a Take of n.
func (l *lease) tell(d *Decision, n int, ok bool, now time.Duration) {
	*d = Decision{OK: ok, Over: !ok, Limit: l.limit, At: now}
	left := min(l.limit, l.best(now)-l.owed)
	d.Reset = l.takes(l.limit - left)
	if ok {
		d.Remaining, d.Cost = max(0, left), n
		return
	}
	if n > l.limit {
		d.Wait = Never
		return
	}
	d.Wait = max(time.Millisecond, l.until-now, l.takes(n-left))
}

// refund takes back what d took, but for what time has brought back.
func (l *lease) refund(d Decision, now time.Duration) {
	state, _ := l.law.Take(0, d.At, min(max(d.Cost, d.Limit-d.Remaining), d.Limit))
	_, before := l.law.Take(state, now, 0)
	_, after := l.law.Take(l.law.Refund(state, now, d), now, 0)
	l.owed -= min(d.Cost, max(0, after.Remaining-before.Remaining))
}
