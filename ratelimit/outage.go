// SPDX-License-Identifier: Apache-2.0

package ratelimit

import "time"

// outage is what a Shared knows of its store:
//
//	there    fails in a row below the limit: it is asked each time
//	away     asked by one caller each pause, until it answers
//
// A failure counts if it was asked for after the one before was known. When a
// store is slow for a moment all that wait for it fail together, and that is
// one failure. And an answer ends an outage only if it was asked for after that had begun:
// some may still come in of what was asked before, or over a connection that is left.
type outage struct {
	limit int           // failures in a row that mean away
	pause time.Duration // between two questions to a store that is away

	failures int
	failed   time.Duration // when the last that counted was known
	away     bool
	since    time.Duration // when it became so
	retry    time.Duration // when to ask again
}

// ask reports whether to ask the store at time now.
func (o *outage) ask(now time.Duration) bool {
	if !o.away {
		return true
	}
	if now < o.retry {
		return false
	}
	o.retry = later(now, o.pause) // the others decide for themselves meanwhile
	return true
}

// answered notes an answer to what was asked at asked, and reports whether the store is back
// from now on.
func (o *outage) answered(asked time.Duration) (changed bool) {
	if o.away && asked <= o.since {
		return false
	}
	changed = o.away
	o.failures, o.away = 0, false
	return changed
}

// missed notes at time now that what was asked at asked has failed, and reports
// whether the store is away from now on.
func (o *outage) missed(asked, now time.Duration) (changed bool) {
	if o.away {
		o.retry = later(now, o.pause)
		return false
	}
	if o.failures > 0 && asked < o.failed {
		return false
	}
	o.failures++
	o.failed = now
	if o.failures < o.limit {
		return false
	}
	o.away, o.since, o.retry = true, now, later(now, o.pause)
	return true
}
