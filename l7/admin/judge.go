// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/penstock-lb/penstock/balance"
)

// badShare is the share of errors from which it is a problem, if there are several.
const badShare = 0.05

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
	case v.State == "up" && v.ErrorShare >= badShare && v.Rate*v.ErrorShare >= 0.1:
		v.level = levelWarn
		p.Level, p.What, p.Since = "warn", "errors", nil
		p.Why = percent(v.ErrorShare) + " of its work fails"
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
		if v.RefuseRate > 0 {
			add(Problem{Level: "warn", Limit: v.Name, What: "refuses", Why: fmt.Sprintf("%s refused, %s admitted", rate(v.RefuseRate), rate(v.TakeRate))})
		}
	}
	for _, v := range s.Fronts {
		r := m.rates("front trouble "+v.Name, [3]uint64{v.AtLimit, v.AcceptErrors})
		if r[0] > 0 {
			add(Problem{Level: "warn", What: "full", Why: v.Name + " has reached its limit of connections"})
		}
		if r[1] > 0 {
			add(Problem{Level: "warn", What: "accept fails", Why: v.Name + " cannot accept connections"})
		}
		if v.ErrorShare >= badShare && v.Rate*v.ErrorShare >= 0.1 {
			add(Problem{Level: "warn", What: "errors", Why: percent(v.ErrorShare) + " of what " + v.Name + " serves fails"})
		}
	}
	slices.SortStableFunc(s.Problems, func(a, b Problem) int { return cmp.Compare(levelOf(b.Level), levelOf(a.Level)) })
}

// judge finds the problems of a pool as a whole.
func (v *PoolView) judge(m *memory, add func(Problem)) {
	r := m.rates("pool "+v.Name, [3]uint64{v.NoServer, v.QueueFull + v.QueueTimeouts, v.OverBudget})
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
	if r[0] > 0 {
		say("bad", "turns away", rate(r[0])+" find no server", nil)
	}
	if v.Queued > 0 || r[1] > 0 {
		why := fmt.Sprintf("%d wait for a server", v.Queued)
		if v.WaitP99 > 0 {
			why += ", p99 of the waits so far " + seconds(v.WaitP99)
		}
		if r[1] > 0 {
			why += ", " + rate(r[1]) + " give up"
		}
		say("warn", "queue", why, nil)
	}
	if r[2] > 0 {
		say("warn", "retries refused", rate(r[2])+" are over the budget", nil)
	}
	if v.Source != nil && v.Source.Error != "" {
		say("warn", "old servers", v.Source.Error, v.Source.Since)
	}
}

func levelOf(word string) int { return slices.Index(levelWords[:], word) }
