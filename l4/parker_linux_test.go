// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"io"
	"log/slog"
	"net"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/stretchr/testify/require"
)

func runParker(t testing.TB) *Parker {
	t.Helper()
	p, err := NewParker()
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() { ended <- p.Run() }()
	t.Cleanup(func() {
		require.NoError(t, p.Close())
		require.NoError(t, <-ended)
	})
	return p
}

// soon waits for a signal, never for one that must not come.
func soon(t *testing.T, ch <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-ch:
	case <-time.After(30 * time.Second):
		t.Fatal(what)
	}
}

func signal() (f func(), ch chan struct{}) {
	ch = make(chan struct{}, 10)
	return func() { ch <- struct{}{} }, ch
}

func wantNone(t *testing.T, ch <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-ch:
		t.Fatal(what)
	case <-time.After(10 * time.Millisecond):
	}
}

func TestParkerPark(t *testing.T) {
	p := runParker(t)
	a, peer := tcpPair(t)
	c := NewConn(a)
	ready, woken := signal()

	for i := range 3 {
		require.True(t, p.Park(c, ready))
		wantNone(t, woken, "nothing was sent")
		send(t, peer, "x")
		soon(t, woken, "data wakes it")
		wantRead(t, c, "x")
		require.False(t, p.Unpark(c), "round %d: it is not parked any more", i)
	}

	require.True(t, p.Park(c, ready))
	require.True(t, p.Unpark(c))
	send(t, peer, "y")
	wantNone(t, woken, "it was taken back")
	require.True(t, p.Park(c, ready))
	soon(t, woken, "what came before counts")

	wantRead(t, c, "y")
	require.True(t, p.Park(c, ready))
	peer.Close()
	soon(t, woken, "the end wakes it")
	require.True(t, c.PeerGone())
	wantError(t, c, io.EOF)

	require.True(t, p.Park(c, func() {}))
	require.NoError(t, c.Close())
	require.False(t, p.Park(c, ready), "it is closed")
}

func TestParkerTellsWhenParkedConnIsClosed(t *testing.T) {
	p := runParker(t)
	a, _ := tcpPair(t)
	c := NewConn(a)
	ready, woken := signal()
	require.True(t, p.Park(c, ready))
	c.Close()
	soon(t, woken, "its owner learns that it was closed")
	wantError(t, c, net.ErrClosed)
}

// TestParkerCountsNothingAfterRun: what a connection that is closed late calls is not
// added to what Run has waited for, or waits for just then.
// Close has begun, and has not come to the Parker yet: what it will call is not lost by what
// comes in between.
func TestParkerKeepsReadyBesideClose(t *testing.T) {
	p := runParker(t)
	for name, beside := range map[string]func(c *Conn){
		"Watch":   func(c *Conn) { p.Watch(c, func() {}) },
		"Unwatch": func(c *Conn) { p.Unwatch(c) },
	} {
		a, _ := tcpPair(t)
		c := NewConn(a)
		ready, woken := signal()
		require.True(t, p.Park(c, ready))
		c.flags.set(isClosed)
		beside(c)
		c.afterClose(c.unparkClosed())
		soon(t, woken, name+": ready not called")
		require.False(t, p.Watch(c, func() {}), "it is closed")
		require.NoError(t, a.Close())
	}
}

func TestParkerCountsNothingAfterRun(t *testing.T) {
	p, err := NewParker()
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() { ended <- p.Run() }()
	a, _ := tcpPair(t)
	c := NewConn(a)
	ready, woken := signal()
	release := make(chan struct{})
	defer close(release)
	require.True(t, p.Park(c, func() { ready(); <-release }))
	require.NoError(t, p.Close())
	require.NoError(t, <-ended)
	require.NoError(t, c.Close())
	soon(t, woken, "its owner learns that it was closed")
	waited := make(chan struct{})
	go func() { p.run.Wait(); close(waited) }()
	soon(t, waited, "it was counted")
}

func TestParkerWatch(t *testing.T) {
	ends := map[string]func(peer *net.TCPConn){
		"FIN": func(peer *net.TCPConn) { peer.CloseWrite() },
		"RST": func(peer *net.TCPConn) { peer.SetLinger(0); peer.Close() },
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			p := runParker(t)
			a, peer := tcpPair(t)
			c := NewConn(a)
			gone, told := signal()
			require.True(t, p.Watch(c, gone))
			for range 3 {
				send(t, peer, "data")
				wantNone(t, told, "data does not count")
				wantRead(t, c, "data")
				ready, woken := signal()
				require.True(t, p.Park(c, ready), "a watched connection can be parked")
				send(t, peer, "x")
				soon(t, woken, "ready")
				wantRead(t, c, "x")
			}
			send(t, peer, "last words")
			end(peer.(*net.TCPConn))
			soon(t, told, "the end counts, behind data too")
			require.True(t, c.PeerGone())
			wantNone(t, told, "once is enough")
		})
	}
}

func TestParkerUnwatch(t *testing.T) {
	p := runParker(t)
	a, peer := tcpPair(t)
	c := NewConn(a)
	gone, told := signal()
	require.True(t, p.Watch(c, gone))
	p.Unwatch(c)
	peer.Close()
	wantNone(t, told, "nobody watches")
	require.True(t, p.Watch(c, gone))
	soon(t, told, "it has gone already")

	other := runParker(t)
	require.False(t, other.Watch(c, gone), "a connection has one Parker at a time")
	p.Unwatch(c)
	require.True(t, other.Watch(c, gone))
	soon(t, told, "by the other")
}

func TestParkerCannot(t *testing.T) {
	p := runParker(t)
	memory, _ := l4test.Pipe()
	require.False(t, p.Park(NewConn(memory), func() {}))
	require.False(t, p.Watch(NewConn(memory), func() {}))
	secure, _ := tlsPair(t)
	require.False(t, p.Park(NewConn(secure), func() {}))

	a, peer := tcpPair(t)
	c := NewConn(a)
	send(t, peer, "ahead")
	_, err := c.Peek(5)
	require.NoError(t, err)
	require.False(t, p.Park(c, func() {}), "there is something to read already")
}

// TestParkerSlots closes and opens connections, whose descriptors and slots
// are used again: no event may reach the wrong one.
func TestParkerSlots(t *testing.T) {
	p := runParker(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	var wrong atomic.Int64
	for range 300 {
		peer, err := net.Dial("tcp", ln.Addr().String())
		require.NoError(t, err)
		a, err := ln.Accept()
		require.NoError(t, err)
		c := NewConn(a)
		done := make(chan struct{})
		require.True(t, p.Park(c, func() {
			if _, err := c.Peek(1); err != nil {
				wrong.Add(1)
			}
			close(done)
		}))
		send(t, peer, "x")
		soon(t, done, "ready")
		c.Close()
		peer.Close()
	}
	require.Zero(t, wrong.Load())
	p.mu.Lock()
	defer p.mu.Unlock()
	require.EqualValues(t, 1, p.used)
}

// heapAfter returns how many bytes of heap and stack n of what f makes take.
func heapAfter(n int, f func(i int)) float64 {
	measure := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc + m.StackInuse
	}
	before := measure()
	for i := range n {
		f(i)
	}
	time.Sleep(200 * time.Millisecond)
	return float64(int64(measure()-before)) / float64(n)
}

// deep grows the stack of its goroutine to 8 KiB, as a request does.
//
//go:noinline
func deep(n int) byte {
	var frame [1024]byte
	if n > 0 {
		return deep(n-1) + frame[n]
	}
	return frame[0]
}

// BenchmarkIdle says how many bytes an idle connection takes, its peer's end
// in the same process left out as far as it is known: that is bare.
func BenchmarkIdle(b *testing.B) {
	const n = 500
	hold := func(b *testing.B, each func(c *Conn)) {
		var all []net.Conn
		defer func() {
			for _, c := range all {
				c.Close()
			}
		}()
		bytes := heapAfter(n, func(int) {
			x, y := tcpPair(b)
			all = append(all, x, y)
			each(NewConn(x))
		})
		for b.Loop() { // so that it is measured once: what a run leaves would spoil the next
		}
		b.ReportMetric(bytes, "B/conn")
		b.ReportMetric(0, "ns/op")
	}
	wait := func(c *Conn) { c.ReadBuffer(&BufferPool{}) }
	b.Run("bare", func(b *testing.B) { hold(b, func(*Conn) {}) })
	b.Run("new goroutine", func(b *testing.B) { hold(b, func(c *Conn) { go wait(c) }) })
	b.Run("goroutine after a deep call", func(b *testing.B) { hold(b, func(c *Conn) { go func() { deep(4); wait(c) }() }) })
	b.Run("parked", func(b *testing.B) {
		p := runParker(b)
		hold(b, func(c *Conn) { p.Park(c, func() {}) })
	})
}

// TestParkerSurvivesPanics: the connection that a function panics for is closed.
func TestParkerSurvivesPanics(t *testing.T) {
	was := slog.Default()
	slog.SetDefault(quiet)
	defer slog.SetDefault(was)
	p := runParker(t)
	for _, begin := range []func(c *Conn) bool{
		func(c *Conn) bool { return p.Park(c, func() { panic("oops") }) },
		func(c *Conn) bool { return p.Watch(c, func() { panic("oops") }) },
	} {
		a, peer := tcpPair(t)
		c := NewConn(a)
		require.True(t, begin(c))
		closed, told := signal()
		c.OnClose(closed)
		closeWrite(t, peer)
		soon(t, told, "it is closed")
	}
}
