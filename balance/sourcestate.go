// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"fmt"
	"strings"
	"time"
)

// A SourceState says how a pool stands with the source that it follows.
type SourceState struct {
	Good  time.Time // when the last set came that was good; zero if none has
	Err   error     // why the set may be old, in at most 2 KiB of text; nil if the source has said nothing else since Good
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

// maxReason is how many bytes of an error of a source are shown.
const maxReason = 2048

// A longError is the error of a source that says too much: a mistake of each of ten thousand
// endpoints, or a value of a megabyte. Each failure is logged, and Explain repeats it for each
// server.
type longError struct {
	error
	text string
}

// Error returns the beginning.
func (e *longError) Error() string { return e.text }

// Unwrap returns the whole.
func (e *longError) Unwrap() error { return e.error }

// shortened returns err, with its text cut if it is long.
func shortened(err error) error {
	text := err.Error()
	if len(text) <= maxReason {
		return err
	}
	const tail = 32 // for what is said of the rest
	head := strings.ToValidUTF8(text[:maxReason-tail], "")
	return &longError{err, fmt.Sprintf("%s... (%d bytes more)", head, len(text)-len(head))}
}
