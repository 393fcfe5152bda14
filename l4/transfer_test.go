// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// connPair returns the two ends of a connection over loopback.
func connPair(t *testing.T) (a, b *Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	nc, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	peer, err := ln.Accept()
	require.NoError(t, err)
	a, b = NewConn(nc), NewConn(peer)
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

func TestTransferTCP(t *testing.T) {
	const size = 5 << 20
	data := make([]byte, size)
	chacha := rand.NewChaCha8([32]byte{1})
	chacha.Read(data)
	from, src := connPair(t)
	dst, to := connPair(t)
	go func() {
		from.Write(data)
		from.Write([]byte("behind"))
	}()
	sum := sha256.New()
	got := make(chan int64)
	go func() {
		n, _ := io.CopyN(sum, to, size)
		got <- n
	}()
	waits := 0
	n, err := Transfer(dst, src, size, func(c *Conn) {
		waits++
		c.SetDeadline(time.Now().Add(10 * time.Second))
	})
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip("no splice here")
	}
	require.NoError(t, err)
	require.EqualValues(t, size, n)
	require.EqualValues(t, size, <-got)
	want := sha256.Sum256(data)
	require.Equal(t, want[:], sum.Sum(nil))
	require.Positive(t, waits)
	rest := make([]byte, 6)
	_, err = io.ReadFull(src, rest)
	require.NoError(t, err)
	require.Equal(t, "behind", string(rest), "Transfer took more than it was told to")
	require.EqualValues(t, size, dst.BytesWritten())
}

func TestTransferEndsEarlyTCP(t *testing.T) {
	from, src := connPair(t)
	dst, to := connPair(t)
	go io.Copy(io.Discard, to)
	from.Write(bytes.Repeat([]byte{'x'}, 1000))
	from.CloseWrite()
	n, err := Transfer(dst, src, 5000, nil)
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip("no splice here")
	}
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.EqualValues(t, 1000, n)
}
