// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"context"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// beside tells how many goroutines begun counts when an open connection is served, on which
// data comes as soon as the first of them runs. Start makes them run.
func beside(t *testing.T, begun *atomic.Int32, start func(first func())) int32 {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	open, peer := tcpPair(t)
	served, waits := make(chan int32, 1), make(chan struct{})
	go func() {
		close(waits)
		NewConn(open).Read(make([]byte, 1))
		served <- begun.Load()
	}()
	<-waits
	start(sync.OnceFunc(func() { peer.Write([]byte("x")) }))
	return <-served
}

// manyPairs are connections, all of which can be read at once.
func manyPairs(t *testing.T, n int) (conns []*Conn) {
	for range n {
		c, peer := tcpPair(t)
		peer.Write([]byte("x"))
		conns = append(conns, NewConn(c))
	}
	return conns
}

// A thousand parked connections that become readable at once do not hold up one that is
// open.
func TestOpenConnectionsComeBetweenParkedOnes(t *testing.T) {
	const n = 1000
	p := runParker(t)
	var begun atomic.Int32
	var all sync.WaitGroup
	all.Add(n)
	served := beside(t, &begun, func(first func()) {
		for _, c := range manyPairs(t, n) {
			require.True(t, p.Park(c, func() {
				go func() {
					first()
					begun.Add(1)
					all.Done()
				}()
			}))
		}
	})
	all.Wait()
	require.LessOrEqual(t, served, int32(3*128))
}

// Nor do clients that connect at once.
func TestOpenConnectionsComeBetweenAccepts(t *testing.T) {
	const n = 500
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	for range n {
		c, err := net.Dial("tcp", ln.Addr().String())
		require.NoError(t, err)
		defer c.Close()
	}
	var begun atomic.Int32
	served := beside(t, &begun, func(first func()) {
		s := &Server{Logger: quiet, Handler: HandlerFunc(func(_ context.Context, c net.Conn) error {
			first()
			begun.Add(1)
			return c.Close()
		})}
		ended := serve(s, ln)
		t.Cleanup(func() {
			require.NoError(t, s.Close())
			require.ErrorIs(t, ended(), ErrServerClosed)
		})
	})
	require.LessOrEqual(t, served, int32(4*batchSize))
}
