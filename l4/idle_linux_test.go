// SPDX-License-Identifier: Apache-2.0

//go:build !race

package l4

import (
	"net"
	"runtime"
	"syscall"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What an idle connection consists of stays within a size class of package runtime.
func TestIdleConnIsSmall(t *testing.T) {
	if unsafe.Sizeof(uintptr(0)) < 8 {
		t.Skip("the sizes are those of 64 bits")
	}
	assert.LessOrEqual(t, unsafe.Sizeof(Conn{}), uintptr(208))
	assert.LessOrEqual(t, unsafe.Sizeof(sock{}), uintptr(96))
	assert.LessOrEqual(t, unsafe.Sizeof(session{}), uintptr(416))
}

// A sock that never has to wait makes no functions for the poller, and reads and writes take
// no memory.
func TestSockThatNeverWaits(t *testing.T) {
	ln, err := (&ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	peer, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	defer peer.Close()
	nc, err := ln.Accept()
	require.NoError(t, err)
	c := NewConn(nc)
	defer c.Close()
	pool := &BufferPool{}
	ping, in := []byte("ping"), make([]byte, 4)
	n := testing.AllocsPerRun(100, func() {
		_, sent := peer.Write(ping) // on loopback it is there once written
		b, err := c.TryReadBuffer(pool)
		if sent != nil || err != nil || string(b.B) != "ping" {
			t.Fatal(sent, err)
		}
		pool.Put(b)
		b, err = c.TryReadBuffer(pool)
		_, answered := c.Write(ping)
		_, got := peer.Read(in)
		if b != nil || err != nil || answered != nil || got != nil {
			t.Fatal(b, err, answered, got)
		}
	})
	assert.Zero(t, int(n))
	assert.Nil(t, c.in)
	assert.Nil(t, c.out)
	assert.Nil(t, nc.(*sock).waits.Load())
}

// An idle relay between sockets takes little memory, garbage of its beginning included: a
// heap of less than 4 MiB is not collected.
func TestIdleRelayTakesLittle(t *testing.T) {
	const n, enough = 300, 1700
	var took uint64
	for range 5 { // other tests may leave something that goes on for a moment
		relays, stop := idleRelays(t)
		runtime.GC()
		relays(50) // what is made once, as buffers are, does not count
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		relays(n)
		runtime.ReadMemStats(&after)
		stop()
		if took = (after.TotalAlloc - before.TotalAlloc) / n; took < enough {
			return
		}
	}
	t.Errorf("%d bytes; want less than %d", took, enough)
}

// idleRelays returns what makes n more relays that have moved a few bytes. Of their four ends
// the two of the test are bare descriptors.
func idleRelays(tb testing.TB) (relays func(n int), stop func()) {
	ln, err := (&ListenConfig{}).Listen(tb.Context(), "tcp", "127.0.0.1:0")
	require.NoError(tb, err)
	back, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(tb, err)
	s := &Server{Handler: &Proxy{Pool: pool(tb, back.Addr().String())}}
	go s.Serve(ln)
	var ends []int
	raw, err := back.(*net.TCPListener).SyscallConn()
	require.NoError(tb, err)
	to := &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: ln.Addr().(*net.TCPAddr).Port}
	server, answer := -1, make([]byte, 100)
	accept := func(l uintptr) { server, _, err = syscall.Accept(int(l)) }
	relays = func(n int) {
		for range n {
			fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
			require.NoError(tb, err)
			ends = append(ends, fd)
			require.NoError(tb, syscall.Connect(fd, to))
			_, err = syscall.Write(fd, []byte("question"))
			require.NoError(tb, err)
			for server = -1; server < 0; runtime.Gosched() {
				require.NoError(tb, raw.Control(accept))
			}
			ends = append(ends, server)
			_, err = syscall.Read(server, answer)
			require.NoError(tb, err)
		}
	}
	return relays, func() {
		for _, fd := range ends {
			syscall.Close(fd)
		}
		back.Close()
		s.Close()
	}
}

// BenchmarkIdleRelay says how many bytes an idle relayed connection takes in the proxy.
func BenchmarkIdleRelay(b *testing.B) {
	relays, stop := idleRelays(b)
	defer stop()
	bytes := heapAfter(1000, func(int) { relays(1) })
	for b.Loop() { // so that it is measured once: what a run leaves would spoil the next
	}
	b.ReportMetric(bytes, "B/conn")
	b.ReportMetric(0, "ns/op")
}
