// SPDX-License-Identifier: Apache-2.0

package h3

import (
	"crypto/tls"
	"net"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// Handshakes that begin at once do not hold up what is ready on a connection: data comes
// on it as the first of them goes on.
func TestOpenConnectionsComeBetweenHandshakes(t *testing.T) {
	const n = 64
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	peer, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	defer peer.Close()
	open, err := ln.Accept()
	require.NoError(t, err)
	defer open.Close()
	var done atomic.Int32
	served, waits := make(chan int32, 1), make(chan struct{})
	go func() {
		close(waits)
		open.Read(make([]byte, 1))
		served <- done.Load()
	}()
	<-waits
	cfg := forHTTP3(&tls.Config{Certificates: []tls.Certificate{{}}})
	for range n {
		go func() {
			chosen, err := cfg.GetConfigForClient(&tls.ClientHelloInfo{})
			if done.Add(1) == 1 {
				peer.Write([]byte("x"))
			}
			if chosen != nil || err != nil {
				t.Error(chosen, err)
			}
		}()
	}
	require.LessOrEqual(t, <-served, int32(n/2))
	for done.Load() < n {
		runtime.Gosched()
	}
}
