// SPDX-License-Identifier: Apache-2.0

//go:build linux && !race && !penstock_noring && (amd64 || arm64)

package l4

import (
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func testRing(t testing.TB) *ring {
	r := openRing()
	if r == nil {
		t.Skip("the kernel has no ring for this process")
	}
	t.Cleanup(r.close)
	return r
}

// socketPairs returns the descriptors of n pairs of TCP or Unix sockets.
// Calls of a ring do what the same calls do one after the other: they move as much, find
// nothing, a full socket, the end, and a broken pipe.
func TestRingIsCalls(t *testing.T) {
	const n = 8
	var (
		r     = testRing(t)
		alone = socketPairs(t, n)
		many  = socketPairs(t, n)
		seen  = map[string]int{}
	)
	for range 3000 {
		var one, together []call
		for i, order := range rand.Perm(2 * n)[:1+rand.IntN(2*n)] {
			pair, side := order/2, order%2
			size := 1 + rand.IntN(100_000)
			writes := rand.IntN(2) == 0
			if rand.IntN(400) == 0 {
				syscall.Shutdown(alone[pair][side], syscall.SHUT_WR)
				syscall.Shutdown(many[pair][side], syscall.SHUT_WR)
			}
			p := make([]byte, size)
			for j := range p {
				p[j] = byte(i + j)
			}
			one = append(one, call{fd: alone[pair][side], writes: writes, p: p})
			q := append([]byte(nil), p...)
			together = append(together, call{fd: many[pair][side], writes: writes, p: q})
		}
		for i := range one {
			one[i].do()
		}
		r.do(together)
		for i := range one {
			require.Equal(t, max(one[i].n, 0), max(together[i].n, 0))
			require.Equal(t, one[i].errno, together[i].errno)
			require.Equal(t, one[i].p, together[i].p)
			seen[fmt.Sprint(one[i].writes, one[i].n > 0, one[i].errno)]++
		}
		if rand.IntN(100) == 0 {
			alone, many = socketPairs(t, n), socketPairs(t, n)
		}
	}
	for _, want := range []string{
		"true true errno 0", "false true errno 0", "false false errno 0",
		fmt.Sprint(true, false, syscall.EAGAIN), fmt.Sprint(false, false, syscall.EAGAIN), fmt.Sprint(true, false, syscall.EPIPE),
	} {
		assert.Positive(t, seen[want], "%s of %v", want, seen)
	}
}

// What a ring does not take is done without it.
func TestRingThatFails(t *testing.T) {
	r := testRing(t)
	pairs := socketPairs(t, 4)
	writes := func() (cs []call) {
		for _, p := range pairs {
			cs = append(cs, call{fd: p[0], writes: true, p: []byte("hello")})
		}
		return cs
	}
	reads := func() {
		for _, p := range pairs {
			c := call{fd: p[1], p: make([]byte, 10)}
			c.do()
			require.Equal(t, "hello", string(c.p[:c.n]))
		}
	}
	fd := r.fd
	for range 3 * maxCalls {
		for _, r.fd = range []uintptr{fd, 1 << 20} { // the other one is no ring
			cs := writes()
			r.do(cs)
			for _, c := range cs {
				require.Zero(t, c.errno)
				require.Equal(t, 5, c.n)
			}
			reads()
		}
	}
	r.fd = fd
	cs := append(writes(), call{fd: -1, p: make([]byte, 1)}, call{fd: int(fd), writes: true, p: []byte("no socket")})
	r.do(cs)
	assert.Equal(t, syscall.EBADF, cs[4].errno)
	assert.Equal(t, syscall.ENOTSOCK, cs[5].errno)
	reads()
}

// A ring takes a quarter of a millisecond to make: it is made for the first calls that are made
// together, which a poller of one connection does not have.
func TestCallsOpenTheirRing(t *testing.T) {
	testRing(t)
	pair := socketPairs(t, 1)[0]
	var cs calls
	for _, n := range []int{1, 2, 3} {
		for range n {
			cs.list = append(cs.list, call{fd: pair[0], writes: true, p: []byte("x")})
		}
		cs.do()
		assert.Equal(t, n > 1, cs.ring != nil, "%d calls", n)
		for _, c := range cs.list {
			assert.Equal(t, 1, c.n)
			assert.Zero(t, c.errno)
		}
		cs.clear()
	}
	cs.close()
	cs.list = []call{{fd: pair[1], p: make([]byte, 4)}, {fd: pair[1], p: make([]byte, 4)}} // a late one
	cs.do()
	assert.Nil(t, cs.ring)
	assert.Equal(t, 4, cs.list[0].n)
	assert.Equal(t, 2, cs.list[1].n)
}

// A lone connection after another: each has a poller of its own.
func BenchmarkPollerOfOne(b *testing.B) {
	for b.Loop() {
		c, s, peer := polledPair(b, "tcp")
		s.leave()
		c.Close()
		peer.Close()
	}
}

// BenchmarkCalls: reads and writes of 100 bytes, one after the other, and together.
func BenchmarkCalls(b *testing.B) {
	for _, n := range []int{1, 2, 4, 8, 16} {
		pairs := socketPairs(b, n)
		cs := make([]call, n)
		run := func(name string, do func([]call)) {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				p := make([]byte, 100)
				for i := 0; b.Loop(); i++ {
					for j := range cs {
						cs[j] = call{fd: pairs[j][i%2], writes: i%2 == 0, p: p}
					}
					do(cs)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/call")
			})
		}
		run("alone", func(cs []call) {
			for i := range cs {
				cs[i].do()
			}
		})
		run("together", testRing(b).do)
	}
}
