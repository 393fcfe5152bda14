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

// routed is a UDPProxy with a pool for each name, of one server each.
func routed(t *testing.T, names ...string) (*UDPProxy, map[string]func(b []byte) ([]string, error)) {
	p := &UDPProxy{QUIC: &QUIC{}}
	servers := make(map[string]func(b []byte) ([]string, error))
	for i, name := range names {
		addr := fmt.Sprintf("10.0.0.%d:443", i+1)
		pool := &balance.Pool{}
		require.NoError(t, pool.Set(balance.Endpoint{Addr: addr}))
		servers[addr] = quicServer(name, fmt.Sprintf("srv-%d-a", i), fmt.Sprintf("srv-%d-b", i), fmt.Sprintf("srv-%d-c", i))
		if name == "rest" {
			p.Pool = pool
		} else {
			p.QUIC.Routes = append(p.QUIC.Routes, QUICRoute{Match: SNI(name), Pool: pool})
		}
	}
	return p, servers
}

// TestQUICRoutes: a ClientHello in pieces chooses the pool, and nothing is dialed before.
func TestQUICRoutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, servers := routed(t, "a.test", "b.test", "rest")
		p.QUIC.Routes = append(p.QUIC.Routes, QUICRoute{Match: All(ALPN("h3"), SNI("no.test"))})
		r := startQUIC(t, p, servers)
		connect := func(client, id, name string) {
			hello := quicHelloOf(t, name, "h3")
			half := len(hello) / 2
			dials := len(r.dials)
			r.send(client, string(quicInitialOf(t, id, 1, quicCryptoFrame(hello, half, len(hello)))))
			synctest.Wait()
			require.Len(t, r.dials, dials)
			r.send(client, string(quicInitialOf(t, id, 0, quicCryptoFrame(hello, 0, half))))
		}
		connect(homeAddr, "client-1", "a.test")
		r.wantReply(t, homeAddr, "a.test")
		r.wantReply(t, homeAddr, "a.test") // to the second datagram: both were sent
		connect(mobileAddr, "client-2", "B.test")
		r.wantReply(t, mobileAddr, "b.test")
		r.wantReply(t, mobileAddr, "b.test")
		connect(thirdAddr, "client-3", "c.test")
		r.wantReply(t, thirdAddr, "rest")
		r.wantReply(t, thirdAddr, "rest")
		require.Equal(t, 3, r.p.Flows())

		connect("203.0.113.9:1", "client-9", "no.test")
		r.wantNone(t)
		require.Contains(t, <-r.records, " 0 PR ")
		require.Equal(t, 3, r.p.Flows())

		// Two connections from one address, to different pools.
		connect(homeAddr, "client-4", "b.test")
		r.wantReply(t, homeAddr, "b.test")
		r.wantReply(t, homeAddr, "b.test")
		require.Equal(t, 4, r.p.Flows())
		r.send(homeAddr, quicShortTo("srv-0-a", ""))
		r.wantReply(t, homeAddr, "a.test srv-0-a")
		r.send(homeAddr, quicShortTo("srv-1-c", ""))
		r.wantReply(t, homeAddr, "b.test srv-1-c")
		// Whose is this id? Only its server can tell.
		r.send(homeAddr, quicShortTo("unknown", ""))
		synctest.Wait()
		got := []string{(<-r.out).data, (<-r.out).data}
		require.ElementsMatch(t, []string{quicShortTo("cli", "a.test unknown"), quicShortTo("cli", "b.test unknown")}, got)

		// And to the same pool: the flow is there.
		connect(homeAddr, "client-5", "a.test")
		r.wantReply(t, homeAddr, "a.test")
		r.wantReply(t, homeAddr, "a.test")
		require.Equal(t, 4, r.p.Flows())
		r.send("203.0.113.77:1", quicLong(quicHandshake, "client-5", "cli", ""))
		r.wantReply(t, "203.0.113.77:1", "a.test")
		r.stop(t)
		require.Empty(t, r.p.state.quic.ids)
		require.Zero(t, r.p.kept.Load())
	})
}

// TestQUICRetry: the id of a Retry is followed too, and its Initial packet is not read anew.
func TestQUICRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, servers := routed(t, "a.test")
		servers["10.0.0.1:443"] = func(b []byte) ([]string, error) {
			q, _ := parseQUIC(b)
			if string(q.dst) == "client-1" {
				return []string{quicLong(quicRetry, "cli", "retry-id", "token and tag")}, nil
			}
			return []string{quicShortTo("cli", "got "+string(q.dst))}, nil
		}
		r := startQUIC(t, p, servers)
		hello := quicHelloOf(t, "a.test", "h3")
		r.send(homeAddr, string(quicInitialOf(t, "client-1", 0, quicCryptoFrame(hello, 0, len(hello)))))
		r.wantReply(t, homeAddr, "token and tag")
		r.send(homeAddr, string(quicInitialOf(t, "retry-id", 1, nil)))
		r.wantReply(t, homeAddr, "got retry-id")
		r.send(mobileAddr, string(quicInitialOf(t, "retry-id", 2, nil)))
		r.wantReply(t, mobileAddr, "got retry-id")
		require.Len(t, r.dials, 2)
		r.stop(t)
	})
}

// TestQUICEncryptedIDInTheHandshake: the client's last Initial packet may go to an id that it
// has got encrypted. It begins no connection, and goes where the client's others go.
func TestQUICEncryptedIDInTheHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, servers := routed(t, "a.test", "b.test", "rest")
		r := startQUIC(t, p, servers)
		connect := func(id, name string) {
			hello := quicHelloOf(t, name, "h3")
			r.send(homeAddr, string(quicInitialOf(t, id, 0, quicCryptoFrame(hello, 0, len(hello)))))
			r.wantReply(t, homeAddr, name)
		}
		last := func(id string) {
			b := quicInitialOf(t, id, 1, nil)
			b[len(b)-1]++ // encrypted by keys of the first id
			r.send(homeAddr, string(b))
		}
		connect("client-1", "a.test")
		last("fresh--1")
		r.wantReply(t, homeAddr, "a.test")
		r.send(homeAddr, quicShortTo("fresh--1", "x"))
		r.wantReply(t, homeAddr, "a.test fresh--1x")
		r.send(mobileAddr, quicLong(quicHandshake, "fresh--1", "cli", ""))
		r.wantReply(t, mobileAddr, "a.test")
		require.Equal(t, 2, r.p.Flows())

		connect("client-2", "b.test")
		last("fresh--2") // of one of the two connections: the other server drops it
		require.ElementsMatch(t, []string{"a.test", "b.test"}, []string{nameIn((<-r.out).data), nameIn((<-r.out).data)})
		require.Equal(t, 3, r.p.Flows())
		r.wantNone(t)
		require.Zero(t, r.p.kept.Load())
		require.Empty(t, r.records)
		r.stop(t)
		require.Empty(t, r.p.state.quic.ids)
	})
}

// nameIn is the name at the end of a reply of [routed].
func nameIn(reply string) string { return reply[len(reply)-len("a.test"):] }

// TestQUICBounds: what does not begin a connection holds nothing, and what begins one and
// goes on without a word holds little, and not for long.
func TestQUICBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, servers := routed(t, "a.test", "rest")
		r := startQUIC(t, p, servers)
		hello := quicHelloOf(t, "a.test", "h3")
		whole := string(quicInitialOf(t, "client-1", 0, quicCryptoFrame(hello, 0, len(hello))))
		for name, b := range map[string]string{
			"empty": "", "small": string(quicInitialPacket(t, quicV1, "client-1", 0, quicCryptoFrame(hello, 0, 100))),
			"long id":     "\xc0\x00\x00\x00\x01\x15" + strings.Repeat("x", 1400),
			"negotiation": "\xc0\x00\x00\x00\x00\x08client-1" + strings.Repeat("\x00", 1400),
			"retry":       quicLong(quicRetry, "client-1", "cli", "token"),
			"cut":         "\xc0\x00\x00",
		} {
			r.send(homeAddr, b)
			synctest.Wait()
			require.Zero(t, r.p.Flows(), name)
		}
		require.EqualValues(t, 6, r.p.Dropped())
		r.send(homeAddr, whole[:len(whole)-1]+string([]byte{whole[len(whole)-1] ^ 1}))
		synctest.Wait()
		require.Zero(t, r.p.Flows(), "it cannot be read")
		require.Contains(t, <-r.records, " 0 PR ")
		require.Empty(t, r.dials)

		// Half a ClientHello, and no more.
		start := time.Now()
		r.send(homeAddr, string(quicInitialOf(t, "client-1", 0, quicCryptoFrame(hello, 0, 100))))
		synctest.Wait()
		require.Equal(t, 1, r.p.Flows())
		require.Zero(t, r.p.Pool.Server("10.0.0.2:443").InFlight())
		synctest.Wait()
		r.wantNone(t)
		require.Contains(t, <-r.records, " 0 PR ")
		require.Equal(t, defaultPeekTimeout, time.Since(start))
		require.Empty(t, r.dials, "not to the rest: what was lost may have named another")
		require.Zero(t, r.p.kept.Load())
		r.send(homeAddr, whole) // again, as a client does
		r.wantReply(t, homeAddr, "a.test")
		require.Contains(t, <-r.records, "10.0.0.1:443 1 -- ")
		require.Equal(t, defaultPeekTimeout+quicUnheardIdle, time.Since(start))

		// More of it than is kept.
		for number := range byte(20) {
			r.send(homeAddr, string(quicInitialOf(t, "client-1", number, quicCryptoFrame(hello, 0, 100))))
			if number == 0 {
				synctest.Wait()
			}
		}
		synctest.Wait()
		for r.p.Flows() > 0 { // the last ones may have begun another
			time.Sleep(time.Second)
			synctest.Wait()
		}
		require.Contains(t, <-r.records, " 0 PR ")
		require.Zero(t, r.p.kept.Load())
		for len(r.out) > 0 {
			<-r.out
		}
		for len(r.records) > 0 {
			<-r.records
		}

		require.Empty(t, r.p.state.quic.flows)
		r.stop(t)
	})
}

// TestQUICHeard: a flow ends early unless its client shows that replies reach it.
func TestQUICHeard(t *testing.T) {
	for name, at := range map[string]struct {
		send string // after the reply
		want time.Duration
	}{
		"silence":          {"", quicUnheardIdle},
		"made up":          {quicShortTo("made-up", ""), quicUnheardIdle},
		"its own id":       {quicLong(quicHandshake, "client-1", "cli", ""), quicUnheardIdle},
		"the server's id":  {quicShortTo("srv-1-a", ""), time.Minute},
		"in the handshake": {quicLong(quicHandshake, "srv-1-a", "cli", ""), time.Minute},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := startQUIC(t, &UDPProxy{QUIC: &QUIC{}}, map[string]func(b []byte) ([]string, error){
				"10.0.0.1:443": quicServer("one", "srv-1-a")})
			r.connectQUIC(t, homeAddr, "client-1", "one")
			if at.send != "" {
				r.send(homeAddr, at.send)
				r.wantReply(t, homeAddr, "")
			}
			start := time.Now()
			<-r.records
			require.Equal(t, at.want, time.Since(start), name)
			r.stop(t)
		})
	}
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
