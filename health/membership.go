// SPDX-License-Identifier: Apache-2.0

package health

import (
	"math"
	"slices"
	"time"

	"github.com/penstock-lb/penstock/balance"
)

// sync brings the targets in line with the pools. What is new is due now.
func (r *round) sync(now time.Time) {
	for _, p := range r.c.Pools {
		for s := range p.All() {
			k := key{server: s}
			if r.c.Key != nil {
				if name := keyOf(r.log, r.c.Key, s.Endpoint()); name != "" {
					k = key{name: name}
				}
			}
			t := r.targets[k]
			if t == nil {
				t = &target{key: k, place: -1, due: now}
				r.targets[k] = t
				r.due.set(t)
			}
			if k.name == "" && len(t.next) > 0 {
				continue // in two pools, or in two views of one
			}
			if !slices.Contains(t.next, s) {
				t.next = append(t.next, s)
			}
		}
	}
	changed := false
	for k, t := range r.targets {
		if slices.Equal(t.servers, t.next) {
			t.next = t.next[:0]
			continue
		}
		changed = true
		r.replace(t, now)
		if len(t.servers) == 0 {
			t.gone = true
			r.calm(t)
			if r.c.agents != nil {
				delete(r.c.agents.said, k.server)
			}
			r.due.remove(t)
			delete(r.targets, k)
		}
	}
	if changed {
		r.publish()
	}
	r.moved(now)
}

// moved begins anew with targets whose address changed.
func (r *round) moved(now time.Time) {
	for _, t := range r.targets {
		addr := t.servers[0].Addr()
		if t.addr != "" && t.addr != addr {
			r.begin(t, now, true)
			if t.due = now; !t.busy {
				r.due.set(t)
			}
		}
		t.addr = addr
	}
}

// replace makes t.next the servers of t, and tells the new ones their state.
func (r *round) replace(t *target, now time.Time) {
	old := t.servers
	t.servers, t.next = t.next, nil
	if len(old) == 0 {
		r.begin(t, now, false)
		return
	}
	st := t.read()
	for _, s := range t.servers {
		if !slices.Contains(old, s) {
			s.Report(balance.Check, st.Health, st.Reason)
		}
	}
}

// publish lets Status and Observed see the targets.
func (r *round) publish() {
	m := make(map[*balance.Server]*target, len(r.targets))
	for _, t := range r.targets {
		for _, s := range t.servers {
			m[s] = t
		}
	}
	r.c.watched.Store(&watch{round: r, targets: m})
}

// spread sets the first probes of all targets apart, in the order of the pools.
func (r *round) spread(now time.Time) {
	n := len(r.targets)
	over := r.c.Spread
	if over == 0 {
		over = min(time.Duration(n)*20*time.Millisecond, r.interval)
	}
	if over < 0 || n == 0 {
		return
	}
	i := 0
	for _, p := range r.c.Pools {
		for s := range p.All() {
			t := r.c.watched.Load().targets[s]
			if t == nil || t.servers[0] != s || t.spread {
				continue
			}
			t.spread = true
			at := over / time.Duration(n) * time.Duration(i)
			if over < math.MaxInt64/time.Duration(n) {
				at = over * time.Duration(i) / time.Duration(n) // without the loss of rounding
			}
			if over/time.Duration(n) < r.grid {
				at = at.Truncate(r.grid)
			}
			t.due = now.Add(at)
			r.due.set(t)
			t.mu.Lock()
			t.status.Due = t.due
			t.mu.Unlock()
			i++
		}
	}
}

// whose returns the attributes of a log line about s: the name of the first of pools that
// has s, unless that is empty, and its own name.
func whose(pools []*balance.Pool, s *balance.Server) []any {
	for _, p := range pools {
		for member := range p.All() {
			if member == s && p.Name != "" {
				return []any{"pool", p.Name, "server", s.Name()}
			}
		}
	}
	return []any{"server", s.Name()}
}
