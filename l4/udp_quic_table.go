// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"bytes"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/penstock-lb/penstock/balance"
)

const (
	quicPeerIDs  = 8  // ids kept of one client that its server has named, and as many that it has used
	quicSiblings = 32 // flows of one address, to different servers or pools, or whose pool is not known yet

	// quicUnproven is how many flows get a datagram that may be of any flow of its address, if
	// nothing shows that replies reach that address. Each server may answer with as much: three
	// times of what came is the most for such an address (RFC 9000, section 8).
	quicUnproven = 3
)

// A quicID is a connection id, as a key.
type quicID struct {
	n uint8
	b [quicIDBytes]byte
}

func quicIDOf(b []byte) (id quicID) {
	id.n = uint8(copy(id.b[:], b))
	return id
}

// is reports whether a packet goes to id.
func (id *quicID) is(p *quicPacket) bool {
	n := int(id.n)
	if n == 0 || len(p.dst) < n || p.kind != quicShort && len(p.dst) != n {
		return false
	}
	return bytes.Equal(p.dst[:n], id.b[:n])
}

// A quicPeer is a client with connections to one server: the flows of its addresses, and the
// ids that its datagrams have. The lock of the table guards it.
type quicPeer struct {
	named quicRing // by the server, in clear: a client that uses many others cannot push these out
	used  quicRing // by the client
	flows int

	pool   *balance.Pool // nil until its ClientHello was there
	server string        // "" until there is one
	length uint8         // of the id that the server has named last; 0 means none
}

// has reports whether p goes to an id of the peer, and whether that shows that the client
// gets replies.
func (c *quicPeer) has(p *quicPacket) (has, heard bool) {
	for i := range c.named.ids {
		if c.named.ids[i].is(p) {
			return true, true
		}
	}
	for i := range c.used.ids {
		if c.used.ids[i].is(p) {
			return true, c.used.theirs>>i&1 != 0
		}
	}
	return false, false
}

// A quicRing is the latest ids of a kind.
type quicRing struct {
	ids    []quicID
	theirs uint8 // bit i: ids[i] is known to who got the server's replies, not to who made it up
	oldest int   // where the next id goes once there are quicPeerIDs
}

// put adds an id, and returns the one that had to go for it.
func (r *quicRing) put(id quicID, theirs bool) (gone quicID) {
	i := len(r.ids)
	if i < quicPeerIDs {
		r.ids = append(r.ids, id)
	} else {
		i = r.oldest
		gone, r.ids[i] = r.ids[i], id
		r.oldest = (i + 1) % quicPeerIDs
	}
	r.theirs &^= 1 << i
	if theirs {
		r.theirs |= 1 << i
	}
	return gone
}

// A quicFlow is what a flow has besides, if its datagrams are QUIC.
type quicFlow struct {
	at      quicAddr
	peer    *quicPeer     // guarded by the table
	sibling *udpFlow      // another flow of the same address; guarded by the table
	more    chan struct{} // told, while the ClientHello is awaited, that a datagram has come or the flow is over
	full    bool          // one was not kept; guarded by the flow
	late    bool          // it has been awaited for long enough; for the goroutine that awaits it
	heard   atomic.Bool   // the client has used an id that the server has chosen
	replied atomic.Bool   // the server has replied
	named   quicID        // the id that the server has named last; for the goroutine that relays replies
}

// quicAddr is where the datagrams of a flow come in.
type quicAddr struct {
	l    *udpListener
	addr netip.AddrPort
}

// A quicTable finds the flow of a datagram for all sockets of a UDPProxy: a client whose
// address changes may get to another of them.
type quicTable struct {
	scratch sync.Pool // of *quicHello

	mu      sync.Mutex
	flows   map[quicAddr]*udpFlow // and its siblings
	ids     map[quicID]*quicPeer
	lengths uint32 // bit n: a server has named an id of n bytes
}

func newQUICTable() *quicTable {
	return &quicTable{
		scratch: sync.Pool{New: func() any { return new(quicHello) }},
		flows:   make(map[quicAddr]*udpFlow),
		ids:     make(map[quicID]*quicPeer),
	}
}

// A quicMatch is where a datagram goes.
type quicMatch struct {
	flow  *udpFlow
	more  []*udpFlow // flows that it may be of as well
	peer  *quicPeer  // whose it is, if its address has no flow yet
	heard bool       // it shows that replies reach the client
}

// find says where p goes by what is known of its id.
func (t *quicTable) find(at quicAddr, p *quicPacket) (m quicMatch) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for f := t.flows[at]; f != nil; f = f.quic.sibling {
		if has, heard := f.quic.peer.has(p); has {
			m.flow, m.heard = f, heard
			return m
		}
	}
	peer := t.lookup(p)
	if peer == nil {
		return m
	}
	m.peer = peer
	_, m.heard = peer.has(p)
	for f := t.flows[at]; f != nil; f = f.quic.sibling {
		if of := f.quic.peer; of.pool == peer.pool && of.server == peer.server && of.server != "" {
			m.flow = f // it goes to the same server
			return m
		}
	}
	return m
}

// lookup finds an id that has been seen, the longest that p may have. t.mu is held.
func (t *quicTable) lookup(p *quicPacket) *quicPeer {
	if p.kind != quicShort {
		if len(p.dst) == 0 || len(p.dst) > quicIDBytes {
			return nil
		}
		return t.ids[quicIDOf(p.dst)]
	}
	for n := len(p.dst); n > 0; n-- {
		if t.lengths>>n&1 == 0 {
			continue
		}
		if peer := t.ids[quicIDOf(p.dst[:n])]; peer != nil {
			return peer
		}
	}
	return nil
}

// near says where a datagram with an unknown id goes by its address: to the flows there. If
// there is only one, the id is the client's.
func (t *quicTable) near(at quicAddr, p *quicPacket, begins bool) (m quicMatch) {
	t.mu.Lock()
	defer t.mu.Unlock()
	unproven := 0
	for f := t.flows[at]; f != nil; f = f.quic.sibling {
		if f.quic.peer.pool == nil {
			continue
		}
		if !f.quic.heard.Load() {
			if unproven++; unproven > quicUnproven {
				continue
			}
		}
		switch {
		case m.flow == nil:
			m.flow = f
		case !begins: // a connection begins at one server
			m.more = append(m.more, f)
		}
	}
	if m.flow == nil || m.more != nil {
		return m
	}
	peer, heard := m.flow.quic.peer, m.flow.quic.heard.Load()
	switch n := int(peer.length); {
	case p.kind != quicShort && len(p.dst) <= quicIDBytes:
		t.learn(peer, quicIDOf(p.dst), heard)
	case p.kind == quicShort && n > 0 && len(p.dst) >= n:
		t.learn(peer, quicIDOf(p.dst[:n]), heard)
	}
	m.heard = peer.length == 0 && !begins && m.flow.quic.replied.Load()
	return m
}

// served reports whether an address has a flow whose pool is known.
func (t *quicTable) served(at quicAddr) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.flows[at]
	for f != nil && f.quic.peer.pool == nil {
		f = f.quic.sibling
	}
	return f != nil
}

// to says where a datagram goes for whose id the host has named the server.
func (t *quicTable) to(at quicAddr, pool *balance.Pool, server string) (m quicMatch) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for f := t.flows[at]; f != nil; f = f.quic.sibling {
		if of := f.quic.peer; of.pool == pool && of.server == server {
			m.flow, m.heard = f, true
			return m
		}
	}
	m.peer = &quicPeer{pool: pool, server: server}
	return m
}

// learn notes an id that a client has used. Of two that have the same one, the first keeps it
// where the address says nothing. t.mu is held.
func (t *quicTable) learn(peer *quicPeer, id quicID, theirs bool) {
	if id.n == 0 {
		return
	}
	if t.ids[id] == nil {
		t.ids[id] = peer
	}
	t.drop(peer, peer.used.put(id, theirs))
}

// drop forgets an id that a peer had, unless it has it twice.
func (t *quicTable) drop(peer *quicPeer, id quicID) {
	if t.ids[id] == peer && !slices.Contains(peer.named.ids, id) && !slices.Contains(peer.used.ids, id) {
		delete(t.ids, id)
	}
}

// named learns the id that a server has named in a reply to f. A client that has used it
// before, which can only be a guess, does not keep it.
func (t *quicTable) named(f *udpFlow, id quicID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	peer := f.quic.peer
	peer.length = id.n
	t.lengths |= 1 << id.n
	if id.n == 0 || slices.Contains(peer.named.ids, id) {
		return
	}
	if of := t.ids[id]; of == nil || !slices.Contains(of.named.ids, id) {
		t.ids[id] = peer
	}
	t.drop(peer, peer.named.put(id, true))
}

// add enters a flow, of the client peer; false means that its address has too many.
func (t *quicTable) add(f *udpFlow, peer *quicPeer, p *quicPacket) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for g := t.flows[f.quic.at]; g != nil; g = g.quic.sibling {
		n++
	}
	if n >= quicSiblings {
		return false
	}
	if peer.flows++; peer.flows == 1 {
		for _, id := range slices.Concat(peer.named.ids, peer.used.ids) { // its last flow may just have ended
			if t.ids[id] == nil {
				t.ids[id] = peer
			}
		}
	}
	if has, _ := peer.has(p); !has && p.kind != quicShort && len(p.dst) <= quicIDBytes {
		t.learn(peer, quicIDOf(p.dst), false)
	}
	f.quic.peer = peer
	f.quic.sibling = t.flows[f.quic.at]
	t.flows[f.quic.at] = f
	return true
}

// remove forgets f, and what is known of its client if it has no other. It may be called
// again.
func (t *quicTable) remove(f *udpFlow) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.unlink(f)
}

// unlink is remove; t.mu is held.
func (t *quicTable) unlink(f *udpFlow) {
	q := f.quic
	switch first := t.flows[q.at]; {
	case first == nil:
		return
	case first == f && q.sibling == nil:
		delete(t.flows, q.at)
	case first == f:
		t.flows[q.at] = q.sibling
	default:
		for first.quic.sibling != f {
			if first = first.quic.sibling; first == nil {
				return
			}
		}
		first.quic.sibling = q.sibling
	}
	if q.peer.flows--; q.peer.flows == 0 {
		for _, id := range slices.Concat(q.peer.named.ids, q.peer.used.ids) {
			if t.ids[id] == q.peer {
				delete(t.ids, id)
			}
		}
	}
}

// routed notes the pool of f. If its address has a flow to the same pool already, that one is
// returned, and f is forgotten: its ids are now those of the other.
func (t *quicTable) routed(f *udpFlow, pool *balance.Pool) (other *udpFlow) {
	t.mu.Lock()
	defer t.mu.Unlock()
	q := f.quic
	for g := t.flows[q.at]; g != nil; g = g.quic.sibling {
		if g == f || g.quic.peer.pool != pool {
			continue
		}
		t.unlink(f)
		for _, id := range q.peer.used.ids {
			t.learn(g.quic.peer, id, false)
		}
		return g
	}
	q.peer.pool = pool
	return nil
}

// goesTo is where the flows of a client go.
func (t *quicTable) goesTo(peer *quicPeer) (*balance.Pool, string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return peer.pool, peer.server
}

// assigned notes the server of f, for flows of the client to come.
func (t *quicTable) assigned(f *udpFlow, server string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if peer := f.quic.peer; peer.flows == 1 || peer.server == "" {
		peer.server = server
	}
}

// all returns the flows of a socket.
func (t *quicTable) all(l *udpListener) (all []*udpFlow) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for at, f := range t.flows {
		for ; at.l == l && f != nil; f = f.quic.sibling {
			all = append(all, f)
		}
	}
	return all
}
