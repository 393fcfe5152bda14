// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"net/netip"

	"github.com/penstock-lb/penstock/balance"
)

// deliverQUIC gives a datagram to the flow that it belongs to, a new one if need be.
func (l *udpListener) deliverQUIC(client netip.AddrPort, b []byte) {
	p, ok := parseQUIC(b)
	if !ok || p.kind == quicNegotiate || p.kind == quicRetry { // a client sends neither
		l.p.dropped.Add(1)
		return
	}
	table, at := l.st.quic, quicAddr{l, client}
	for {
		m := table.find(at, &p)
		if m.flow == nil && m.peer == nil {
			m = l.findUnknown(at, &p)
		}
		if m.flow == nil {
			l.beginQUIC(at, &p, b, m.peer)
			return
		}
		if m.heard && !m.flow.quic.heard.Load() {
			m.flow.quic.heard.Store(true)
		}
		sent := table.send(m.flow, b)
		for _, f := range m.more {
			sent = table.send(f, b) || sent
		}
		if sent {
			return
		}
	}
}

// send gives a datagram to a flow, and forgets one that is just ending.
func (t *quicTable) send(f *udpFlow, b []byte) bool {
	if f.send(b) {
		return true
	}
	t.remove(f)
	return false
}

// findUnknown says where a datagram goes whose id has not been seen.
func (l *udpListener) findUnknown(at quicAddr, p *quicPacket) quicMatch {
	quic, table := l.p.QUIC, l.st.quic
	begins := p.kind.begins() && len(p.dst) > 0
	if begins && p.kind == quicInitial && table.served(at) {
		// A client may turn to an id that it got encrypted before it has sent the last of
		// its Initial packets: quic-go does, with its Finished in the same datagram.
		begins = p.opens()
	}
	if begins {
		if len(quic.Routes) > 0 {
			return quicMatch{} // where it goes is seen when its ClientHello is there
		}
		return table.near(at, p, true)
	}
	if name := l.serverOf(p.dst); name != "" {
		if pool := l.p.poolOf(name); pool != nil {
			return table.to(at, pool, name)
		}
	}
	return table.near(at, p, false)
}

func (l *udpListener) serverOf(id []byte) (name string) {
	if l.p.QUIC.ServerOf == nil || len(id) == 0 {
		return ""
	}
	defer func() { l.p.recovered(recover(), "ServerOf") }()
	return l.p.QUIC.ServerOf(id)
}

// poolOf is the first pool that has a server of that name.
func (p *UDPProxy) poolOf(server string) *balance.Pool {
	if p.Pool != nil && p.Pool.Server(server) != nil {
		return p.Pool
	}
	for _, r := range p.QUIC.Routes {
		if r.Pool != nil && r.Pool.Server(server) != nil {
			return r.Pool
		}
	}
	return nil
}

// beginQUIC begins a flow: of a client that is known, or of one that connects.
func (l *udpListener) beginQUIC(at quicAddr, p *quicPacket, b []byte, peer *quicPeer) {
	joins := peer != nil
	pool, server := l.p.Pool, ""
	wait := false
	switch {
	case joins:
		pool, server = l.st.quic.goesTo(peer)
		if server == "" {
			pool = nil // it has just begun, from another address: the client sends again
		}
	case p.kind.begins() && len(p.dst) > 0:
		wait = len(l.p.QUIC.Routes) > 0
		if len(b) < quicInitialBytes && p.kind != quicZeroRTT {
			pool, wait = nil, false
		}
	}
	if pool == nil && !wait {
		l.p.dropped.Add(1)
		return
	}
	f := l.newFlow(at.addr, joins)
	if f == nil {
		return
	}
	f.pool, f.req.Prefer = pool, server
	f.quic = &quicFlow{at: at}
	if wait {
		f.pool = nil
		f.quic.more = make(chan struct{}, 1)
	}
	if !joins {
		peer = &quicPeer{pool: f.pool}
	}
	f.send(b)
	if !l.st.quic.add(f, peer, p) {
		f.end(Termination{Resource, PhaseRequest}, errFlowOver)
		l.p.ended()
		return
	}
	l.start(f)
}

// reply learns the id that a server gives itself in a reply.
func (q *quicFlow) reply(f *udpFlow, b []byte) {
	if !q.replied.Load() {
		q.replied.Store(true)
	}
	if len(b) == 0 || b[0]&0x80 == 0 {
		return
	}
	p, ok := parseQUIC(b)
	if !ok || p.kind == quicNegotiate || p.kind == quicUnknown && len(p.src) > quicIDBytes {
		return
	}
	if id := quicIDOf(p.src); id != q.named {
		q.named = id
		f.l.st.quic.named(f, id)
	}
}
