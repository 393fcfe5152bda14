// SPDX-License-Identifier: Apache-2.0

package l4

import "sync/atomic"

// A member is a Conn's place in the list of the server that accepted it.
type member struct {
	server     *Server
	record     *Record       // nil if there is no OnDone
	end        atomic.Uint32 // the Cause that was noted first
	open       atomic.Int32  // what the server waits for: the Conn itself and the relay of a Proxy
	next, prev *Conn
}

// hold has the server of c wait, once c is closed, for release: what the record says of a
// relay is known at the end of that, also if other code closes c before. It does nothing
// and returns false if c is not one of a server, or the server has been told already.
func (c *Conn) hold() bool {
	if c == nil {
		return false
	}
	for {
		n := c.member.open.Load()
		if n == 0 {
			return false
		}
		if c.member.open.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// release undoes hold, and is called once by Close. The last one tells the server.
func (c *Conn) release() {
	if s := c.member.server; s != nil && c.member.open.Add(-1) == 0 {
		s.closed(c)
	}
}

// memberList is a list of connections that costs no memory of its own.
type memberList struct {
	first *Conn
	n     int
}

func (l *memberList) add(c *Conn) {
	if c.member.next = l.first; l.first != nil {
		l.first.member.prev = c
	}
	l.first = c
	l.n++
}

func (l *memberList) remove(c *Conn) {
	m := &c.member
	if m.prev != nil {
		m.prev.member.next = m.next
	} else {
		l.first = m.next
	}
	if m.next != nil {
		m.next.member.prev = m.prev
	}
	m.next, m.prev = nil, nil
	l.n--
}

func (l *memberList) all() []*Conn {
	all := make([]*Conn, 0, l.n)
	for c := l.first; c != nil; c = c.member.next {
		all = append(all, c)
	}
	return all
}
