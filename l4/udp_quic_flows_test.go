// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"net/netip"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
)

// TestQUICSameServerName: servers of two pools may have one name. An id leads to that of the
// pool of its connection, also from an address that has a flow to the other.
func TestQUICSameServerName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, servers := routed(t, "a.test", "b.test")
		for i, addr := range []string{"10.0.0.1:443", "10.0.0.2:443"} {
			require.NoError(t, p.QUIC.Routes[i].Pool.Set(balance.Endpoint{Name: "same", Addr: addr}))
		}
		r := startQUIC(t, p, servers)
		for client, name := range map[string]string{homeAddr: "a.test", mobileAddr: "b.test"} {
			hello := quicHelloOf(t, name, "h3")
			r.send(client, string(quicInitialOf(t, "client-"+name[:1], 0, quicCryptoFrame(hello, 0, len(hello)))))
			r.wantReply(t, client, name)
		}
		r.send(homeAddr, quicShortTo("srv-1-a", "")) // of b.test
		r.wantReply(t, homeAddr, "b.test srv-1-a")
		r.send(homeAddr, quicShortTo("srv-0-a", ""))
		r.wantReply(t, homeAddr, "a.test srv-0-a")
		r.stop(t)
	})
}

// TestQUICHandOver: what the other flow does not take, as it has just ended, was dropped.
func TestQUICHandOver(t *testing.T) {
	l := &udpListener{p: &UDPProxy{QUIC: &QUIC{}}, st: &udpState{quic: newQUICTable()}, pc: newPacketNet()}
	client := netip.MustParseAddrPort(homeAddr)
	from, to := newUDPFlow(l, client, client, 0), newUDPFlow(l, client, client, 0)
	for range 2 {
		require.True(t, from.send([]byte("datagram")))
	}
	require.Zero(t, l.p.Dropped())
	to.over = true
	from.handOver(to)
	require.EqualValues(t, 2, l.p.Dropped())
	require.Zero(t, l.p.kept.Load())
}

// TestQUICStaysFull: a ClientHello of which a datagram was not kept is not read from others
// that were kept after it.
func TestQUICStaysFull(t *testing.T) {
	l := &udpListener{p: &UDPProxy{QUIC: &QUIC{}}, st: &udpState{quic: newQUICTable()}, pc: newPacketNet()}
	client := netip.MustParseAddrPort(homeAddr)
	f := newUDPFlow(l, client, client, 0)
	f.quic = &quicFlow{more: make(chan struct{}, 1)}
	hello := quicHelloOf(t, "a.test", "h3")
	first := quicInitialOf(t, "client-1", 0, quicCryptoFrame(hello, 0, 100))
	for l.p.Dropped() == 0 {
		require.True(t, f.send(first))
	}
	require.True(t, f.send([]byte{0x40}))
	require.EqualValues(t, 1, l.p.Dropped(), "there is room for the small one")
	require.ErrorIs(t, f.peek(new(Peeked)), errQUICLong)
}
