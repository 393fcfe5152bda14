// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// An Explanation says why a server does or does not get new work.
type Explanation struct {
	Server *Server
	Used   bool   // gets new work now
	Reason string // in words; may be empty if the server is used
	State  State
	Since  time.Time // of State
	Tier   int
	Weight float64 // slow start applied; 0 if not used
	Share  float64 // part of all picks that goes to its tier and zone
	Load   int     // in flight and queued for it
	Limit  int     // of what is in flight, at present; 0 means none

	// Operator and Reports are the last reports of the operator and of each reporter,
	// whether they decide the state or not.
	Operator Operator
	Reports  []Report // sorted by By; none of a reporter that has not reported
	Loads    []Load   // what the server reports of its own load, by name
}

// String returns a line such as "a: not used: check says down: connection refused".
func (e Explanation) String() string {
	used := "used"
	if !e.Used {
		used = "not used"
	}
	return e.Server.Name() + ": " + join(used, e.Reason)
}

// Explain says for each member, in the order of Set, why it is or is not used.
func (p *Pool) Explain() []Explanation {
	p.init()
	c := p.core
	c.mu.Lock()
	defer c.mu.Unlock()
	sn := p.snap.Load()
	var all []Explanation
	at := make(map[*Server]int)
	for i, s := range sn.set.members {
		at[s] = i
		all = append(all, Explanation{
			Server: s, Reason: s.status.reason(), State: s.published, Since: s.since, Tier: s.ep.Load().Tier,
			Operator: s.status.operator, Reports: slices.Clone(s.status.reports),
			Load: int(s.load()), Limit: int(s.capacity()), Loads: s.Loads(),
		})
	}
	for i := range sn.groups {
		g := &sn.groups[i]
		for j, s := range g.view.Servers {
			e := &all[at[s]]
			e.Used, e.Share = !g.spare, g.share
			e.Weight = float64(g.view.Weights[j]) / float64(g.view.Unit)
			e.explain(g, s, c.conf)
		}
	}
	if src := c.source.Load(); src != nil && src.Err != nil {
		for i := range all {
			e := &all[i]
			e.Reason = strings.TrimPrefix(fmt.Sprintf("%s; may be out of date since %s: %v", e.Reason, src.Since.Format(time.RFC3339), src.Err), "; ")
		}
	}
	return all
}

// explain finds the words for a server of group g.
func (e *Explanation) explain(g *group, s *Server, conf *Pool) {
	switch {
	case g.spare && conf.Tiers.Overflow:
		e.Reason = fmt.Sprintf("spare: serves when others are at their limits (tier %d, zone %q)", e.Tier, s.ep.Load().Zone)
	case g.spare:
		e.Reason = fmt.Sprintf("spare: others carry the load (tier %d, zone %q)", e.Tier, s.ep.Load().Zone)
	case !e.State.usable():
		e.Reason = join("panic: too few servers are usable", e.Reason)
	case s.trial.Load() != nil:
		e.Reason = "on trial: one lease at a time, until its observer has seen how that goes"
	case e.Limit > 0 && e.Load >= e.Limit:
		e.Reason = fmt.Sprintf("at its limit: %d of %d", e.Load, e.Limit)
	}
}
