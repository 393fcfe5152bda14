// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// Clients that all say a long hello do not hold up a connection that is open.
func TestOpenConnectionsComeBetweenLongHellos(t *testing.T) {
	const clients = 64
	var begun atomic.Int32
	var protos []string
	for i := range 200 {
		protos = append(protos, fmt.Sprintf("%030d", i))
	}
	hello := clientHello(t, &tls.Config{ServerName: "a.test", NextProtos: protos})
	require.Greater(t, len(hello), longPeek)
	var servers []net.Conn
	for range clients {
		client, server := tcpPair(t)
		client.Write(hello)
		servers = append(servers, server)
	}
	var all sync.WaitGroup
	served := beside(t, &begun, func(first func()) {
		r := &Router{Routes: []Route{{Match: SNI("a.test"), Handler: HandlerFunc(func(_ context.Context, c net.Conn) error {
			first()
			begun.Add(1)
			return c.Close()
		})}}}
		for _, c := range servers {
			all.Go(func() { r.ServeConn(t.Context(), c) })
		}
	})
	all.Wait()
	require.LessOrEqual(t, served, int32(clients/2))
}
