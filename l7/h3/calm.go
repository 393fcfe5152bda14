// SPDX-License-Identifier: Apache-2.0

package h3

import (
	"sync"
	"time"
)

// A glitch is what a client may do, but not often. Its value is what it adds to the
// level.
//
// The values are those of l7/internal/h2, and stand here once more because a module of its
// own must not depend on what is internal to another: that may change with any release.
// There are fewer of them, as QUIC itself answers PINGs and keeps the windows.
type glitch float64

const (
	glitchUnknown glitch = 1  // a frame of an unknown type, or PRIORITY_UPDATE
	glitchEmpty   glitch = 4  // DATA without data
	glitchReset   glitch = 4  // a request taken back before its reply, or not completed
	glitchStream  glitch = 4  // a stream of an unknown type
	glitchFields  glitch = 20 // a head of too many fields, which may be compressed to a few bytes

	glitchLevel  = 1000 // ends the connection
	glitchLeak   = 100  // a second
	glitchRefund = 4    // for each request that was served completely
)

// calm measures abuse with a leaky bucket: glitches fill it, and time and normal traffic
// drain it, as on the HTTP/2 front. Resets need no bucket of their own: DATA drains
// nothing here.
type calm struct {
	mu    sync.Mutex
	level float64
	at    time.Time
}

// add counts a glitch and reports whether the limit is exceeded.
func (c *calm) add(g glitch, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if d := now.Sub(c.at); d > 0 {
		c.level = max(c.level-d.Seconds()*glitchLeak, 0)
		c.at = now
	}
	c.level += float64(g)
	return c.level > glitchLevel
}

// served drains the bucket for a request that was served completely.
func (c *calm) served() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.level = max(c.level-glitchRefund, 0)
}
