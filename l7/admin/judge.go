// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/penstock-lb/penstock/balance"
)

// badShare is the share of errors from which it is a problem, if there are badCount.
const badShare, badCount = 0.05, 3

// failing returns the share of errors lately if it is a problem, and 0 otherwise.
func failing(failed, all uint64) float64 {
	if v := share(float64(failed), float64(all)); failed >= badCount && v >= badShare {
		return v
	}
	return 0
}

// often says how often something happens: by its present rate, or else by the count of
// the last minute.
func often(n uint64, now float64) string {
	if now > 0 {
		return rate(now)
	}
	return count(n) + " in the last minute"
}

// judge returns how bad the state of e is, without its history.
func (v *ServerView) judge(e *balance.Explanation) {
	switch {
	case e.State == balance.StateDown && !v.Ejected:
		v.level = levelBad
	case e.State == balance.StateDown, e.Used && e.Limit > 0 && e.Load >= e.Limit:
		v.level = levelWarn
	case e.State != balance.StateUp:
		v.level = levelNote
	}
}

// Level returns the severity as a word; Points draws the line of its rates.
func (v *ServerView) Level() string  { return levelWords[v.level] }
func (v *ServerView) Points() string { return points(v.rates) }

// Counts returns what Rate counts.
func (v FrontView) Counts() string {
	if v.Requests != nil {
		return "requests"
	}
	return "ended"
}

// Word returns the state of the server in a word or two.
func (v *ServerView) Word() string {
	switch {
	case v.State == "down" && v.Ejected:
		return "ejected"
	case v.waiting:
		return "draining"
	case v.State == "drain":
		return "drained"
	case v.State == "maint":
		return "maintenance"
	case v.State == "up" && !v.Used:
		return "spare"
	case v.State == "up" && v.level == levelWarn:
		return "at its limit"
	case v.State == "down" && v.Used:
		return "down, used"
	}
	return v.State
}

// problem returns what is wrong with a server; ok is false if nothing is.
func (v *ServerView) problem() (p Problem, ok bool) {
	p = Problem{Level: levelWords[v.level], Pool: v.Pool, Server: v.Name, What: v.Word(), Why: v.Reason, Since: &v.Since}
	switch {
	case v.waiting:
		p.Why = fmt.Sprintf("%d in flight", v.InFlight)
		if v.AdminReason != "" {
			p.Why += "; " + v.AdminReason
		}
	case v.State == "drain" || v.State == "maint":
		p.Why = v.AdminReason
	case v.State == "up" && v.level > levelNote:
		p.Since = nil // it would be the time when it came up
	case v.level > levelNote, v.State == "stopping", v.State == "unweighted":
	case v.State == "up" && v.failing > 0:
		v.level = levelWarn
		p.Level, p.What, p.Since = "warn", "errors", nil
		p.Why = percent(v.failing) + " of its work has failed in the last minute"
	case v.State == "up" && v.Check != nil && v.Check.Error != "":
		v.level = max(v.level, levelNote)
		p.Level, p.What, p.Since, p.Why = "note", "probe failed", nil, v.Check.Error
	default:
		return p, false
	}
	return p, true
}

// judge finds the problems.
func (s *Snapshot) judge(m *memory) {
	add := func(p Problem) { s.Problems = append(s.Problems, p) }
	for i := range s.Pools {
		v := &s.Pools[i]
		v.judge(m, add)
		for j := range v.Servers {
			if p, ok := v.Servers[j].problem(); ok {
				add(p)
			}
		}
	}
	for _, v := range s.Limits {
		if n := m.grown("limit "+v.Name, [3]uint64{v.Refused})[0]; n > 0 {
			add(Problem{Level: "warn", Limit: v.Name, What: "refuses", Why: "refused " + often(n, v.RefuseRate) + ", admits " + rate(v.TakeRate) + " now"})
		}
	}
	for _, v := range s.Fronts {
		r := m.grown("front trouble "+v.Name, [3]uint64{v.AtLimit, v.AcceptErrors})
		if r[0] > 0 {
			add(Problem{Level: "warn", What: "full", Why: v.Name + " has reached its limit of connections"})
		}
		if r[1] > 0 {
			add(Problem{Level: "warn", What: "accept fails", Why: v.Name + " cannot accept connections"})
		}
		if v.failing > 0 {
			add(Problem{Level: "warn", What: "errors", Why: percent(v.failing) + " of what " + v.Name + " serves has failed in the last minute"})
		}
	}
	slices.SortStableFunc(s.Problems, func(a, b Problem) int { return cmp.Compare(levelOf(b.Level), levelOf(a.Level)) })
}

// judge finds the problems of a pool as a whole.
func (v *PoolView) judge(m *memory, add func(Problem)) {
	totals := [3]uint64{v.NoServer, v.QueueFull + v.QueueTimeouts, v.OverBudget}
	r, n := m.rates("pool "+v.Name, totals), m.grown("pool "+v.Name, totals)
	say := func(level, what, why string, since *time.Time) {
		add(Problem{Level: level, Pool: v.Name, What: what, Why: why, Since: since})
	}
	switch {
	case len(v.Servers) == 0:
		say("bad", "empty", "it has no servers", nil)
	case v.Panicking:
		say("bad", "panic", fmt.Sprintf("only %d of %d servers are usable: all are used", v.Usable, len(v.Servers)), nil)
	case v.Usable == 0:
		say("bad", "no server", "none of its servers is usable", nil)
	}
	if n[0] > 0 {
		say("bad", "turns away", often(n[0], r[0])+" found no server", nil)
	}
	if v.Queued > 0 || n[1] > 0 {
		why := fmt.Sprintf("%d wait for a server", v.Queued)
		if v.WaitP99 > 0 {
			why += ", p99 of the waits so far " + seconds(v.WaitP99)
		}
		if n[1] > 0 {
			why += ", " + often(n[1], r[1]) + " gave up"
		}
		say("warn", "queue", why, nil)
	}
	if n[2] > 0 {
		say("warn", "retries refused", often(n[2], r[2])+" were over the budget", nil)
	}
	if v.Source != nil && v.Source.Error != "" {
		say("warn", "old servers", v.Source.Error, v.Source.Since)
	}
}

func levelOf(word string) int { return slices.Index(levelWords[:], word) }
