// SPDX-License-Identifier: Apache-2.0

package h2

import "time"

// A Glitch is something that a peer may do, and that one which does it all the
// time only does to cause work.
type Glitch uint8

// The glitches.
const (
	GlitchReset    Glitch = iota // a stream reset before it was done (CVE-2023-44487), or made us reset it
	GlitchEmpty                  // DATA without data and without an end
	GlitchSplit                  // CONTINUATION (CVE-2024-27316)
	GlitchSettings               // SETTINGS after the first
	GlitchPing                   // PING
	GlitchPriority               // PRIORITY, PRIORITY_UPDATE
	GlitchWindow                 // WINDOW_UPDATE of a few bytes
	GlitchUnknown                // frames of unknown types
	GlitchRefused                // a stream above the number allowed
	GlitchFields                 // a head of more fields than are taken, which a few bytes may stand for
	glitches
)

func (g Glitch) String() string {
	return [...]string{"reset", "empty DATA", "CONTINUATION", "SETTINGS", "PING", "PRIORITY", "small WINDOW_UPDATE", "unknown frame", "refused stream", "oversized heads", "?"}[min(g, glitches)]
}

// weight is what a glitch adds to the level.
func (g Glitch) weight() float64 {
	switch g {
	case GlitchPing, GlitchPriority, GlitchWindow, GlitchUnknown:
		return 1
	case GlitchFields:
		return 20
	}
	return 4
}

const (
	glitchLevel  = 1000 // is the end
	glitchLeak   = 100  // a second
	glitchRefund = 4    // for each stream that was served to its end
	smallUpdate  = 128  // bytes
)

// calm is how much of a nuisance the peer is: buckets that glitches fill,
// that leak with time, and that good work empties. Streams that were reset have
// their own, which only streams that were served empty: pieces of data do not.
type calm struct {
	level  float64
	resets float64
	at     time.Time
	counts [glitches]uint64
}

// add counts a glitch and reports whether that was one too many.
func (c *calm) add(g Glitch, now time.Time) bool {
	c.counts[g]++
	if d := now.Sub(c.at); d > 0 {
		c.level = max(c.level-d.Seconds()*glitchLeak, 0)
		c.resets = max(c.resets-d.Seconds()*glitchLeak, 0)
		c.at = now
	}
	if g == GlitchReset || g == GlitchRefused {
		c.resets += g.weight()
		return c.resets > glitchLevel
	}
	c.level += g.weight()
	return c.level > glitchLevel
}

// refund is for a piece of data.
func (c *calm) refund() { c.level = max(c.level-1, 0) }

// served is for a stream that was served to its end.
func (c *calm) served() {
	c.level = max(c.level-glitchRefund, 0)
	c.resets = max(c.resets-glitchRefund, 0)
}
