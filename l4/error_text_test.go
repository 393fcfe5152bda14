// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"crypto/tls"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4/l4test"
)

// An operator who reads that there is no route wants to know for what.
func TestRouterSaysForWhatThereIsNoRoute(t *testing.T) {
	r := &Router{Routes: []Route{{Match: SNI("a.test"), Handler: Reject{}}}}
	for name, want := range map[string]string{"b.test": `TLS for "b.test"`, "": "TLS without a server name"} {
		client, server := l4test.Pipe()
		go tls.Client(client, &tls.Config{ServerName: name, InsecureSkipVerify: true}).Handshake()
		err := r.ServeConn(t.Context(), server)
		client.Close()
		require.ErrorIs(t, err, ErrNoRoute)
		require.ErrorContains(t, err, want)
	}
	client, server := l4test.Pipe()
	defer client.Close()
	_, err := client.Write([]byte("GET / HTTP/1.1\r\n"))
	require.NoError(t, err)
	err = r.ServeConn(t.Context(), server)
	require.ErrorIs(t, err, ErrNoRoute)
	require.NotContains(t, err.Error(), "TLS")
}

// And in which pool there is no server.
func TestErrorsNameThePoolThatHasNoServer(t *testing.T) {
	for name, want := range map[string]string{
		"db": `l4: pool "db": balance: no usable server`,
		"":   "l4: balance: no usable server",
	} {
		pool := &balance.Pool{Name: name}
		client, server := l4test.Pipe()
		defer client.Close()
		require.EqualError(t, (&Proxy{Pool: pool}).ServeConn(t.Context(), server), want)
		_, err := (&Dialer{Pool: pool}).DialContext(t.Context(), "tcp", "db:5432")
		require.EqualError(t, err, want)
	}
}
