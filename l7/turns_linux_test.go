// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Many clients send a long head at once. While the first of them is served data comes on a
// connection that is open: it does not wait for all of them.
func TestOpenConnectionsComeBetweenLongHeads(t *testing.T) {
	const clients = 64
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	dial := func() net.Conn {
		c, err := net.Dial("tcp", ln.Addr().String())
		require.NoError(t, err)
		t.Cleanup(func() { c.Close() })
		return c
	}
	peer := dial()
	open, err := ln.Accept()
	require.NoError(t, err)
	defer open.Close()
	var long atomic.Int32
	s := &Server{Handler: HandlerFunc(func(x *Exchange) {
		if x.Path == "/long" {
			if long.Add(1) == 1 {
				peer.Write([]byte("x"))
			}
			for start := time.Now(); time.Since(start) < 20*time.Microsecond; {
			}
		}
		x.Respond(200, nil, "")
	})}
	go s.Serve(ln)
	defer s.Close()
	var all []net.Conn
	for range clients {
		c := dial()
		all = append(all, c)
		for range 4 { // no longer parked
			c.Write([]byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n"))
			c.Read(make([]byte, 1<<10))
		}
	}
	served := make(chan int32, 1)
	go func() {
		open.Read(make([]byte, 1))
		served <- long.Load()
	}()
	head := []byte("GET /long HTTP/1.1\r\nHost: a\r\nX-A: " + strings.Repeat("a", 20<<10) + "\r\n\r\n")
	for _, c := range all {
		c.Write(head)
	}
	require.LessOrEqual(t, <-served, int32(clients/2), "long heads that went before")
}

// A slow hash leaves processors to other requests.
func TestHTPasswdComparesOnHalfOfTheProcessors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most atomic.Int32
		verify, err := HTPasswd(strings.NewReader("u:h\n"), func(string, string) bool {
			if n := now.Add(1); n > most.Load() {
				most.Store(n)
			}
			time.Sleep(time.Second)
			now.Add(-1)
			return true
		})
		require.NoError(t, err)
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() { require.True(t, verify("u", "p")) })
		}
		all.Wait()
		require.LessOrEqual(t, most.Load(), int32(runtime.GOMAXPROCS(0)+1)/2)
	})
}
