// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
)

// TestQUICBeginsAtOneServer: of several flows of an address, one gets what begins a connection.
func TestQUICBeginsAtOneServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &UDPProxy{QUIC: &QUIC{ServerOf: func(id []byte) string {
			return map[byte]string{'1': "10.0.0.1:443", '2': "10.0.0.2:443"}[id[0]]
		}}}
		r := startQUIC(t, p, map[string]func(b []byte) ([]string, error){
			"10.0.0.1:443": quicServer("one", "1-srv"),
			"10.0.0.2:443": quicServer("two", "2-srv"),
		})
		r.connectQUIC(t, homeAddr, "client-1", "one")
		r.send(homeAddr, quicShortTo("2-srv", ""))
		r.wantReply(t, homeAddr, "two 2-srv")
		r.send(homeAddr, string(quicInitialOf(t, "client-2", 0, nil)))
		synctest.Wait()
		require.Len(t, r.out, 1)
		r.stop(t)
	})
}

// TestQUICEarlyDataFirst: early data that has overtaken its Initial packet waits for it,
// however small.
func TestQUICEarlyDataFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, servers := routed(t, "a.test", "rest")
		var got []quicKind
		servers["10.0.0.1:443"] = func(b []byte) ([]string, error) {
			p, _ := parseQUIC(b)
			got = append(got, p.kind)
			return nil, nil
		}
		r := startQUIC(t, p, servers)
		hello := quicHelloOf(t, "a.test", "h3")
		r.send(homeAddr, quicLong(quicZeroRTT, "client-1", "cli", "\x04data"))
		require.Empty(t, r.dials)
		r.send(homeAddr, string(quicInitialOf(t, "client-1", 0, quicCryptoFrame(hello, 0, len(hello)))))
		synctest.Wait()
		require.Equal(t, []quicKind{quicZeroRTT, quicInitial}, got)
		r.stop(t)
	})
}

// TestQUICCut: no beginning of a datagram holds anything, or is mistaken for a whole one.
func TestQUICCut(t *testing.T) {
	hello := quicHelloOf(t, "a.test", "h3")
	whole := quicInitialOf(t, "client-1", 0, quicCryptoFrame(hello, 0, len(hello)))
	synctest.Test(t, func(t *testing.T) {
		p, servers := routed(t, "a.test", "example.com")
		r := startQUIC(t, p, servers)
		r.send(homeAddr, string(quicVector(t, "rfc9001-a2"))) // of the least size there may be
		r.wantReply(t, homeAddr, "example.com")
		<-r.records // it is over
		r.dials = nil
		for n := range whole {
			r.send(homeAddr, string(whole[:n]))
			for len(r.records) > 0 {
				require.Contains(t, <-r.records, " 0 PR ")
			}
		}
		require.Zero(t, r.p.kept.Load())
		require.Zero(t, r.p.Flows())
		require.Empty(t, r.dials)
		r.send(homeAddr, string(whole))
		r.wantReply(t, homeAddr, "a.test")
		r.stop(t)
	})
}

// TestQUICLyingLengths: a length in a packet cannot reach beyond it.
func TestQUICLyingLengths(t *testing.T) {
	const most = "\xff\xff\xff\xff\xff\xff\xff\xff" // 2^62-1
	head := string(binary.BigEndian.AppendUint32([]byte{0xc0}, quicV1)) + "\x0812345678\x00"
	for _, b := range []string{
		head + most, head + "\x00" + most, head + most + most, head + "\x05abc", head + "\x00\x04abc",
		head + "\x80", head + "\x00\xc0", head,
	} {
		p, ok := parseQUIC([]byte(b))
		require.True(t, ok, "%x", b)
		_, _, _, ok = p.body()
		require.False(t, ok, "%x", b)
	}
	for _, frames := range []string{
		"\x06" + most + "\x01x", "\x06\x00" + most, "\x06" + most + most, "\x06\x00\x41", "\x06",
	} {
		_, err := readQUICHello(quicInitialPacket(t, quicV1, "12345678", 0, []byte(frames)))
		require.ErrorContains(t, err, "EOF", "%x", frames)
	}
	for n := range 21 { // ids of any length that these versions have
		id := strings.Repeat("i", n)
		p, ok := parseQUIC([]byte(quicLong(quicHandshake, id, id, "")))
		require.True(t, ok)
		require.Equal(t, id+id, fmt.Sprintf("%s%s", p.dst, p.src))
	}
	for _, ids := range [][2]int{{21, 0}, {0, 21}, {255, 255}} {
		_, ok := parseQUIC([]byte(quicLong(quicHandshake, strings.Repeat("i", ids[0]), strings.Repeat("i", ids[1]), "")))
		require.False(t, ok)
	}
}

// TestQUICRoutedServerOf: a server that an id names is found in the pools of routes, and an id
// of length 0 is not asked about.
func TestQUICRoutedServerOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, servers := routed(t, "a.test", "b.test")
		p.QUIC.ServerOf = func(id []byte) string {
			if len(id) == 0 {
				t.Error("no id")
			}
			return "10.0.0.2:443"
		}
		r := startQUIC(t, p, servers)
		r.send(homeAddr, quicShortTo("any", ""))
		r.wantReply(t, homeAddr, "b.test any")
		r.send(mobileAddr, quicShortTo("", ""))
		r.wantNone(t)
		r.stop(t)
	})
}

// TestQUICSecondServer: ids lead to the server that has answered, not to one that refused.
func TestQUICSecondServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startQUIC(t, &UDPProxy{QUIC: &QUIC{}}, map[string]func(b []byte) ([]string, error){
			"10.0.0.1:443": func([]byte) ([]string, error) { return nil, syscall.ECONNREFUSED },
			"10.0.0.2:443": quicServer("two", "srv-2-aaaaaaaaaaaaaa"), // as long as it may be
			"10.0.0.3:443": quicServer("three", "srv-3-a"),
		})
		r.connectQUIC(t, homeAddr, "client-1", "two")
		r.connectQUIC(t, thirdAddr, "client-3", "three")
		for i := range 3 {
			client := fmt.Sprintf("198.51.100.%d:1", i)
			r.send(client, quicShortTo("srv-2-aaaaaaaaaaaaaa", ""))
			r.wantReply(t, client, "two srv-2-aaaaaaaaaaaaaa")
		}
		// From an address that has a flow to another server of the pool.
		r.send(thirdAddr, quicShortTo("srv-2-aaaaaaaaaaaaaa", ""))
		r.wantReply(t, thirdAddr, "two srv-2-aaaaaaaaaaaaaa")
		r.send(thirdAddr, quicShortTo("srv-3-a", ""))
		r.wantReply(t, thirdAddr, "three srv-3-a")
		r.stop(t)
	})
}

// TestQUICHeardByAnother: an id that a client has got encrypted shows at its next address, too,
// that it gets replies.
func TestQUICHeardByAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startQUIC(t, &UDPProxy{QUIC: &QUIC{}}, map[string]func(b []byte) ([]string, error){
			"10.0.0.1:443": quicServer("one", "srv-1-a")})
		r.connectQUIC(t, homeAddr, "client-1", "one")
		for _, id := range []string{"srv-1-a", "fresh-1"} {
			r.send(homeAddr, quicShortTo(id, ""))
			r.wantReply(t, homeAddr, id)
		}
		for range 2 {
			r.send(mobileAddr, quicShortTo("fresh-1", ""))
			r.wantReply(t, mobileAddr, "fresh-1")
		}
		start := time.Now()
		for range 2 {
			<-r.records
			require.Equal(t, time.Minute, time.Since(start))
		}
		r.stop(t)
	})
}

// TestQUICSocketGone: the flows of one socket end with it, and no others.
func TestQUICSocketGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, servers := routed(t, "a.test")
		r := startQUIC(t, p, servers)
		second := newPacketNet()
		served := make(chan error, 1)
		go func() { served <- r.p.Serve(second) }()
		hello := quicHelloOf(t, "a.test", "h3")
		half := string(quicInitialOf(t, "client-2", 0, quicCryptoFrame(hello, 0, 100)))
		r.send(homeAddr, string(quicInitialOf(t, "client-1", 0, quicCryptoFrame(hello, 0, len(hello)))))
		r.wantReply(t, homeAddr, "a.test")
		second.in <- packet{netip.MustParseAddrPort(mobileAddr), half}
		synctest.Wait()
		require.Equal(t, 2, r.p.Flows())
		second.Close()
		require.ErrorIs(t, <-served, net.ErrClosed)
		synctest.Wait()
		require.Equal(t, 1, r.p.Flows(), "the one that was still waiting is over")
		r.send(homeAddr, quicShortTo("srv-0-a", ""))
		r.wantReply(t, homeAddr, "a.test srv-0-a")
		r.stop(t)
	})
}

// TestQUICRecord: the record of a connection has its fingerprint, if a matcher has asked for it; one whose ClientHello
// contradicts itself is not routed, not even to the rest.
func TestQUICRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, servers := routed(t, "a.test", "rest")
		p.QUIC.Routes[0].Match = All(SNI("a.test"), Not(JA4("q13d0310h3_000000000000_000000000000")))
		r := startQUIC(t, p, servers)
		var records []Record
		p.OnDone = func(rec *Record) { records = append(records, *rec) }
		hello := quicHelloOf(t, "a.test", "h3")
		r.send(homeAddr, string(quicInitialOf(t, "client-1", 0, quicCryptoFrame(hello, 0, len(hello)))))
		r.wantReply(t, homeAddr, "a.test")
		r.send(mobileAddr, string(quicInitialOf(t, "client-2", 0, append(quicCryptoFrame(hello, 0, 90), quicCryptoFrame(hello[1:], 0, 90)...))))
		r.wantNone(t)
		r.stop(t)
		require.Len(t, records, 2)
		require.ErrorIs(t, records[0].Err, errQUICDiffers)
		require.True(t, strings.HasPrefix(records[1].JA4, "q13d"), records[1].JA4)
	})
}

// TestQUICOtherVersion: routes that need no ClientHello decide about versions that are not
// known, and those that need one do not match.
func TestQUICOtherVersion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, servers := routed(t, "a.test", "b.test", "rest")
		p.QUIC.Routes[1].Match = RemoteIn(MustParsePrefixes("192.0.2.0/24"))
		r := startQUIC(t, p, servers)
		unknown := "\xc0\x1a\x2a\x3a\x4a\x08client-1\x00" + strings.Repeat("x", 1200)
		r.send(homeAddr, unknown)
		r.wantReply(t, homeAddr, "b.test")
		r.send(mobileAddr, unknown[:7]+"other--2"+unknown[14:])
		r.wantReply(t, mobileAddr, "rest")
		r.stop(t)
	})
}

// TestQUICUnheardWithoutTimeout: IdleTimeout does not hold for a forged address, even if it is
// none.
func TestQUICUnheardWithoutTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startQUIC(t, &UDPProxy{QUIC: &QUIC{}, IdleTimeout: -1}, map[string]func(b []byte) ([]string, error){
			"10.0.0.1:443": quicServer("one", "srv-1-a")})
		r.connectQUIC(t, homeAddr, "client-1", "one")
		start := time.Now()
		<-r.records
		require.Equal(t, quicUnheardIdle, time.Since(start))
		r.stop(t)
	})
}

// TestQUICHelloAgain: a reader that has met a contradiction reads the next ClientHello, and a
// packet of another version does not count.
func TestQUICHelloAgain(t *testing.T) {
	hello := quicHelloOf(t, "a.test", "h3")
	half := len(hello) / 2
	q := new(quicHello)
	_, err := q.read([][]byte{quicInitialOf(t, "12345678", 0, append(quicCryptoFrame(hello, 0, 90), quicCryptoFrame(hello[1:], 0, 90)...))})
	require.ErrorIs(t, err, errQUICDiffers)
	_, err = q.read([][]byte{quicInitialOf(t, "12345678", 0, quicCryptoFrame(hello, 0, len(hello)))})
	require.NoError(t, err)

	one, two := quicInitialPacket(t, quicV1, "12345678", 0, quicCryptoFrame(hello, 0, half)), quicInitialPacket(t, quicV2, "12345678", 1, quicCryptoFrame(hello, half, len(hello)))
	_, err = readQUICHello(one, two)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	q.frames(appendVarint(appendVarint([]byte{quicCrypto}, udpKeep-1), 1)) // cut
	q.frames(append(appendVarint(appendVarint([]byte{quicCrypto}, udpKeep-1), 1), 'x'))
	require.NotZero(t, q.have[len(q.have)-1]>>63, "the last byte that is kept")
}

// TestQUICSmallestPacket: the smallest packet that can be protected is read.
func TestQUICSmallestPacket(t *testing.T) {
	b := quicInitialPacket(t, quicV1, "12345678", 0, []byte{quicPing})
	p, ok := parseQUIC(b)
	require.True(t, ok)
	require.True(t, p.opens())
	p, ok = parseQUIC(b[:len(b)-1])
	require.True(t, ok)
	require.False(t, p.opens())
}

// TestQUICMovedAway: if a client's next flow gets to another server, for its own refuses, the
// ids still lead to the one that the client has a flow to.
func TestQUICMovedAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one := quicServer("one", "srv-1-a")
		r := startQUIC(t, &UDPProxy{QUIC: &QUIC{}}, map[string]func(b []byte) ([]string, error){
			"10.0.0.1:443": func(b []byte) ([]string, error) {
				if strings.HasSuffix(string(b), "refuse") {
					return nil, syscall.ECONNREFUSED
				}
				return one(b)
			},
			"10.0.0.2:443": quicServer("two", "srv-2-a"),
		})
		r.connectQUIC(t, homeAddr, "client-1", "one")
		r.send(mobileAddr, quicShortTo("srv-1-a", "refuse"))
		r.wantReply(t, mobileAddr, "two srv-1-arefuse")
		r.send(thirdAddr, quicShortTo("srv-1-a", ""))
		r.wantReply(t, thirdAddr, "one srv-1-a")
		r.stop(t)
	})
}

// TestQUICCheck names the route whose pool is wrong.
func TestQUICCheck(t *testing.T) {
	q := &QUIC{Routes: []QUICRoute{{}, {Pool: &balance.Pool{Panic: -1}}}}
	require.ErrorContains(t, q.Check(), "QUIC.Routes[1].Pool")
	require.NoError(t, (&QUIC{Routes: []QUICRoute{{}}}).Check())
}

// TestQUICIDIs: a long header has the length of its id, and a short one has not.
func TestQUICIDIs(t *testing.T) {
	id, none := quicIDOf([]byte("abc")), quicIDOf(nil)
	for _, at := range []struct {
		kind quicKind
		dst  string
		want bool
	}{
		{quicShort, "abc", true}, {quicShort, "abcd", true}, {quicShort, "ab", false}, {quicShort, "abd", false},
		{quicHandshake, "abc", true}, {quicHandshake, "abcd", false}, {quicInitial, "ab", false}, {quicUnknown, "", false},
	} {
		require.Equal(t, at.want, id.is(&quicPacket{kind: at.kind, dst: []byte(at.dst)}), at)
		require.False(t, none.is(&quicPacket{kind: at.kind, dst: []byte(at.dst)}), at)
	}
}

// TestQUICStillDialing: an id of a client that has no server yet leads nowhere from another
// address: the client sends again.
func TestQUICStillDialing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &UDPProxy{QUIC: &QUIC{}, Pool: poolOf(t, "10.0.0.1:443")}
		r := newUDP(t, p)
		r.servers["10.0.0.1:443"] = quicServer("one", "srv-1-a", "srv-1-b")
		goOn := make(chan struct{})
		p.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			<-goOn
			return r.dial(ctx, network, addr)
		}
		r.serve()
		r.send(homeAddr, string(quicInitialOf(t, "client-1", 0, nil)))
		r.send(mobileAddr, string(quicInitialOf(t, "client-2", 0, nil)))
		r.send(thirdAddr, string(quicInitialOf(t, "client-1", 1, nil)))
		r.send(mobileAddr, string(quicInitialOf(t, "client-1", 1, nil)))
		require.Equal(t, 2, r.p.Flows())
		require.EqualValues(t, 2, r.p.Dropped())
		for range 2 { // the server is for one at a time
			goOn <- struct{}{}
			synctest.Wait()
		}
		require.Len(t, r.out, 2)
		r.stop(t)
	})
}

// TestQUICLongForeignID: an id that is longer than those of the versions that are known is not
// taken for its beginning.
func TestQUICLongForeignID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		id := strings.Repeat("i", quicIDBytes+1)
		r := startQUIC(t, &UDPProxy{QUIC: &QUIC{}}, map[string]func(b []byte) ([]string, error){
			"10.0.0.1:443": func([]byte) ([]string, error) {
				return []string{"\xc0\x1a\x2a\x3a\x4a\x03cli\x15" + id + "one"}, nil
			}})
		r.send(homeAddr, "\xc0\x1a\x2a\x3a\x4a\x15"+id+"\x00"+strings.Repeat("x", 1200))
		r.wantReply(t, homeAddr, "one")
		require.Empty(t, r.p.state.quic.ids)
		r.stop(t)
	})
}

// TestQUICNeverEnough: a matcher that wants more than there will be does not match.
func TestQUICNeverEnough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, servers := routed(t, "a.test", "rest")
		p.QUIC.Routes[0].Match = func(*Peeked) Verdict { return NeedMore }
		r := startQUIC(t, p, servers)
		hello := quicHelloOf(t, "a.test", "h3")
		r.send(homeAddr, string(quicInitialOf(t, "client-1", 0, quicCryptoFrame(hello, 0, len(hello)))))
		r.wantReply(t, homeAddr, "rest")
		r.stop(t)
	})
}
