// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"strings"
	"time"
)

const (
	// repeatAfter is how long a failure that goes on is not reported again.
	repeatAfter = time.Minute
	// mostReports bounds the failures that are told apart.
	mostReports = 16
)

// reports decides which failures of a source are reported: one that goes on is tried again
// every few seconds, and would fill a log.
type reports struct {
	good time.Time            // when the last good set came
	last string               // the last failure
	told map[string]time.Time // when failures were reported, since good
}

// works notes a good set.
func (r *reports) works(now time.Time) {
	r.good = now
	clear(r.told)
}

// again reports whether a failure is no news: it was reported less than a minute ago and no
// good set came since; or it came with a good set and is the one before, as that of a source
// with an entry that is wrong and stays so while others change.
func (r *reports) again(text string, now time.Time) bool {
	text = withoutLocalPorts(text)
	at, before := r.told[text]
	again := before && now.Sub(at) < repeatAfter || text == r.last && now.Sub(r.good) < shortestPause
	r.last = text
	if again {
		return true
	}
	if r.told == nil || len(r.told) == mostReports {
		r.told = make(map[string]time.Time)
	}
	r.told[text] = now
	return false
}

// withoutLocalPorts removes from the text of a [net.OpError] the port of the local address,
// which is another one in each try.
func withoutLocalPorts(text string) string {
	parts := strings.Split(text, "->")
	for i := range parts[:len(parts)-1] {
		parts[i] = strings.TrimRight(parts[i], "0123456789")
	}
	return strings.Join(parts, "->")
}
