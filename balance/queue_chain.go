// SPDX-License-Identifier: Apache-2.0

package balance

// A chain is a list of values that have their links in themselves.
type chain[T any, P linked[T]] struct{ first, last P }

type links[P any] struct{ prev, next P }

type linked[T any] interface {
	*T
	linked() *links[*T]
}

// insert puts x behind at, at the front if that is nil.
func (c *chain[T, P]) insert(x, at P) {
	l := x.linked()
	l.prev = at
	if at == nil {
		l.next, c.first = c.first, x
	} else {
		l.next, at.linked().next = at.linked().next, x
	}
	if next := P(l.next); next == nil {
		c.last = x
	} else {
		next.linked().prev = x
	}
}

// remove takes x out.
func (c *chain[T, P]) remove(x P) {
	l := x.linked()
	prev, next := P(l.prev), P(l.next)
	if prev == nil {
		c.first = next
	} else {
		prev.linked().next = next
	}
	if next == nil {
		c.last = prev
	} else {
		next.linked().prev = prev
	}
	*l = links[*T]{}
}
