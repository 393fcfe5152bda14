// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
)

// TestQUICClaimedID: a client that has used an id before a server names it to another does not
// get the other's datagrams.
func TestQUICClaimedID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startQUIC(t, &UDPProxy{QUIC: &QUIC{}}, map[string]func(b []byte) ([]string, error){
			"10.0.0.1:443": quicServer("one", "srv-1-a"),
			"10.0.0.2:443": quicServer("two", "srv-2-a"),
		})
		r.connectQUIC(t, thirdAddr, "hostile-", "one")
		r.send(thirdAddr, quicShortTo("srv-1-a", "")) // it shows that it gets replies
		r.wantReply(t, thirdAddr, "srv-1-a")
		r.send(thirdAddr, quicShortTo("srv-2-a", ""))
		r.wantReply(t, thirdAddr, "srv-2-a")
		r.send(thirdAddr, quicLong(quicHandshake, "srv-2-a", "cli", ""))
		r.wantReply(t, thirdAddr, "one")
		r.connectQUIC(t, homeAddr, "client-2", "two")
		r.send(mobileAddr, quicShortTo("srv-2-a", ""))
		r.wantReply(t, mobileAddr, "two srv-2-a")
		r.send(thirdAddr, quicShortTo("srv-2-a", ""))
		r.wantReply(t, thirdAddr, "one srv-2-a")
		r.stop(t)
		require.Empty(t, r.p.state.quic.ids)
	})
}

// TestQUICManyIDs: an observer of a client's id cannot make the proxy forget it by
// the use of many others, and however many are used, no more are kept.
func TestQUICManyIDs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startQUIC(t, &UDPProxy{QUIC: &QUIC{}}, map[string]func(b []byte) ([]string, error){
			"10.0.0.1:443": quicServer("one", "srv-1-a"),
			"10.0.0.2:443": quicServer("two", "srv-2-a"),
		})
		r.connectQUIC(t, homeAddr, "client-1", "one")
		for i := range 50 {
			id := fmt.Sprintf("srv-1-%c", 'b'+i)
			if i == 0 {
				id = "srv-1-a"
			}
			r.send(thirdAddr, quicShortTo(id, ""))
			r.wantReply(t, thirdAddr, id)
		}
		require.LessOrEqual(t, len(r.p.state.quic.ids), 2*quicPeerIDs)
		for _, client := range []string{mobileAddr, "198.51.100.8:1"} { // not by turns
			r.send(client, quicShortTo("srv-1-a", ""))
			r.wantReply(t, client, "one srv-1-a")
		}
		r.stop(t)
		require.Empty(t, r.p.state.quic.ids)
	})
}

// TestQUICManyNames: of a server that names one id after the other, the latest are known.
func TestQUICManyNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		r := startQUIC(t, &UDPProxy{QUIC: &QUIC{}}, map[string]func(b []byte) ([]string, error){
			"10.0.0.1:443": func(b []byte) ([]string, error) {
				if b[0]&0x80 == 0 {
					return []string{quicShortTo("cli", "one")}, nil
				}
				n++
				return []string{quicLong(quicHandshake, "cli", fmt.Sprintf("srv-%03d", n), "one")}, nil
			},
			"10.0.0.2:443": quicServer("two"),
		})
		r.connectQUIC(t, homeAddr, "client-1", "one")
		for range 100 {
			r.send(homeAddr, quicLong(quicHandshake, fmt.Sprintf("srv-%03d", n), "cli", ""))
			r.wantReply(t, homeAddr, "one")
		}
		require.Len(t, r.p.state.quic.ids, quicPeerIDs+1, "and the client's first")
		last := n
		for i := range quicPeerIDs {
			client := fmt.Sprintf("198.51.100.%d:1", i)
			r.send(client, quicShortTo(fmt.Sprintf("srv-%03d", last-i), ""))
			r.wantReply(t, client, "one")
		}
		r.stop(t)
		require.Empty(t, r.p.state.quic.ids)
	})
}

// TestQUICHeardTooEarly: what comes before a reply shows nothing.
func TestQUICHeardTooEarly(t *testing.T) {
	for _, first := range []string{"srv-1-a", ""} {
		synctest.Test(t, func(t *testing.T) {
			answer := make(chan struct{})
			r := startQUIC(t, &UDPProxy{QUIC: &QUIC{}}, map[string]func(b []byte) ([]string, error){
				"10.0.0.1:443": func(b []byte) ([]string, error) {
					<-answer
					return quicServer("one", first)(b)
				}})
			r.send(homeAddr, string(quicInitialOf(t, "client-1", 0, nil)))
			r.send(homeAddr, quicShortTo("made-up", ""))
			answer <- struct{}{}
			r.wantReply(t, homeAddr, "one")
			close(answer)
			r.wantReply(t, homeAddr, "made-up")
			start := time.Now()
			if first == "" { // then any id may be one of its own
				r.send(homeAddr, quicShortTo("anything", ""))
				r.wantReply(t, homeAddr, "anything")
				<-r.records
				require.Equal(t, time.Minute, time.Since(start))
			} else {
				<-r.records
				require.Equal(t, quicUnheardIdle, time.Since(start))
			}
			r.stop(t)
		})
	}
}

// TestQUICFanOut: a datagram that may be of any connection of its address makes no more than
// three servers answer an address that has not shown that it gets replies.
func TestQUICFanOut(t *testing.T) {
	names := []string{"a.test", "b.test", "c.test", "d.test", "e.test"}
	synctest.Test(t, func(t *testing.T) {
		p, servers := routed(t, names...)
		r := startQUIC(t, p, servers)
		for i, name := range names {
			hello := quicHelloOf(t, name, "h3")
			r.send(homeAddr, string(quicInitialOf(t, fmt.Sprintf("client-%d", i), 0, quicCryptoFrame(hello, 0, len(hello)))))
			r.wantReply(t, homeAddr, name)
		}
		answers := func() int {
			r.send(homeAddr, quicShortTo("unknown", ""))
			synctest.Wait()
			n := len(r.out)
			for range n {
				<-r.out
			}
			return n
		}
		require.Equal(t, quicUnproven, answers())
		for i := range names {
			r.send(homeAddr, quicShortTo(fmt.Sprintf("srv-%d-a", i), ""))
			r.wantReply(t, homeAddr, fmt.Sprintf("srv-%d-a", i))
		}
		require.Equal(t, len(names), answers(), "it has shown it to all")
		r.stop(t)
	})
}

// TestQUICSiblings: as many connections may begin at once at one address as there may be
// flows of it, and no more.
func TestQUICSiblings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, servers := routed(t, "a.test", "b.test")
		r := startQUIC(t, p, servers)
		begin := func(i, from, to int) {
			hello := quicHelloOf(t, []string{"a.test", "b.test"}[i%2], "h3")
			if to < 0 {
				to = len(hello)
			}
			r.send(homeAddr, string(quicInitialOf(t, fmt.Sprintf("client%02d", i), byte(from), quicCryptoFrame(hello, from, to))))
		}
		for i := range quicSiblings + 3 {
			begin(i, 0, 100)
		}
		require.Equal(t, quicSiblings, r.p.Flows())
		require.EqualValues(t, 3, r.p.Dropped())
		time.Sleep(defaultPeekTimeout)
		synctest.Wait()
		require.Zero(t, r.p.Flows())
		require.Empty(t, r.dials)
		for i := range quicSiblings {
			begin(i, 0, -1)
		}
		require.Equal(t, 2, r.p.Flows(), "one to each pool")
		require.Len(t, r.dials, 2)
		r.stop(t)
		require.Empty(t, r.p.state.quic.ids)
		require.Empty(t, r.p.state.quic.flows)
	})
}

// TestQUICLastFlowEndsMeanwhile: ids are known again if a client's last flow ends while its
// next one begins.
func TestQUICLastFlowEndsMeanwhile(t *testing.T) {
	table, peer := newQUICTable(), &quicPeer{pool: &balance.Pool{}, server: "one"}
	at := func(addr string) *udpFlow {
		return &udpFlow{quic: &quicFlow{at: quicAddr{addr: netip.MustParseAddrPort(addr)}}}
	}
	first := quicPacket{kind: quicInitial, dst: []byte("client-1")}
	next := quicPacket{kind: quicShort, dst: []byte("srv-1-a")}
	home, mobile := at(homeAddr), at(mobileAddr)
	require.True(t, table.add(home, peer, &first))
	table.named(home, quicIDOf(next.dst))
	m := table.find(mobile.quic.at, &next)
	require.Nil(t, m.flow)
	require.Same(t, peer, m.peer)
	table.remove(home)
	require.Empty(t, table.ids)
	require.True(t, table.add(mobile, m.peer, &next))
	require.Len(t, table.ids, 2)
	require.Same(t, mobile, table.find(mobile.quic.at, &next).flow)
	table.remove(mobile)
	table.remove(mobile)
	require.Empty(t, table.ids)
}

// TestQUICHeardWithoutReply: an id of the server shows nothing about an address to which the
// server does not reply.
func TestQUICHeardWithoutReply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startQUIC(t, &UDPProxy{QUIC: &QUIC{}}, map[string]func(b []byte) ([]string, error){
			"10.0.0.1:443": func(b []byte) ([]string, error) {
				if b[0]&0x80 == 0 {
					return nil, nil
				}
				return quicServer("one", "srv-1-a")(b)
			}})
		r.connectQUIC(t, homeAddr, "client-1", "one")
		for range 2 {
			r.send(mobileAddr, quicShortTo("srv-1-a", ""))
			r.send(homeAddr, quicShortTo("srv-1-a", ""))
		}
		start := time.Now()
		for _, want := range []time.Duration{quicUnheardIdle, time.Minute} {
			<-r.records
			require.Equal(t, want, time.Since(start))
		}
		r.stop(t)
	})
}

// TestQUICLearnsShort: an id that the client has used from the address of its one flow leads
// to its server from others, and not by the turns of the policy.
func TestQUICLearnsShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startQUIC(t, &UDPProxy{QUIC: &QUIC{}}, map[string]func(b []byte) ([]string, error){
			"10.0.0.1:443": quicServer("one", "srv-1-a"),
			"10.0.0.2:443": quicServer("two", "srv-2-a"),
		})
		r.connectQUIC(t, homeAddr, "client-1", "one")
		r.send(homeAddr, quicShortTo("fresh-1", ""))
		r.wantReply(t, homeAddr, "one fresh-1")
		for _, client := range []string{mobileAddr, thirdAddr} {
			r.send(client, quicShortTo("fresh-1", "more"))
			r.wantReply(t, client, "one fresh-1more")
		}
		r.stop(t)
	})
}
