// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"errors"
	"os"
	"time"
)

// fill reads more. A silent connection is sent a PING if it has streams. One that has
// none is closed after IdleTimeout, whatever comes meanwhile.
func (c *h2Conn) fill() error {
	ping, keep := orDefault(c.host.up.PingTimeout, defaultPingTimeout), orDefault(c.host.up.IdleTimeout, defaultKeepIdle)
	from, now := c.readOn, c.readOn // from is when the silence before a PING, or behind it, began
	for {
		closed, broken, err := c.boundRead(from, now, ping, keep)
		if closed {
			return err
		}
		err = c.in.fillBulk(c.c, &c.host.up.buffers)
		if err == nil {
			c.readOn, c.pinged = time.Now(), false
			return nil
		}
		if broken != nil {
			return broken
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		now = time.Now()
		if from, err = c.silent(from, now, ping, keep); err != nil {
			return err
		}
	}
}

// boundRead bounds the next read, and returns the state of the connection. It holds
// the lock until the deadline is set, or it could overwrite that of unwritable.
func (c *h2Conn) boundRead(from, now time.Time, ping, keep time.Duration) (closed bool, broken, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	idle := c.idleFor(now)
	at := deadlineIn(from, ping)
	if keep > 0 {
		look := keep - idle
		if idle < 0 { // the last stream may end meanwhile
			look = halfOf(keep)
		}
		if end := deadlineIn(now, max(look, 1)); at.IsZero() || end.Before(at) {
			at = end
		}
	}
	if c.broken != nil { // received bytes may still be read
		at = time.Now().Add(time.Second)
	}
	if !c.closed {
		_ = c.nc.SetReadDeadline(at)
	}
	return c.closed, c.broken, c.err
}

// idleFor returns for how long there have been no streams, as far as the reading
// goroutine has seen, and a negative number if there are some. The lock is held.
func (c *h2Conn) idleFor(now time.Time) time.Duration {
	if !c.idle() {
		c.idleAt = time.Time{}
		return -1
	}
	if n := c.requests.Load(); c.idleAt.IsZero() || n != c.idleAfter {
		c.idleAt, c.idleAfter = now, n
	}
	return now.Sub(c.idleAt)
}

// silent is called when nothing has come until the deadline of boundRead. It returns
// the new start of the silence, or an error if the connection has to end.
func (c *h2Conn) silent(from, now time.Time, ping, keep time.Duration) (time.Time, error) {
	c.mu.Lock()
	idle, broken := c.idleFor(now), c.broken
	c.mu.Unlock()
	switch {
	case broken != nil:
	case idle >= 0:
		if keep > 0 && idle >= keep {
			c.retire()
			return now, errRetired
		}
	case ping == 0:
	case now.Sub(from) < ping:
		return from, nil
	case c.pinged:
		return now, errNoPong
	default:
		c.pinged = true
		c.mu.Lock()
		c.h2.WritePing([8]byte{})
		c.mu.Unlock()
		c.flush()
	}
	return now, nil
}

var errNoPong = errors.New("l7: Upstream.PingTimeout exceeded: no answer to a PING")
