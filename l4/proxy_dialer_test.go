// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"context"
	"io"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/stretchr/testify/require"
)

func TestDialer(t *testing.T) {
	world(t, func(t *testing.T, n *l4test.Network) {
		var outcomes []balance.Outcome
		p := pool(t, "10.0.1.1:80", "10.0.1.2:80")
		p.OnOutcome = append(p.OnOutcome, func(_ *balance.Server, o balance.Outcome) { outcomes = append(outcomes, o) })
		require.NoError(t, p.Set(balance.Endpoint{Addr: "10.0.1.1:80"}, balance.Endpoint{Addr: "10.0.1.2:80", MaxConns: 1}))
		d := &Dialer{Pool: p, Dial: n.DialContext}
		ln := listen(t, n, "10.0.1.2:80") // nobody is at the other

		c, err := d.DialContext(t.Context(), "tcp", "ignored")
		require.NoError(t, err)
		if len(outcomes) > 0 {
			require.Equal(t, balance.ConnectFailed, outcomes[0].Class)
			outcomes = nil
		}
		server, err := ln.Accept()
		require.NoError(t, err)
		wantEchoBetween(t, c, server)
		require.Equal(t, 1, p.Server("10.0.1.2:80").InFlight())
		require.NoError(t, c.(interface{ CloseWrite() error }).CloseWrite())
		wantError(t, server, io.EOF)
		require.NoError(t, c.Close())
		require.Error(t, c.Close())
		require.Zero(t, p.Server("10.0.1.2:80").InFlight())
		require.Equal(t, balance.OK, outcomes[len(outcomes)-1].Class)

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		c, err = d.DialContext(ctx, "tcp", "ignored")
		require.NoError(t, err)
		server, err = ln.Accept()
		require.NoError(t, err)
		server.(*l4test.Conn).Reset()
		wantError(t, c, syscall.ECONNRESET)
		c.Close()
		require.Equal(t, balance.Reset, outcomes[len(outcomes)-1].Class)

		ln.Close()
		_, err = d.DialContext(ctx, "tcp", "ignored")
		require.ErrorIs(t, err, syscall.ECONNREFUSED)
		require.ErrorContains(t, err, "l4: server 10.0.1.1:80: dial tcp 10.0.1.1:80: connection refused")
	})
}

func TestDialerCut(t *testing.T) {
	world(t, func(t *testing.T, n *l4test.Network) {
		p := pool(t, "10.0.1.1:80")
		d := &Dialer{Pool: p, Dial: n.DialContext, CutOnDown: true}
		listen(t, n, "10.0.1.1:80")
		c, err := d.DialContext(t.Context(), "tcp", "")
		require.NoError(t, err)
		p.Server("10.0.1.1:80").SetAdmin(balance.Maint, "test")
		synctest.Wait()
		wantError(t, c, net.ErrClosed)
		require.Equal(t, 1, p.Server("10.0.1.1:80").InFlight(), "until the owner closes it")
		c.Close()
		require.Zero(t, p.Server("10.0.1.1:80").InFlight())
	})
}
