// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"errors"
	"net"
	"os"
	"sync/atomic"
	"time"
)

// A writeBound ends writes of which the peer has accepted nothing for a while.
// A deadline set by other code replaces it until that is cleared. Only the
// writer uses at.
type writeBound struct {
	at     deadline
	whole  bool         // a write that has timed out cannot be continued, as in TLS
	limit  atomic.Int64 // a time.Duration; 0 means none
	others hostDeadline
	moved  atomic.Bool // the deadline in force is not at
	over   atomic.Bool // the bound has ended a write: nothing more is written
}

// set sets the limit from now on; 0 means none.
func (b *writeBound) set(limit time.Duration) { b.limit.Store(int64(limit)) }

// lift ends the bound for good: c serves no more requests.
func (b *writeBound) lift(c net.Conn) {
	b.limit.Store(0)
	if !b.others.stands() {
		_ = c.SetWriteDeadline(time.Time{})
	}
}

// deadline sets a deadline of other code.
func (b *writeBound) deadline(c net.Conn, t time.Time) error {
	if t.IsZero() {
		b.others.clear()
	} else {
		b.others.set(t)
	}
	b.moved.Store(true)
	return c.SetWriteDeadline(t)
}

// renew bounds the next write, and reports whether the bound is ours.
func (b *writeBound) renew(c net.Conn, now time.Time, limit time.Duration) bool {
	if limit <= 0 || b.others.stands() {
		return false
	}
	if b.moved.Swap(false) {
		b.at.forget()
	}
	d := slice(limit)
	if b.whole {
		d = limit
	}
	return b.at.bound(now, d, c.SetWriteDeadline, b.others.get)
}

// write writes all of p to c.
func (b *writeBound) write(c net.Conn, p []byte) (n int, err error) {
	if b.over.Load() {
		return 0, os.ErrDeadlineExceeded // closing TLS would wait to send close_notify
	}
	limit := time.Duration(b.limit.Load())
	now := time.Now()
	wait := patience{limit: limit, since: now}
	for {
		ours := b.renew(c, now, limit)
		m, err := c.Write(p[n:])
		if n += m; err == nil || !ours || b.whole || b.moved.Load() {
			return n, err
		}
		if now = time.Now(); !wait.lasts(m, err, now) {
			b.over.Store(true)
			return n, err
		}
	}
}

// patience tells a peer that accepts bytes slowly from one that accepts none: a
// write ends only if no byte went for limit. A deadline does not tell when the
// last byte went, so a write is checked five times in limit.
type patience struct {
	limit time.Duration
	since time.Time // when a byte is last known to have been written
}

func slice(limit time.Duration) time.Duration {
	if limit <= 0 {
		return limit
	}
	return max(limit/5, 1)
}

// lasts reports whether a write that has written n bytes continues after err.
func (p *patience) lasts(n int, err error, now time.Time) bool {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	if n > 0 {
		p.since = now
	}
	return now.Sub(p.since) < p.limit
}
