// SPDX-License-Identifier: Apache-2.0

package balance

import "sync/atomic"

// leastTree finds the least loaded of many servers: a tournament in which every inner
// node knows the winner of its two children, so that a change of one server replays the
// matches between it and the root, and no others.
//
// There is no lock. A node is a version and a winner; replaying a match reads both
// children and swaps the node, and starts over if the node was swapped meanwhile. So
// the last goroutine to replay a match has seen the latest loads: a node can be
// wrong only while a goroutine is still updating it.
type leastTree struct {
	turnOrder
	leaves  int             // a power of two
	nodes   []atomic.Uint64 // version<<32 | winner+1; the root is 1, the children of i are 2i and 2i+1
	stamps  []atomic.Uint64 // when each was picked last: among equals, the longest ago wins
	indexes []int32         // by slot; -1: not of this picker
}

func newLeastTree(v View) *leastTree {
	t := &leastTree{turnOrder: turnOrder{v, newTurns(v.Weights)}, leaves: 1, stamps: make([]atomic.Uint64, len(v.Servers))}
	for t.leaves < len(v.Servers) {
		t.leaves *= 2
	}
	t.nodes = make([]atomic.Uint64, t.leaves)
	slots := 0
	for _, s := range v.Servers {
		slots = max(slots, int(s.slot)+1)
	}
	t.indexes = make([]int32, slots)
	for i := range t.indexes {
		t.indexes[i] = -1
	}
	for i, s := range v.Servers {
		t.indexes[s.slot] = int32(i)
	}
	for n := t.leaves - 1; n > 0; n-- {
		t.replay(n)
	}
	return t
}

func (t *leastTree) Pick(_ uint64, f Filter) *Server {
	i, work, turn := t.next(f)
	if i < 0 || work > 0 {
		least := t.best(1, f)
		if i < 0 || least >= 0 && !(rank{uint64(work), uint64(t.view.Weights[i])}).less(t.rank(least, 1)) {
			i = least
		}
		if i < 0 {
			return nil
		}
	}
	t.stamps[i].Store(turn + 1)
	return t.view.Servers[i]
}

// best returns the winner below node n among those that f allows, or -1. It only goes
// down where the winner is not allowed.
func (t *leastTree) best(n int, f Filter) int {
	i := t.winner(n)
	if i < 0 || f.Allows(t.view.Servers[i]) {
		return i
	}
	if n >= t.leaves || f.full == needSlot && !t.view.Servers[i].roomy(needSlot) {
		return -1 // if the winner is full, all are
	}
	return t.better(t.best(2*n, f), t.best(2*n+1, f))
}

// winner returns the winner of node or leaf n, or -1.
func (t *leastTree) winner(n int) int {
	if n < t.leaves {
		return int(uint32(t.nodes[n].Load())) - 1
	}
	if n -= t.leaves; n < len(t.view.Servers) {
		return n
	}
	return -1
}

// better returns the one of two servers to prefer; -1 is none.
func (t *leastTree) better(i, j int) int {
	if i < 0 || j < 0 {
		return max(i, j)
	}
	a, b := t.view.Servers[i], t.view.Servers[j]
	if ra, rb := a.roomy(needSlot), b.roomy(needSlot); ra != rb {
		if ra {
			return i
		}
		return j
	}
	ra, rb := t.rank(i, 1), t.rank(j, 1)
	if ra.less(rb) || !rb.less(ra) && t.stamps[i].Load() <= t.stamps[j].Load() {
		return i
	}
	return j
}

// own marks a picker of this package.
func (*leastTree) own() {}

// Changed replays the matches of s.
func (t *leastTree) Changed(s *Server) {
	if int(s.slot) >= len(t.indexes) {
		return
	}
	i := int(t.indexes[s.slot])
	if i < 0 || t.view.Servers[i] != s {
		return
	}
	for n := (t.leaves + i) / 2; n > 0; n /= 2 {
		if was, is := t.replay(n); was == is && is != i {
			return // it is of no account further up
		}
	}
}

// replay plays the match at node n. It returns the winners before and now.
func (t *leastTree) replay(n int) (was, is int) {
	for {
		old := t.nodes[n].Load()
		is = t.better(t.winner(2*n), t.winner(2*n+1))
		if t.nodes[n].CompareAndSwap(old, (old>>32+1)<<32|uint64(is+1)) {
			return int(uint32(old)) - 1, is
		}
	}
}
