// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"crypto/tls"
	"io"
	"net"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l4/l4test"
)

// TestCutTLSHasNoCloseNotify: a relay that breaks off must not look as if it had
// ended (RFC 8446, section 6.1), on either side.
func TestCutTLSHasNoCloseNotify(t *testing.T) {
	for _, cut := range []string{"server", "client"} {
		synctest.Test(t, func(t *testing.T) {
			n := l4test.NewNetwork()
			ln := listen(t, n, "10.0.1.1:443")
			proxy := &Proxy{Pool: pool(t, "10.0.1.1:443"), Dial: n.DialContext,
				Handshake: (&OriginateTLS{Config: &tls.Config{InsecureSkipVerify: true}}).Handshake}
			s := &Server{Logger: quiet, Handler: &TerminateTLS{Config: testConfig(t, "a.test"), Next: proxy}}
			wait := serve(s, listen(t, n, "10.0.0.1:443"))
			bareClient := dial(t, n, "10.0.0.1:443")
			client := tls.Client(bareClient, &tls.Config{InsecureSkipVerify: true})
			go client.Handshake()
			bareServer, err := ln.Accept()
			require.NoError(t, err)
			server := tls.Server(bareServer, testConfig(t, "b.test"))
			go server.Handshake()
			wantEchoBetween(t, client, server)
			broken, other := bareServer.(*l4test.Conn), client
			if cut == "client" {
				broken, other = bareClient, server
			}
			broken.Reset()
			_, err = other.Read(make([]byte, 1))
			require.Error(t, err)
			require.NotErrorIs(t, err, io.EOF, "the whole of it, as it looks")
			bareClient.Close()
			bareServer.Close()
			require.NoError(t, s.Shutdown(t.Context()))
			require.ErrorIs(t, wait(), ErrServerClosed)
		})
	}
}

// A written keeps what has been written to it last.
type written struct {
	net.Conn
	last []byte
}

func (c *written) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if err == nil {
		c.last = append(c.last[:0], p...)
	}
	return n, err
}

// TestAbortOfHiddenSockets: where nothing can be reset, there is no close_notify all the
// same.
func TestAbortOfHiddenSockets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		w := &written{Conn: b}
		client := tls.Client(a, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12})
		server := tls.Server(NewConn(w), testConfig(t, "a.test"))
		go client.Handshake()
		require.NoError(t, server.Handshake())
		go io.Copy(io.Discard, client)
		breakOff(NewConn(server))
		require.NotEqual(t, byte(21), w.last[0], "an alert")
	})
}
