// SPDX-License-Identifier: Apache-2.0

package balance

// A class holds the lanes of one priority. It is never empty.
type class struct {
	links[*class]
	priority int
	lanes    chain[lane, *lane] // in rotation
	byLoad   []*lane            // a heap: those with most waiters for their weight first
	turns    uint64             // how often a lane has come to the end of the rotation
}

func (c *class) linked() *links[*class] { return &c.links }

// enqueue puts q at the end of the rotation.
func (c *class) enqueue(q *lane) {
	c.turns++
	q.place = c.turns
	c.lanes.insert(q, c.lanes.last)
}

// add takes a new lane in.
func (c *class) add(q *lane) {
	q.class = c
	c.enqueue(q)
	q.at = len(c.byLoad)
	c.byLoad = append(c.byLoad, q)
	c.up(q)
}

// drop takes a lane out.
func (c *class) drop(q *lane) {
	c.lanes.remove(q)
	end := len(c.byLoad) - 1
	moved := c.byLoad[end]
	c.byLoad[end] = nil
	c.byLoad = c.byLoad[:end]
	if moved != q {
		c.byLoad[q.at], moved.at = moved, q.at
		c.fix(moved)
	}
}

// fix restores the order by load after that of q has changed.
func (c *class) fix(q *lane) {
	c.up(q)
	c.down(q)
}

func (c *class) up(q *lane) {
	for q.at > 0 {
		parent := c.byLoad[(q.at-1)/2]
		if !q.precedes(parent) {
			return
		}
		c.swap(q, parent)
	}
}

func (c *class) down(q *lane) {
	for {
		child := c.better(2*q.at+1, 2*q.at+2)
		if child == nil || !child.precedes(q) {
			return
		}
		c.swap(q, child)
	}
}

func (c *class) swap(q, o *lane) {
	q.at, o.at = o.at, q.at
	c.byLoad[q.at], c.byLoad[o.at] = q, o
}

// better returns which of two lanes in the heap precedes the other, nil if there is none.
func (c *class) better(i, j int) *lane {
	switch {
	case i >= len(c.byLoad):
		return nil
	case j < len(c.byLoad) && c.byLoad[j].precedes(c.byLoad[i]):
		return c.byLoad[j]
	}
	return c.byLoad[i]
}

// heaviest returns the first lane by load that is not of that tenant, nil if there is
// none. A tenant has one lane in a class.
func (c *class) heaviest(but uint64) *lane {
	if q := c.byLoad[0]; q.tenant != but {
		return q
	}
	return c.better(1, 2)
}

// outweighs reports whether q has more waiters for its weight than o.
func (q *lane) outweighs(o *lane) bool {
	return int64(q.n)*int64(o.weight) > int64(o.n)*int64(q.weight)
}

// precedes is outweighs, and at equal load the lane whose turn comes later precedes.
func (q *lane) precedes(o *lane) bool {
	return q.outweighs(o) || !o.outweighs(q) && q.place > o.place
}
