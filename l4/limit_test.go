// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/ratelimit"
)

// That package ratelimit meets the interfaces.
var (
	_ Limiter       = (*ratelimit.Limiter)(nil)
	_ Limiter       = (*ratelimit.Bucket)(nil)
	_ ClientLimiter = (*ratelimit.Keyed[netip.Addr])(nil)
	_ refunder      = (*ratelimit.Keyed[netip.Addr])(nil)
)

func perSecond(n, burst int) ratelimit.GCRA {
	return ratelimit.GCRA{Rate: ratelimit.PerSecond(n), Burst: burst}
}

// admitted reports whether a connection through h reached its echo.
func admitted(t *testing.T, h Handler) bool {
	t.Helper()
	client, server := l4test.Pipe()
	defer client.Close()
	go h.ServeConn(t.Context(), server)
	if _, err := io.WriteString(client, "x"); err != nil {
		return false
	}
	_, err := client.Read(make([]byte, 1))
	return err == nil
}

func TestLimitRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &Limit{Next: echoes, All: &ratelimit.Limiter{Law: perSecond(1, 2)}}
		for _, tt := range []struct {
			at   time.Duration
			want bool
		}{{0, true}, {0, true}, {0, false}, {time.Second, true}, {time.Second, false}, {3 * time.Second, true}} {
			time.Sleep(tt.at - time.Since(started(t)))
			require.Equal(t, tt.want, admitted(t, l), "at %v", tt.at)
		}
	})
}

// started is when the bubble of t began.
func started(*testing.T) time.Time { return time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC) }

func TestLimitPerClientAndOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		over := 0
		l := &Limit{
			Next:      echoes,
			PerClient: &ratelimit.Keyed[netip.Addr]{Law: perSecond(1, 1)},
			Refuse:    HandlerFunc(func(_ context.Context, c net.Conn) error { over++; return c.Close() }),
		}
		require.True(t, admitted(t, l))
		require.False(t, admitted(t, l), "the same client")
		require.Equal(t, 1, over)

		n := l4test.NewNetwork()
		ln, err := n.Listen("tcp", "10.0.0.1:80")
		require.NoError(t, err)
		s := &Server{Handler: l}
		go s.Serve(ln)
		defer s.Close()
		for i := range 3 {
			src := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, 0, byte(i)}), 1000)
			c, err := n.DialFrom(src)(t.Context(), "tcp", "10.0.0.1:80")
			require.NoError(t, err)
			io.WriteString(c, "x")
			_, err = io.ReadFull(c, make([]byte, 1))
			require.NoError(t, err, "another client")
			c.Close()
		}
	})
}

// TestLimitInFlight: what is open counts until it is closed, even though
// ServeConn has returned.
func TestLimitInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var open []net.Conn
		keep := HandlerFunc(func(_ context.Context, c net.Conn) error { open = append(open, c); return nil })
		keyed := &ratelimit.Keyed[netip.Addr]{Law: ratelimit.InFlight{Max: 2}}
		l := &Limit{Next: keep, PerClient: keyed}
		serve := func() {
			_, server := l4test.Pipe()
			require.NoError(t, l.ServeConn(t.Context(), server))
		}
		serve()
		serve()
		serve()
		require.Len(t, open, 2, "the third is over")
		require.NoError(t, open[0].Close())
		open[0].Close()
		serve()
		serve()
		require.Len(t, open, 3, "one place was given back, once")
	})
}

func TestLimitWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &Limit{Next: echoes, All: limiterFunc(func(int) ratelimit.Decision { return ratelimit.Decision{OK: true, Wait: time.Second} })}
		require.True(t, admitted(t, l))
		require.Equal(t, time.Second, time.Since(started(t)))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, server := l4test.Pipe()
		require.ErrorIs(t, l.ServeConn(ctx, server), context.Canceled)
	})
}

type limiterFunc func(n int) ratelimit.Decision

func (f limiterFunc) Take(n int) ratelimit.Decision { return f(n) }

func TestTarpit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pit := &Tarpit{Delay: 5 * time.Second, Max: 2}
		took := make(chan time.Duration, 3)
		for range 3 {
			client, server := l4test.Pipe()
			go pit.ServeConn(t.Context(), server)
			synctest.Wait()
			go func() {
				_, err := client.Read(make([]byte, 1))
				require.Error(t, err)
				took <- time.Since(started(t))
			}()
		}
		require.Equal(t, []time.Duration{0, 5 * time.Second, 5 * time.Second}, []time.Duration{<-took, <-took, <-took})

		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, server := l4test.Pipe()
		require.NoError(t, pit.ServeConn(ctx, server))
		require.Equal(t, 5*time.Second, time.Since(started(t)), "an end of the context ends it")
	})
}

func TestPacedListener(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := l4test.NewNetwork()
		inner, err := n.Listen("tcp", "10.0.0.1:80")
		require.NoError(t, err)
		ln := &PacedListener{Listener: inner, Rate: &ratelimit.Limiter{Law: perSecond(2, 1)}}
		for range 3 {
			_, err := n.DialContext(t.Context(), "tcp", "10.0.0.1:80")
			require.NoError(t, err)
		}
		for i := range 3 {
			c, err := ln.Accept()
			require.NoError(t, err)
			require.Equal(t, time.Duration(i)*500*time.Millisecond, time.Since(started(t)))
			c.Close()
		}
		go func() { time.Sleep(100 * time.Millisecond); ln.Close() }()
		_, err = ln.Accept()
		require.ErrorIs(t, err, net.ErrClosed)
		require.ErrorIs(t, ln.Close(), net.ErrClosed)
	})
}

// transfer writes size bytes through a handler that sends what it gets to
// nobody, or sends size bytes itself, and says how long it took.
func transfer(t *testing.T, th *Throttle, in, out int) time.Duration {
	client, server := l4test.Pipe()
	th.Next = HandlerFunc(func(_ context.Context, c net.Conn) error {
		defer c.Close()
		if out > 0 {
			c.Write(make([]byte, out))
		}
		_, err := io.Copy(io.Discard, c)
		return err
	})
	start := time.Now()
	go th.ServeConn(t.Context(), server)
	go func() {
		client.Write(make([]byte, in))
		client.CloseWrite()
	}()
	n, err := io.Copy(io.Discard, client)
	require.NoError(t, err)
	require.EqualValues(t, out, n)
	return time.Since(start)
}

func TestThrottle(t *testing.T) {
	const rate = 100_000 // bytes a second
	conn := func(netip.Addr) Limiter { return &ratelimit.Limiter{Law: perSecond(rate, 32<<10)} }
	for _, tt := range []struct {
		name    string
		th      func() *Throttle
		in, out int
		want    time.Duration // 0 means none
	}{
		{"no limit", func() *Throttle { return &Throttle{} }, 1_000_000, 1_000_000, 0},
		{"out of a connection", func() *Throttle { return &Throttle{Out: Bandwidth{PerConn: conn}} }, 0, 1_000_000, 10 * time.Second},
		{"in of a connection", func() *Throttle { return &Throttle{In: Bandwidth{PerConn: conn}} }, 1_000_000, 0, 10 * time.Second},
		{"the other direction is free", func() *Throttle { return &Throttle{In: Bandwidth{PerConn: conn}} }, 0, 1_000_000, 0},
		{"in all", func() *Throttle { return &Throttle{Out: Bandwidth{All: conn(netip.Addr{})}} }, 0, 1_000_000, 10 * time.Second},
		{
			"of a client", func() *Throttle {
				return &Throttle{Out: Bandwidth{PerClient: &ratelimit.Keyed[netip.Addr]{Law: perSecond(rate, 32<<10)}}}
			}, 0, 1_000_000, 10 * time.Second,
		},
		{
			"the smallest counts", func() *Throttle {
				return &Throttle{Out: Bandwidth{PerConn: conn, All: &ratelimit.Limiter{Law: perSecond(rate/2, 32<<10)}}}
			}, 0, 1_000_000, 20 * time.Second,
		},
		{
			"a burst smaller than a step", func() *Throttle {
				return &Throttle{Out: Bandwidth{All: &ratelimit.Limiter{Law: perSecond(rate, 1000)}}}
			}, 0, 1_000_000, 10 * time.Second,
		},
		{
			"a bucket", func() *Throttle {
				return &Throttle{Out: Bandwidth{All: &ratelimit.Bucket{Rate: ratelimit.PerSecond(rate), Burst: 32 << 10}}}
			}, 0, 1_000_000, 10 * time.Second,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				got := transfer(t, tt.th(), tt.in, tt.out)
				require.InDelta(t, tt.want, got, 0.04*float64(tt.want))
			})
		})
	}
}

func TestThrottleDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := Bandwidth{PerConn: func(netip.Addr) Limiter { return &ratelimit.Limiter{Law: perSecond(1000, 1000)} }}
		var c net.Conn
		th := &Throttle{In: slow, Out: slow, Next: HandlerFunc(func(_ context.Context, nc net.Conn) error { c = nc; return nil })}
		client, server := l4test.Pipe()
		defer client.Close()
		require.NoError(t, th.ServeConn(t.Context(), server))

		c.SetWriteDeadline(time.Now().Add(time.Second))
		_, err := c.Write(make([]byte, 10_000))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.Equal(t, time.Second, time.Since(started(t)))

		in := bytes.Repeat([]byte("0123456789"), 300)
		client.Write(in)
		var got []byte
		for len(got) < len(in) { // deadlines by the dozen lose nothing
			c.SetReadDeadline(time.Now().Add(70 * time.Millisecond))
			b := make([]byte, 700)
			n, err := c.Read(b)
			got = append(got, b[:n]...)
			if err != nil {
				require.ErrorIs(t, err, os.ErrDeadlineExceeded)
			}
		}
		require.Equal(t, in, got)

		// A deadline moved, and a close, wake the sleeper.
		c.SetDeadline(time.Time{})
		ended := make(chan error)
		go func() { _, err := c.Write(make([]byte, 1<<20)); ended <- err }()
		time.Sleep(time.Second)
		c.SetDeadline(time.Unix(1, 0))
		require.ErrorIs(t, <-ended, os.ErrDeadlineExceeded)
		c.SetDeadline(time.Time{})
		go func() { _, err := c.Write(make([]byte, 1<<20)); ended <- err }()
		time.Sleep(time.Second)
		c.Close()
		require.ErrorIs(t, <-ended, net.ErrClosed)
	})
}

// TestThrottleShows that a throttled connection hides nothing.
func TestThrottleShows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := l4test.Pipe()
		inner := NewConn(b)
		inner.note(func(n *noted) { n.proxy = &ProxyHeader{Version: 2} })
		s := tls.Server(inner, testConfig(t, "a.test"))
		c := tls.Client(a, &tls.Config{ServerName: "a.test", InsecureSkipVerify: true})
		go c.Handshake()
		require.NoError(t, s.Handshake())
		closed := 0
		th := &Throttle{Out: Bandwidth{All: &ratelimit.Limiter{Law: perSecond(1<<20, 1<<20)}}}
		th.Next = HandlerFunc(func(_ context.Context, c net.Conn) error {
			require.Equal(t, "a.test", c.(*Conn).TLS().ServerName)
			require.NotNil(t, ProxyHeaderOf(c))
			c.(*Conn).OnClose(func() { closed++ })
			return c.Close()
		})
		require.NoError(t, th.ServeConn(t.Context(), s))
		require.Equal(t, 1, closed)
		c.Close()
	})
}

func TestOnClose(t *testing.T) {
	inner := NewConn(&scriptConn{})
	outer := NewConn(tls.Server(inner, &tls.Config{}))
	var order []int
	outer.OnClose(func() { order = append(order, 1) })
	inner.OnClose(func() { order = append(order, 2) })
	outer.NetConn().Close() // as an http.Server does
	outer.Close()
	require.Equal(t, []int{2, 1}, order)
	inner.OnClose(func() { order = append(order, 3) })
	require.Equal(t, []int{2, 1, 3}, order, "at once if it is closed already")
}

// One client has all addresses of a 64-bit network of IPv6, unless it is said
// otherwise.
func TestClientOf(t *testing.T) {
	for _, test := range []struct {
		addr string
		bits int
		want string
	}{
		{"2001:db8:1:2:3::1", 0, "2001:db8:1:2::"},
		{"2001:db8:1:2:3::1", 48, "2001:db8:1::"},
		{"2001:db8:1:2:3::1", 128, "2001:db8:1:2:3::1"},
		{"2001:db8:1:2:3::1", 1000, "2001:db8:1:2:3::1"},
		{"2001:db8:1:2:3::1", -1, "2001:db8:1:2:3::1"},
		{"fe80::1%eth0", 0, "fe80::"},
		{"fe80::1%eth0", -1, "fe80::1%eth0"},
		{"192.0.2.1", 0, "192.0.2.1"},
	} {
		require.Equal(t, test.want, clientOf(netip.MustParseAddr(test.addr), test.bits).String())
	}
	require.Equal(t, netip.Addr{}, clientOf(netip.Addr{}, 0))
}

func TestLimitCountsNetworksOfIPv6(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, bits := range []int{0, -1} {
			var open []net.Conn
			l := &Limit{
				Next:       HandlerFunc(func(_ context.Context, c net.Conn) error { open = append(open, c); return nil }),
				PerClient:  &ratelimit.Keyed[netip.Addr]{Law: ratelimit.InFlight{Max: 1}},
				ClientBits: bits,
			}
			asked := &Bandwidth{PerClient: &ratelimit.Keyed[netip.Addr]{Law: perSecond(1, 1)}, ClientBits: bits}
			passed := 0
			for i := range 5 {
				c, _ := net.Pipe()
				from := netip.AddrFrom16([16]byte{0x20, 1, 15: byte(i)})
				_ = l.ServeConn(t.Context(), fromAddr{c, net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 1))})
				if asked.paces(from)[0].take(1).OK {
					passed++
				}
			}
			want := 5
			if bits == 0 {
				want = 1
			}
			require.Equal(t, want, passed)
			require.Len(t, open, want)
			for _, c := range open {
				require.NoError(t, c.Close())
			}
			for _, d := range l.PerClient.(*ratelimit.Keyed[netip.Addr]).All() {
				require.Equal(t, 1, d.Remaining, "its place is given back")
			}
		}
	})
}

// fromAddr is a connection from that address.
type fromAddr struct {
	net.Conn
	addr net.Addr
}

func (c fromAddr) RemoteAddr() net.Addr { return c.addr }
