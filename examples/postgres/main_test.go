// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l4/l4test"
)

// database answers a StartupMessage as a server does that trusts everybody,
// and then with its name to whatever comes.
func database(t *testing.T, n *l4test.Network, addr string) *l4.Server {
	ln, err := n.Listen("tcp", addr)
	require.NoError(t, err)
	s := &l4.Server{Handler: l4.HandlerFunc(func(_ context.Context, c net.Conn) error {
		defer c.Close()
		head := make([]byte, 4)
		if _, err := io.ReadFull(c, head); err != nil {
			return err
		}
		if _, err := io.CopyN(io.Discard, c, int64(binary.BigEndian.Uint32(head))-4); err != nil {
			return err
		}
		io.WriteString(c, "R\x00\x00\x00\x08\x00\x00\x00\x00"+"Z\x00\x00\x00\x05I") // AuthenticationOk, ReadyForQuery
		b := make([]byte, 100)
		if _, err := c.Read(b); err == nil && b[0] == 'Q' {
			io.WriteString(c, addr)
		}
		return nil
	})}
	go s.Serve(ln)
	t.Cleanup(func() { s.Close() })
	return s
}

func TestSplit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := l4test.NewNetwork()
		database(t, n, "10.0.0.1:5432")
		replica := database(t, n, "10.0.0.2:5432")
		c := &Cluster{Primary: "10.0.0.1:5432", Replicas: []string{"10.0.0.2:5432"}, Dial: n.DialContext}
		write, err := n.Listen("tcp", "10.0.0.9:6432")
		require.NoError(t, err)
		read, err := n.Listen("tcp", "10.0.0.9:6433")
		require.NoError(t, err)
		ctx, stop := context.WithCancelCause(t.Context())
		done := make(chan error, 1)
		go func() { done <- c.Serve(ctx, write, read) }()

		query := func(addr string) string {
			c, err := n.DialContext(t.Context(), "tcp", addr)
			require.NoError(t, err)
			defer c.Close()
			io.WriteString(c, "\x00\x00\x00\x10\x00\x03\x00\x00user\x00a\x00\x00")
			_, err = io.ReadFull(c, make([]byte, 15))
			require.NoError(t, err)
			io.WriteString(c, "Q")
			b, err := io.ReadAll(c)
			require.NoError(t, err)
			return string(b)
		}
		require.Equal(t, "10.0.0.1:5432", query("10.0.0.9:6432"))
		require.Equal(t, "10.0.0.2:5432", query("10.0.0.9:6433"))
		require.NoError(t, replica.Close())
		time.Sleep(10 * time.Second)
		require.Equal(t, "10.0.0.1:5432", query("10.0.0.9:6433"), "reads go to the primary when no replica is left")
		database(t, n, "10.0.0.2:5432")
		time.Sleep(10 * time.Second)
		require.Equal(t, "10.0.0.2:5432", query("10.0.0.9:6433"))
		stop(fmt.Errorf("interrupt: %w", context.Canceled)) // such as the cause that signal.NotifyContext has
		require.NoError(t, <-done)
	})
}
