// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"context"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
)

func TestUDPFlows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startUDP(t, &UDPProxy{IdleTimeout: 10 * time.Second}, "10.0.0.1:53")
		for _, client := range []string{"192.0.2.1:1000", "192.0.2.2:1000", "192.0.2.1:1001"} {
			for _, data := range []string{"a", "b", ""} {
				r.send(client, data)
				r.want(t, client, "10.0.0.1:53 "+data)
			}
		}
		require.Equal(t, 3, r.p.Flows(), "one for each address and port")
		require.Len(t, r.dials, 3)
		require.Equal(t, 3, r.p.Pool.Server("10.0.0.1:53").InFlight())

		time.Sleep(8 * time.Second)
		r.send("192.0.2.2:1000", "c")
		r.want(t, "192.0.2.2:1000", "10.0.0.1:53 c")
		time.Sleep(3 * time.Second)
		synctest.Wait()
		require.Equal(t, 1, r.p.Flows(), "the others were idle")
		require.Equal(t, "10.0.0.1:53 1 -- 2/38", <-r.records)
		time.Sleep(8 * time.Second)
		synctest.Wait()
		require.Zero(t, r.p.Flows())
		require.Zero(t, r.p.Pool.Server("10.0.0.1:53").InFlight())
		r.stop(t)
	})
}

// TestUDPReplies: a flow is over when the replies are there, however many
// queries are on their way at once.
func TestUDPReplies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startUDP(t, &UDPProxy{Replies: 1, IdleTimeout: time.Second}, "10.0.0.1:53")
		delay := make(chan struct{})
		r.servers["10.0.0.1:53"] = func(b []byte) ([]string, error) { <-delay; return []string{string(b)}, nil }
		r.send("192.0.2.1:1000", "A?")
		go func() { r.in <- packet{netip.MustParseAddrPort("192.0.2.1:1000"), "AAAA?"} }()
		synctest.Wait() // both are under way
		delay <- struct{}{}
		delay <- struct{}{}
		r.want(t, "192.0.2.1:1000", "A?")
		r.want(t, "192.0.2.1:1000", "AAAA?")
		require.Zero(t, r.p.Flows(), "both are answered")
		require.Len(t, r.dials, 1)
		require.Equal(t, "10.0.0.1:53 1 -- 7/7", <-r.records)

		r.servers["10.0.0.1:53"] = func(b []byte) ([]string, error) { return nil, nil }
		r.send("192.0.2.1:1000", "A?")
		time.Sleep(2 * time.Second)
		require.Equal(t, "10.0.0.1:53 1 sD 2/0", <-r.records, "no reply speaks against the server")
		r.stop(t)
	})
}

// TestUDPGreatestReplies: a flow of so many replies is not over before its time.
func TestUDPGreatestReplies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startUDP(t, &UDPProxy{Replies: math.MaxInt, IdleTimeout: time.Minute}, "10.0.0.1:53")
		for _, q := range []string{"a", "b", "c"} {
			r.send("192.0.2.1:1000", q)
			r.want(t, "192.0.2.1:1000", "10.0.0.1:53 "+q)
		}
		require.Equal(t, 1, r.p.Flows())
		require.Len(t, r.dials, 1)
		time.Sleep(2 * time.Minute)
		require.Equal(t, "10.0.0.1:53 1 sD 3/39", <-r.records)
		r.stop(t)
	})
}

func TestUDPRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refuse := func([]byte) ([]string, error) { return nil, syscall.ECONNREFUSED }
		r := startUDP(t, &UDPProxy{Pool: &balance.Pool{Policy: balance.First{}}}, "10.0.0.1:53", "10.0.0.2:53")
		require.NoError(t, r.p.Pool.Set(balance.Endpoint{Addr: "10.0.0.1:53"}, balance.Endpoint{Addr: "10.0.0.2:53"}))
		r.servers["10.0.0.1:53"] = refuse
		r.send("192.0.2.1:1000", "q")
		r.want(t, "192.0.2.1:1000", "10.0.0.2:53 q")
		require.Equal(t, []string{"10.0.0.1:53", "10.0.0.2:53"}, r.dials, "the same datagram went to another server")

		r.servers["10.0.0.2:53"] = refuse
		r.send("192.0.2.9:1000", "q")
		require.Equal(t, "10.0.0.2:53 2 SC 1/0", <-r.records)

		delete(r.servers, "10.0.0.1:53")
		delete(r.servers, "10.0.0.2:53")
		r.send("192.0.2.9:1000", "q")
		require.Equal(t, "10.0.0.2:53 2 SC 1/0", <-r.records, "one that cannot be dialed, too")

		require.NoError(t, r.p.Pool.Set())
		r.send("192.0.2.9:1000", "q")
		require.Contains(t, []string{<-r.records, <-r.records}, " 0 SC 1/0", "no server at all")
		r.stop(t)
	})
}

// TestUDPServerDown: its flows end, the next datagram goes elsewhere.
func TestUDPServerDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := &balance.Pool{Policy: balance.First{}}
		require.NoError(t, pool.Set(balance.Endpoint{Addr: "10.0.0.1:53"}, balance.Endpoint{Addr: "10.0.0.2:53"}))
		r := startUDP(t, &UDPProxy{Pool: pool}, "10.0.0.1:53", "10.0.0.2:53")
		r.send("192.0.2.1:1000", "a")
		r.want(t, "192.0.2.1:1000", "10.0.0.1:53 a")
		pool.Server("10.0.0.1:53").Report(balance.Check, balance.Down, "test")
		synctest.Wait()
		require.Equal(t, "10.0.0.1:53 1 DD 1/13", <-r.records)
		r.send("192.0.2.1:1000", "b")
		r.want(t, "192.0.2.1:1000", "10.0.0.2:53 b")
		r.stop(t)
	})
}

func TestUDPBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startUDP(t, &UDPProxy{MaxFlows: 2, Accept: func(c netip.AddrPort) bool { return c.Port() != 666 }}, "10.0.0.1:53")
		r.send("192.0.2.1:666", "x")
		require.Zero(t, r.p.Flows())
		r.send("192.0.2.1:1", "a")
		r.send("192.0.2.1:2", "a")
		r.send("192.0.2.1:3", "a")
		require.Equal(t, 2, r.p.Flows())
		require.Len(t, r.dials, 2)
		require.EqualValues(t, 2, r.p.Dropped())
		r.stop(t)

		// What is kept for a server that is not there yet is bounded.
		f := &udpFlow{l: &udpListener{p: new(UDPProxy)}}
		for range 10_000 {
			f.send([]byte(strings.Repeat("x", 1000)))
			f.send(nil)
		}
		kept := 0
		for _, b := range f.kept {
			kept += len(b)
		}
		require.LessOrEqual(t, kept, udpKeep)
		require.LessOrEqual(t, len(f.kept), udpKeep/udpCost+1)
		require.EqualValues(t, f.size, f.l.p.kept.Load())
		require.EqualValues(t, 20_000-len(f.kept), f.l.p.Dropped())
		f.end(Termination{}, nil)
		require.EqualValues(t, 20_000, f.l.p.Dropped())
		require.Zero(t, f.l.p.kept.Load())
	})
}

func TestUDPShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startUDP(t, &UDPProxy{IdleTimeout: 10 * time.Second}, "10.0.0.1:53")
		r.send("192.0.2.1:1", "a")
		r.want(t, "192.0.2.1:1", "10.0.0.1:53 a")
		ended := make(chan error, 1)
		go func() { ended <- r.p.Shutdown(context.Background()) }()
		synctest.Wait()
		r.send("192.0.2.1:1", "b")
		r.want(t, "192.0.2.1:1", "10.0.0.1:53 b")
		r.send("192.0.2.2:2", "c")
		require.Equal(t, 1, r.p.Flows(), "what there is goes on, nothing new begins")
		require.NoError(t, <-ended)
		require.Equal(t, 10*time.Second, time.Since(started(t)), "the flow was idle")
		require.ErrorIs(t, <-r.served, ErrServerClosed)
		require.ErrorIs(t, r.p.Serve(newPacketNet()), ErrServerClosed)

		r = startUDP(t, &UDPProxy{}, "10.0.0.1:53")
		r.send("192.0.2.1:1", "a")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, r.p.Shutdown(ctx), context.DeadlineExceeded)
		require.Equal(t, "10.0.0.1:53 1 KD 1/13", <-r.records)
		require.ErrorIs(t, <-r.served, ErrServerClosed)
	})
}

// TestUDPSockets uses real ones: replies, the largest datagram, and a port
// that nobody listens on.
func TestUDPSockets(t *testing.T) {
	server, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	defer server.Close()
	go func() {
		b := make([]byte, maxDatagram)
		for {
			n, from, err := server.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			server.WriteToUDPAddrPort(b[:n], from)
		}
	}()
	dead, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	require.NoError(t, dead.Close())

	pool := &balance.Pool{Policy: balance.First{}}
	require.NoError(t, pool.Set(balance.Endpoint{Addr: dead.LocalAddr().String()}, balance.Endpoint{Addr: server.LocalAddr().String()}))
	p := &UDPProxy{Pool: pool}
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	served := make(chan error, 1)
	go func() { served <- p.Serve(pc) }()
	c, err := net.Dial("udp", pc.LocalAddr().String())
	require.NoError(t, err)
	defer c.Close()
	c.SetDeadline(time.Now().Add(30 * time.Second))
	b := make([]byte, maxDatagram)
	for _, n := range []int{0, 1, 1400, 65507} {
		_, err := c.Write(make([]byte, n))
		require.NoError(t, err)
		got, err := c.Read(b)
		require.NoError(t, err, "a datagram of %d bytes", n)
		require.Equal(t, n, got)
	}
	require.NoError(t, p.Close())
	require.ErrorIs(t, <-served, ErrServerClosed)
}

// BenchmarkUDP holds a relayed round trip against a direct one.
func BenchmarkUDP(b *testing.B) {
	server, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(b, err)
	defer server.Close()
	go func() {
		buf := make([]byte, maxDatagram)
		for {
			n, from, err := server.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			server.WriteToUDPAddrPort(buf[:n], from)
		}
	}()
	pool := new(balance.Pool)
	require.NoError(b, pool.Set(balance.Endpoint{Addr: server.LocalAddr().String()}))
	p := &UDPProxy{Pool: pool}
	defer p.Close()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(b, err)
	go p.Serve(pc)
	for name, addr := range map[string]string{"direct": server.LocalAddr().String(), "relayed": pc.LocalAddr().String()} {
		b.Run(name, func(b *testing.B) {
			c, err := net.Dial("udp", addr)
			require.NoError(b, err)
			defer c.Close()
			buf := make([]byte, 512)
			b.ReportAllocs()
			for b.Loop() {
				c.Write(buf[:128])
				if _, err := c.Read(buf); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestUDPOneWay: a server that takes datagrams and never replies is believed
// after a second. Should it refuse later, what it has taken goes to no other,
// and the datagram that finds out does.
func TestUDPOneWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startUDP(t, &UDPProxy{Pool: &balance.Pool{Policy: balance.First{}}}, "10.0.0.1:514", "10.0.0.2:514")
		require.NoError(t, r.p.Pool.Set(balance.Endpoint{Addr: "10.0.0.1:514"}, balance.Endpoint{Addr: "10.0.0.2:514"}))
		var first, second []string
		restarts := make(chan struct{})
		r.servers["10.0.0.1:514"] = func(b []byte) ([]string, error) {
			select {
			case <-restarts:
				return nil, syscall.ECONNREFUSED
			default:
			}
			first = append(first, string(b))
			return nil, nil
		}
		r.servers["10.0.0.2:514"] = func(b []byte) ([]string, error) { second = append(second, string(b)); return nil, nil }
		const client = "192.0.2.1:1000"
		for i := range 300 {
			r.send(client, fmt.Sprint(i))
			if i < 10 {
				require.NotZero(t, r.p.kept.Load(), "it may still refuse")
			}
			time.Sleep(50 * time.Millisecond)
		}
		require.Zero(t, r.p.kept.Load())
		close(restarts)
		r.send(client, "refused")
		require.NoError(t, r.p.Pool.Set(balance.Endpoint{Addr: "10.0.0.2:514"}))
		r.send(client, "after")
		require.Len(t, first, 300)
		require.Equal(t, []string{"after"}, second, "one is lost, which the first server had been sent")
		require.Equal(t, "10.0.0.1:514 1 SD", (<-r.records)[:len("10.0.0.1:514 1 SD")])
		require.Equal(t, 1, r.p.Flows())
		r.stop(t)
	})
}

// TestUDPRefusedByWrite: an ICMP error that a write finds costs the datagram
// that was being written nothing, be the server known to work or not.
func TestUDPRefusedByWrite(t *testing.T) {
	for _, settled := range []bool{false, true} {
		var got []string
		p := &UDPProxy{}
		f := &udpFlow{l: &udpListener{p: p}, start: time.Now(), settled: settled}
		f.server = refusing{got: &got}
		require.Equal(t, !settled, f.send([]byte("a")))
		require.ErrorIs(t, f.refused, syscall.ECONNREFUSED)
		require.Equal(t, settled, f.over, "the next flow takes it")
		require.Equal(t, !settled, len(f.kept) == 1, "the next server takes it")
		require.Zero(t, p.Dropped())
	}
}

type refusing struct {
	net.Conn
	got *[]string
}

func (r refusing) Write([]byte) (int, error)       { return 0, syscall.ECONNREFUSED }
func (r refusing) SetReadDeadline(time.Time) error { return nil }

// TestUDPSilentFlowsKeepNothing: clients, of which many may be forged, cost no
// more than a bounded part of memory, and only for a moment.
func TestUDPSilentFlowsKeepNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newUDP(t, &UDPProxy{MaxFlows: -1, IdleTimeout: time.Hour}, "10.0.0.1:514")
		r.p.OnDone = nil
		r.serve()
		r.servers["10.0.0.1:514"] = func(b []byte) ([]string, error) { return nil, nil }
		big := strings.Repeat("x", 4000)
		for i := range 1200 {
			for range 5 {
				r.in <- packet{netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), uint16(i+1)), big}
			}
		}
		synctest.Wait()
		require.LessOrEqual(t, r.p.kept.Load(), int64(udpKeepAll))
		require.Greater(t, r.p.kept.Load(), int64(udpKeepAll/2))
		time.Sleep(udpDoubt + time.Millisecond)
		synctest.Wait()
		require.Zero(t, r.p.kept.Load())
		require.Equal(t, 1200, r.p.Flows())
		r.stop(t)
	})
}

// TestUDPDatagramAtTheEnd: what comes while a flow ends begins another, whatever
// the flow ends by.
func TestUDPDatagramAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		defer b.Close()
		flow := func() *udpFlow {
			p := &UDPProxy{IdleTimeout: time.Second}
			return &udpFlow{l: &udpListener{p: p}, start: time.Now(), server: a}
		}
		f := flow()
		time.Sleep(time.Second)
		require.ErrorIs(t, f.timedOut(a), os.ErrDeadlineExceeded)
		require.False(t, f.send([]byte("x")), "it is idle, and has said so")

		for _, err := range []error{syscall.ECONNRESET, os.ErrDeadlineExceeded, errFlowOver} {
			f = flow()
			f.replies, f.settled = 1, true
			_, again, _ := f.outcome(err)
			require.False(t, again)
			require.False(t, f.send([]byte("x")), err)
		}
		f = flow()
		_, again, _ := f.outcome(syscall.ECONNREFUSED)
		require.True(t, again)
		require.True(t, f.send([]byte("x")), "another server will take it")
		require.Zero(t, f.l.p.Dropped())
		f.end(Termination{ServerAborted, PhaseConnect}, syscall.ECONNREFUSED)
		require.EqualValues(t, 1, f.l.p.Dropped(), "or none")
	})
}
