// SPDX-License-Identifier: Apache-2.0

package h2

import "time"

// A Glitch is an action that a peer may take, but that is abuse if it is
// frequent.
type Glitch uint8

// The glitches.
const (
	GlitchReset    Glitch = iota // a stream that the peer reset early (CVE-2023-44487), or made us reset
	GlitchEmpty                  // DATA without data and without an end
	GlitchSplit                  // CONTINUATION (CVE-2024-27316)
	GlitchSettings               // SETTINGS after the first
	GlitchPing                   // PING
	GlitchPriority               // PRIORITY, PRIORITY_UPDATE
	GlitchWindow                 // WINDOW_UPDATE of a few bytes
	GlitchUnknown                // frames of unknown types
	GlitchRefused                // a stream above the number allowed
	GlitchFields                 // a head of too many fields, which may be compressed to a few bytes
	GlitchGoAway                 // GOAWAY
	glitches
)

func (g Glitch) String() string {
	return [...]string{"reset", "empty DATA", "CONTINUATION", "SETTINGS", "PING", "PRIORITY", "small WINDOW_UPDATE", "unknown frame", "refused stream", "oversized heads", "GOAWAY", "?"}[min(g, glitches)]
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
	glitchLevel  = 1000 // ends the connection
	glitchLeak   = 100  // a second
	glitchRefund = 4    // for each stream that was served completely
	smallUpdate  = 128  // bytes
)

// calm measures the abuse by a peer with leaky buckets: glitches fill them, and
// normal traffic drains them. Stream resets have a bucket of their own, which
// only completely served streams drain, not DATA frames.
type calm struct {
	level  float64
	resets float64
	at     time.Time
	counts [glitches]uint64
}

// add counts a glitch and reports whether the limit is exceeded.
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

// refund drains a bucket for a DATA frame.
func (c *calm) refund() { c.level = max(c.level-1, 0) }

// served drains the buckets for a stream that was served completely.
func (c *calm) served() {
	c.level = max(c.level-glitchRefund, 0)
	c.resets = max(c.resets-glitchRefund, 0)
}
