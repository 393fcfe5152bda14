// SPDX-License-Identifier: Apache-2.0

package compress

import (
	"bytes"
	"io"
	"net"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// Pieces that are compressed at once do not hold up what is ready on a connection: data
// comes on it as the first of them is done.
func TestOpenConnectionsComeBetweenPieces(t *testing.T) {
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
	h := &Replies{}
	piece := bytes.Repeat([]byte("some text "), pieceBytes/10)
	h.pools[zstdCoding].Put(h.compressor(zstdCoding))
	for range n {
		go func() {
			r := &reply{h: h, coding: zstdCoding}
			_, err := io.Copy(io.Discard, r.compress(bytes.NewReader(piece)))
			if done.Add(1) == 1 {
				peer.Write([]byte("x"))
			}
			if err != nil {
				t.Error(err)
			}
		}()
	}
	require.LessOrEqual(t, <-served, int32(n/2))
	for done.Load() < n {
		runtime.Gosched()
	}
}
