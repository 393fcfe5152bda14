// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"context"
	"io"
	"math"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// wantPipes checks that data went by splice, and that the pipes were given
// back.
func wantPipes(t *testing.T, s *Server) {
	t.Helper()
	pipes := 0
	for _, p := range s.state.park.parkers {
		p.mu.Lock()
		require.LessOrEqual(t, len(p.pipes), sparePipes)
		pipes += len(p.pipes)
		p.mu.Unlock()
	}
	require.NotZero(t, pipes)
}

// TestWireYields: a direction that has more to move than one turn stops behind it
// and is told again, so that others get theirs.
func TestWireYields(t *testing.T) {
	p, err := NewParker() // which does not run yet
	require.NoError(t, err)
	client, a := tcpPair(t)
	b, server := tcpPair(t)
	r := &relay{}
	r.init(NewConn(a), NewConn(b), (&RelayOptions{}).complete(), func(*relay) {})
	require.True(t, r.wire(p))
	_, err = client.Write(make([]byte, maxSyscall+1000)) // no new event will come for it
	require.NoError(t, err)
	var events [8]syscall.EpollEvent
	told := func() (n int) {
		n, errno := sysEpollPoll(p.ep, events[:])
		require.Zero(t, errno)
		return n
	}
	time.Sleep(10 * time.Millisecond)
	require.NotZero(t, told())
	require.Zero(t, told())
	r.mu.Lock()
	r.up.readable = true
	r.up.pumpSome(1)
	require.EqualValues(t, maxSyscall, r.up.moved, "one buffer, and not the second")
	r.mu.Unlock()
	require.Equal(t, 1, told(), "it is told again")
	require.Equal(t, r.up.src.parked.slot, events[0].Fd)

	r.event(r.up.src, events[0].Events)
	_, err = io.ReadFull(server, make([]byte, maxSyscall+1000))
	require.NoError(t, err)
	r.cut(Termination{}, nil)
	require.NoError(t, p.Close())
}

// TestParkerIgnoresLateEvents: one that was on its way when its connection gave
// up the slot is not taken for the next connection's.
func TestParkerIgnoresLateEvents(t *testing.T) {
	p, err := NewParker() // which does not run
	require.NoError(t, err)
	defer p.Close()
	first, _ := tcpPair(t)
	c := NewConn(first)
	require.True(t, p.Park(c, func() {}))
	late := syscall.EpollEvent{Events: syscall.EPOLLIN | syscall.EPOLLRDHUP, Fd: c.parked.slot, Pad: p.slot(c.parked.slot).generation}
	require.True(t, p.Unpark(c))

	second, _ := tcpPair(t)
	c = NewConn(second)
	ready, woken := signal()
	require.True(t, p.Park(c, ready))
	require.Equal(t, late.Fd, c.parked.slot, "it has the slot")
	p.handle(late)
	wantNone(t, woken, "it was about another")
	require.False(t, c.PeerGone())
	late.Pad = p.slot(c.parked.slot).generation
	p.handle(late)
	soon(t, woken, "this is its own")
}

// TestKeepAliveOfOldConnections: a connection to a server gets its probes once it
// is old enough to need them.
func TestKeepAliveOfOldConnections(t *testing.T) {
	option := func(c *Conn, level, option int) (v int) {
		require.NoError(t, c.nc.(*sock).set("", func(fd int) (err error) {
			v, err = syscall.GetsockoptInt(fd, level, option)
			return err
		}))
		return v
	}
	for _, tt := range []struct {
		socket SocketOptions
		want   int
	}{{SocketOptions{}, 1}, {SocketOptions{KeepAlive: net.KeepAliveConfig{Idle: -1}}, 0}} {
		got := make(chan *session, 1)
		p := &Proxy{Socket: tt.socket}
		h := HandlerFunc(func(ctx context.Context, c net.Conn) error {
			p.once.Do(p.init)
			s := &session{p: p, client: c.(*Conn)}
			require.NoError(t, s.connect(ctx))
			s.start(ctx)
			got <- s
			return nil
		})
		behind(t, "tcp", p, h, net.Listen, func(t *testing.T, s *stage) {
			client, server := s.connect()
			wantEchoBetween(t, client, server)
			r := &(<-got).relay
			require.Equal(t, 0, option(r.up.dst, syscall.SOL_SOCKET, syscall.SO_KEEPALIVE), "it is young")
			r.mu.Lock()
			require.Equal(t, tt.want == 1, r.nextTick() == probeAfter)
			r.start -= instant(probeAfter)
			r.mu.Unlock()
			r.tick()
			require.Equal(t, tt.want, option(r.up.dst, syscall.SOL_SOCKET, syscall.SO_KEEPALIVE))
			if tt.want == 1 {
				require.Equal(t, 120, option(r.up.dst, syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE))
				require.Equal(t, 15, option(r.up.dst, syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL))
				require.Equal(t, 4, option(r.up.dst, syscall.IPPROTO_TCP, syscall.TCP_KEEPCNT))
			}
			r.mu.Lock()
			require.Greater(t, r.nextTick(), probeAfter, "once")
			r.mu.Unlock()
			wantEchoBetween(t, client, server)
			client.Close()
			server.Close()
			require.Equal(t, "--", s.record().Termination.String())
		})
	}
}

// TestSocketOptionsExtremes: what the kernel has no room for is the most it has.
func TestSocketOptionsExtremes(t *testing.T) {
	o := SocketOptions{
		KeepAlive:   net.KeepAliveConfig{Enable: true, Idle: math.MaxInt64, Interval: math.MaxInt64, Count: math.MaxInt},
		UserTimeout: math.MaxInt64,
	}
	ln, err := (&ListenConfig{Socket: o}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	c, err := o.DialContext(t.Context(), "tcp", ln.Addr().String())
	require.NoError(t, err)
	c.Close()
	require.Equal(t, 1, wholeMilliseconds(1))
	require.Equal(t, 7000, wholeMilliseconds(7*time.Second))
	require.Equal(t, math.MaxInt32, wholeMilliseconds(math.MaxInt64))
}
