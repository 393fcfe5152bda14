// SPDX-License-Identifier: Apache-2.0

package balance

import "time"

// A SourceState says how a pool stands with the source that it follows.
type SourceState struct {
	Good  time.Time // when the last set came that was good; zero if none has
	Err   error     // why the set may be old; nil if the source has said nothing else since Good
	Since time.Time // of Err: the first failure after Good
}

// SourceState returns how p stands with the source that [Pool.Follow] was called with
// last; ok is false if there is none. A subset has none, ask the pool it is of.
func (p *Pool) SourceState() (st SourceState, ok bool) {
	p.init()
	if s := p.core.source.Load(); s != nil {
		return *s, true
	}
	return SourceState{}, false
}

// sourceWorks notes a good set. Only Follow calls it.
func (c *core) sourceWorks(now time.Time) { c.source.Store(&SourceState{Good: now}) }

// sourceFails notes a failure. Only Follow calls it.
func (c *core) sourceFails(err error, now time.Time) {
	next := SourceState{Err: err, Since: now}
	if last := c.source.Load(); last != nil {
		if next.Good = last.Good; last.Err != nil {
			next.Since = last.Since
		}
	}
	c.source.Store(&next)
}
