// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"math"
	"time"
)

// SlowStart gives a server that is new, or comes back from Down or Maint, only a part
// of its weight and of its MaxConns at first:
//
//	part = max(Floor, (t/Window)^(1/Aggression))
//
// where t is the time since it became usable. The part moves in steps of a tenth, and
// is relative to the largest part in the tier, so that a pool in which everybody is new
// is not throttled.
//
// (Envoy, "Slow start mode"; HAProxy's slowstart is the linear case.)
type SlowStart struct {
	Window     time.Duration // 0 or negative means none
	Aggression float64       // 0 means 1, which is linear; more gives more at the beginning
	Floor      float64       // least part; 0 means 0.1; at most 1
}

const rampSteps = 10

// part returns the part at t after the start, and how long it stays; 0 means for ever.
func (ss SlowStart) part(t time.Duration) (part float64, next time.Duration) {
	if ss.Window <= 0 || t >= ss.Window {
		return 1, 0
	}
	aggression, floor := ss.Aggression, ss.Floor
	if aggression == 0 {
		aggression = 1
	}
	if floor == 0 {
		floor = 0.1
	}
	// at returns when step k begins.
	at := func(k int) time.Duration {
		window := min(ss.Window, math.MaxInt64/2) // room for the rounding of floats
		return time.Duration(math.Ceil(float64(window) * math.Pow(float64(k)/rampSteps, aggression)))
	}
	k := 0
	for k+1 < rampSteps && at(k+1) <= t {
		k++
	}
	return max(floor, float64(k)/rampSteps), max(at(k+1)-t, 1)
}

// ramps brings the parts of all members up to date, and the limits which follow from
// them. It arms the timer for the next step. c.mu is held.
func (c *core) ramps(now time.Time) {
	var next time.Duration
	members := c.set.Load().members
	most := make(map[int]float64) // by tier
	for _, s := range members {
		if s.status.warming {
			part, stays := c.conf.SlowStart.part(now.Sub(s.warmFrom))
			s.factor = part
			if stays == 0 {
				s.status.warming = false
				c.updateState(s, now)
			} else if next == 0 || stays < next {
				next = stays
			}
		}
		if s.published.usable() {
			tier := s.ep.Load().Tier
			most[tier] = max(most[tier], s.factor)
		}
	}
	for _, s := range members {
		limit := int64(s.maxConns)
		if m := most[s.ep.Load().Tier]; limit > 0 && s.factor < m {
			limit = max(1, int64(float64(limit)*s.factor/m))
		}
		if s.trial.Load() != nil {
			limit = -1 - limit
		}
		if was := s.limit.Load(); was != limit {
			s.limit.Store(limit)
			c.touched = append(c.touched, s)
		}
	}
	switch {
	case next == 0:
	case c.ramp == nil:
		c.ramp = time.AfterFunc(next, c.tick)
	default:
		c.ramp.Reset(next)
	}
}

// tick is the next step of a ramp.
func (c *core) tick() {
	c.mu.Lock()
	c.publish(nil, time.Now())
	c.unlock()
}
