// SPDX-License-Identifier: Apache-2.0

package jwt

import (
	"net"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Signatures that are verified at once do not hold up what is ready on a connection: data
// comes on it as the first of them is done.
func TestOpenConnectionsComeBetweenSignatures(t *testing.T) {
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
	i := newIssuer(t)
	h, token := i.verifier(), i.token()
	h.KeepFor = -1
	for range n {
		go func() {
			_, wrong := h.verify(t.Context(), token, time.Now())
			if done.Add(1) == 1 {
				peer.Write([]byte("x"))
			}
			if wrong != nil {
				t.Error(wrong)
			}
		}()
	}
	require.LessOrEqual(t, <-served, int32(n/2))
	for done.Load() < n {
		runtime.Gosched()
	}
}
