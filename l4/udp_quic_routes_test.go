// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
)

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
