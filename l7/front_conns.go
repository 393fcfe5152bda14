// SPDX-License-Identifier: Apache-2.0

package l7

import "iter"

// byteConns is a list of connections that costs no memory of its own, and no garbage as it
// grows.
type byteConns struct {
	first *byteConn
	n     int
}

// A listed is the place of a connection in a list.
type listed struct{ before, after *byteConn }

func (l *byteConns) add(c *byteConn) {
	if c.after = l.first; c.after != nil {
		c.after.before = c
	}
	l.first = c
	l.n++
}

// remove does nothing if c is not in the list.
func (l *byteConns) remove(c *byteConn) {
	switch {
	case c.before != nil:
		c.before.after = c.after
	case l.first == c:
		l.first = c.after
	default:
		return
	}
	if c.after != nil {
		c.after.before = c.before
	}
	c.listed = listed{}
	l.n--
}

// all returns those in the list, which must not change meanwhile.
func (l *byteConns) all() iter.Seq[*byteConn] {
	return func(yield func(*byteConn) bool) {
		for c := l.first; c != nil && yield(c); c = c.after {
		}
	}
}
