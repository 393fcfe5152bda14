// SPDX-License-Identifier: Apache-2.0

package balance_test

import (
	"crypto/tls"
	"errors"
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
)

type closeCounter struct {
	net.Conn
	n int
}

func (c *closeCounter) Close() error { c.n++; return nil }

func TestDialed(t *testing.T) {
	failed := errors.New("failed")
	for text, c := range map[string]net.Conn{"<nil>": nil, "(*net.TCPConn)(nil)": (*net.TCPConn)(nil)} {
		got, err := balance.Dialed("l4: Proxy.Dial", c, nil)
		require.Nil(t, got)
		require.EqualError(t, err, "l4: Proxy.Dial has returned no connection and no error, but "+text+": it must return one of them")
		got, err = balance.Dialed("l4: Proxy.Dial", c, failed)
		require.Nil(t, got)
		require.Equal(t, failed, err)
	}
	c := new(closeCounter)
	got, err := balance.Dialed("", c, nil)
	require.NoError(t, err)
	require.Same(t, c, got)
	require.Zero(t, c.n)
	got, err = balance.Dialed("", c, failed)
	require.Nil(t, got)
	require.Equal(t, failed, err)
	require.Equal(t, 1, c.n)
	got, err = balance.Dialed("", tls.Client(nil, &tls.Config{}), failed)
	require.Nil(t, got)
	require.Equal(t, failed, err)
}
