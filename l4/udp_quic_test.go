// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
)

// quicLong is a packet with a long header.
func quicLong(kind quicKind, dst, src, more string) string {
	b := binary.BigEndian.AppendUint32([]byte{0xc0 | byte(kind-quicInitial)<<4}, quicV1)
	b = append(append(b, byte(len(dst))), dst...)
	b = append(append(b, byte(len(src))), src...)
	return string(b) + more
}

func quicShortTo(dst, more string) string { return "\x40" + dst + more }

// quicServer is a server that names itself by ids, one for each connection, and replies with
// what it got.
func quicServer(name string, ids ...string) func(b []byte) ([]string, error) {
	return func(b []byte) ([]string, error) {
		p, ok := parseQUIC(b)
		switch {
		case !ok:
			return nil, nil
		case p.kind == quicShort:
			return []string{quicShortTo("cli", name+" "+string(b[1:]))}, nil
		case p.kind == quicInitial && len(ids) > 0:
			id := ids[0]
			ids = ids[1:]
			return []string{quicLong(quicHandshake, "cli", id, name)}, nil
		}
		return []string{quicShortTo("cli", name)}, nil
	}
}

// startQUIC is a UDPProxy of QUIC before servers, which are named by their addresses.
func startQUIC(t *testing.T, p *UDPProxy, servers map[string]func(b []byte) ([]string, error)) *udpRun {
	if p.Pool == nil && len(p.QUIC.Routes) == 0 {
		p.Pool = &balance.Pool{Policy: balance.RoundRobin{}}
		var all []balance.Endpoint
		for i := range len(servers) {
			all = append(all, balance.Endpoint{Addr: fmt.Sprintf("10.0.0.%d:443", i+1)})
		}
		require.NoError(t, p.Pool.Set(all...))
	}
	r := newUDP(t, p)
	r.servers = servers
	r.serve()
	return r
}

func (r *udpRun) wantReply(t *testing.T, client, end string) {
	t.Helper()
	synctest.Wait()
	select {
	case p := <-r.out:
		require.Equal(t, client, p.addr.String())
		require.True(t, strings.HasSuffix(p.data, end), "%q, not %q", p.data, end)
	default:
		t.Fatalf("no reply to %s: %s", client, end)
	}
}

func (r *udpRun) wantNone(t *testing.T) {
	t.Helper()
	synctest.Wait()
	require.Empty(t, r.out)
}

const (
	homeAddr   = "192.0.2.1:1000"
	mobileAddr = "198.51.100.7:2000"
	thirdAddr  = "203.0.113.5:3000"
)

// connectQUIC connects from client, which is answered by the server.
func (r *udpRun) connectQUIC(t *testing.T, client, id, server string) {
	t.Helper()
	r.send(client, string(quicInitialOf(t, id, 0, nil)))
	r.wantReply(t, client, server)
}

// TestQUICRebinding: a client that gets another address reaches the server that it had, by
// each id that was seen.
func TestQUICRebinding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startQUIC(t, &UDPProxy{QUIC: &QUIC{}}, map[string]func(b []byte) ([]string, error){
			"10.0.0.1:443": quicServer("one", "srv-1-a"),
			"10.0.0.2:443": quicServer("two", "srv-2-a-longer"),
			"10.0.0.3:443": quicServer("three", ""),
		})
		r.connectQUIC(t, homeAddr, "client-1", "one")
		r.connectQUIC(t, "192.0.2.2:1000", "client-2", "two")
		r.connectQUIC(t, "192.0.2.3:1000", "client-3", "three")
		require.Len(t, r.dials, 3)

		r.send(homeAddr, quicShortTo("srv-1-a", "data"))
		r.wantReply(t, homeAddr, "one srv-1-adata")
		r.send(mobileAddr, quicShortTo("srv-1-a", "data"))
		r.wantReply(t, mobileAddr, "one srv-1-adata")
		require.Equal(t, "10.0.0.1:443", r.dials[3], "by a socket of its own")
		r.send(homeAddr, quicShortTo("srv-1-a", "late"))
		r.wantReply(t, homeAddr, "one srv-1-alate")
		r.send("198.51.100.8:1", quicShortTo("srv-2-a-longer", ""))
		r.wantReply(t, "198.51.100.8:1", "two srv-2-a-longer")
		r.send("198.51.100.9:1", quicLong(quicHandshake, "srv-2-a-longer", "cli", ""))
		r.wantReply(t, "198.51.100.9:1", "two")
		r.send("198.51.100.10:1", string(quicInitialOf(t, "client-2", 1, nil)))
		r.wantReply(t, "198.51.100.10:1", "two")
		require.Equal(t, 7, r.p.Flows())

		// An id that the client got encrypted is learned where it uses it first.
		r.send(mobileAddr, quicShortTo("fresh-1", ""))
		r.wantReply(t, mobileAddr, "one fresh-1")
		r.send(thirdAddr, quicShortTo("fresh-1", "x"))
		r.wantReply(t, thirdAddr, "one fresh-1x")

		// One without an id is known by its address.
		r.send("192.0.2.3:1000", quicShortTo("", "anything"))
		r.wantReply(t, "192.0.2.3:1000", "three anything")
		r.stop(t)
		require.Empty(t, r.p.state.quic.ids)
		require.Empty(t, r.p.state.quic.flows)
	})
}

// TestQUICLastFlow: ids are known for as long as the client has a flow, whichever.
func TestQUICLastFlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startQUIC(t, &UDPProxy{QUIC: &QUIC{}, IdleTimeout: 20 * time.Second}, map[string]func(b []byte) ([]string, error){
			"10.0.0.1:443": quicServer("one", "srv-1-a"),
			"10.0.0.2:443": quicServer("two", "srv-2-a"),
		})
		r.connectQUIC(t, homeAddr, "client-1", "one")
		for range 2 {
			r.send(mobileAddr, quicShortTo("srv-1-a", ""))
			r.wantReply(t, mobileAddr, "one srv-1-a")
		}
		time.Sleep(15 * time.Second)
		synctest.Wait()
		require.Equal(t, 1, r.p.Flows(), "the client has not shown that it got the reply at home")
		r.send(thirdAddr, quicShortTo("srv-1-a", ""))
		r.wantReply(t, thirdAddr, "one srv-1-a")
		time.Sleep(21 * time.Second)
		synctest.Wait()
		require.Zero(t, r.p.Flows())
		require.Empty(t, r.p.state.quic.ids)
		r.send(mobileAddr, quicShortTo("srv-1-a", ""))
		r.wantReply(t, mobileAddr, "two srv-1-a") // the policy's choice
		r.stop(t)
	})
}

// TestQUICServerOf: ids that name their server are followed, though none has been seen.
func TestQUICServerOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &UDPProxy{QUIC: &QUIC{ServerOf: func(id []byte) string {
			switch string(id[1:4]) {
			case "one":
				return "10.0.0.1:443"
			case "two":
				return "10.0.0.2:443"
			case "bad":
				panic("oops")
			case "who":
				return "nobody"
			}
			return ""
		}}}
		r := startQUIC(t, p, map[string]func(b []byte) ([]string, error){
			"10.0.0.1:443": quicServer("one", "_one-aa"),
			"10.0.0.2:443": quicServer("two", "_two-aa"),
		})
		r.connectQUIC(t, homeAddr, "client-1", "one")
		for i, id := range []string{"_two-zz", "_two-yy", "_two-xx", "_one-bb", "_one-cc"} {
			client := fmt.Sprintf("198.51.100.%d:1", i)
			for range 3 {
				r.send(client, quicShortTo(id, ""))
				r.wantReply(t, client, id[1:4]+" "+id)
			}
		}
		// At one address, two servers.
		for _, id := range []string{"_two-zz", "_one-bb", "_two-zz", "_one-aa"} {
			r.send(homeAddr, quicShortTo(id, ""))
			r.wantReply(t, homeAddr, id[1:4]+" "+id)
		}
		r.send("198.51.100.99:1", quicShortTo("_bad", ""))
		r.wantReply(t, "198.51.100.99:1", "_bad")
		r.send("198.51.100.98:1", quicShortTo("_who", ""))
		r.wantReply(t, "198.51.100.98:1", "_who")
		r.stop(t)
	})
}

// TestQUICSameID: two servers may choose the same id. Each client still reaches its own.
func TestQUICSameID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startQUIC(t, &UDPProxy{QUIC: &QUIC{}}, map[string]func(b []byte) ([]string, error){
			"10.0.0.1:443": quicServer("one", "same"),
			"10.0.0.2:443": quicServer("two", "same"),
		})
		r.connectQUIC(t, homeAddr, "client-1", "one")
		r.connectQUIC(t, mobileAddr, "client-2", "two")
		r.send(mobileAddr, quicShortTo("same", ""))
		r.wantReply(t, mobileAddr, "two same")
		r.send(homeAddr, quicShortTo("same", ""))
		r.wantReply(t, homeAddr, "one same")
		r.stop(t)
	})
}

// TestQUICShutdown: a client whose address changes is still served, and a new one is not.
func TestQUICShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startQUIC(t, &UDPProxy{QUIC: &QUIC{}}, map[string]func(b []byte) ([]string, error){
			"10.0.0.1:443": quicServer("one", "srv-1-a")})
		r.connectQUIC(t, homeAddr, "client-1", "one")
		ended := make(chan error, 1)
		go func() { ended <- r.p.Shutdown(t.Context()) }()
		synctest.Wait()
		r.send(mobileAddr, quicShortTo("srv-1-a", ""))
		r.wantReply(t, mobileAddr, "one srv-1-a")
		r.send(thirdAddr, string(quicInitialOf(t, "client-2", 0, nil)))
		r.wantNone(t)
		require.NoError(t, <-ended)
		require.ErrorIs(t, <-r.served, ErrServerClosed)
	})
}

// TestQUICSockets: a client whose address changes may get to another socket of the port.
func TestQUICSockets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startQUIC(t, &UDPProxy{QUIC: &QUIC{}}, map[string]func(b []byte) ([]string, error){
			"10.0.0.1:443": quicServer("one", "srv-1-a"),
			"10.0.0.2:443": quicServer("two", "srv-2-a"),
		})
		second := newPacketNet()
		served := make(chan error, 1)
		go func() { served <- r.p.Serve(second) }()
		r.connectQUIC(t, homeAddr, "client-1", "one")
		second.in <- packet{netip.MustParseAddrPort(mobileAddr), quicShortTo("srv-1-a", "")}
		synctest.Wait()
		require.Equal(t, mobileAddr, (<-second.out).addr.String())
		require.Equal(t, []string{"10.0.0.1:443", "10.0.0.1:443"}, r.dials)
		r.stop(t)
		require.ErrorIs(t, <-served, ErrServerClosed)
	})
}

// discardConn is a server that takes everything.
type discardConn struct{ net.Conn }

func (discardConn) Write(b []byte) (int, error)     { return len(b), nil }
func (discardConn) SetReadDeadline(time.Time) error { return nil }

// BenchmarkUDPDeliver is what it takes to find the flow of a datagram and send it, without
// the system calls: by address, by an id that was seen, and by address since the id was not.
func BenchmarkUDPDeliver(b *testing.B) {
	client := netip.MustParseAddrPort(homeAddr)
	b.Run("address", func(b *testing.B) {
		l := &udpListener{p: &UDPProxy{}, pc: newPacketNet(), flows: make(map[netip.AddrPort]*udpFlow)}
		f := newUDPFlow(l, client, client, 0)
		f.server, f.settled = discardConn{}, true
		l.flows[client] = f
		datagram := make([]byte, 1200)
		b.ReportAllocs()
		for b.Loop() {
			l.deliver(client, datagram)
		}
	})
	for _, id := range []string{"srv-1-aa", "unknown!"} {
		b.Run("QUIC "+id, func(b *testing.B) {
			l := &udpListener{p: &UDPProxy{QUIC: &QUIC{}}, st: &udpState{quic: newQUICTable()}, pc: newPacketNet()}
			f := newUDPFlow(l, client, client, 0)
			f.server, f.settled = discardConn{}, true
			f.quic = &quicFlow{at: quicAddr{l, client}}
			first, _ := parseQUIC(quicInitialOf(b, "client-1", 0, nil))
			l.st.quic.add(f, &quicPeer{pool: &balance.Pool{}}, &first)
			l.st.quic.named(f, quicIDOf([]byte("srv-1-aa")))
			if id == "unknown!" { // no length is known, so it is not learned
				f.quic.peer.length = 0
			}
			datagram := append([]byte(quicShortTo(id, "")), make([]byte, 1191)...)
			b.ReportAllocs()
			for b.Loop() {
				l.deliverQUIC(client, datagram)
			}
		})
	}
}
