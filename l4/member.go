// SPDX-License-Identifier: Apache-2.0

package l4

import "sync/atomic"

// A member is a Conn's place in the list of the server that accepted it.
type member struct {
	server     *Server
	record     *Record       // nil if there is no OnDone
	end        atomic.Uint32 // the Cause that was noted first
	next, prev *Conn
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
