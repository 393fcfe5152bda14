// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"crypto/tls"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l4/l4test"
)

// A segmenter holds back what is written, to send it in segments of its own.
type segmenter struct {
	net.Conn
	held []byte
	hold bool
}

func (c *segmenter) Write(p []byte) (int, error) {
	if !c.hold {
		return c.Conn.Write(p)
	}
	c.held = append(c.held, p...)
	return len(p), nil
}

// TestTLSRelayGoesOnAfterARest: a relay of TLS that has been idle is moved by new goroutines,
// and goes on with whatever comes: a record, several in one segment, or one in two segments
// with another rest between them.
func TestTLSRelayGoesOnAfterARest(t *testing.T) {
	world(t, func(t *testing.T, n *l4test.Network) {
		p := &Proxy{Pool: pool(t, "10.0.1.1:443"), Dial: n.DialContext, Handshake: (&OriginateTLS{Config: &tls.Config{InsecureSkipVerify: true}}).Handshake}
		s := &Server{Handler: &TerminateTLS{Config: testConfig(t, "a.test"), Next: p}, Logger: quiet}
		wait := serve(s, listen(t, n, "10.0.0.1:443"))
		ln := listen(t, n, "10.0.1.1:443")
		front := &segmenter{Conn: dial(t, n, "10.0.0.1:443")}
		client := tls.Client(front, &tls.Config{InsecureSkipVerify: true})
		go client.Handshake()
		c, err := ln.Accept()
		require.NoError(t, err)
		back := &segmenter{Conn: c}
		server := tls.Server(back, testConfig(t, "b.test"))
		wantEchoBetween(t, client, server)
		ways := []struct {
			from, to *tls.Conn
			socket   *segmenter
		}{{client, server, front}, {server, client, back}}
		for _, rest := range []time.Duration{0, linger - 1, linger, 2*linger + 1, time.Minute, time.Second} {
			for _, way := range ways {
				time.Sleep(rest)
				send(t, way.from, "one")
				wantRead(t, way.to, "one")

				time.Sleep(rest)
				way.socket.hold = true
				send(t, way.from, "two")
				send(t, way.from, "three")
				way.socket.hold = false
				send(t, way.socket, string(way.socket.held))
				got := make([]byte, len("twothree"))
				_, err := io.ReadFull(way.to, got)
				require.NoError(t, err)
				require.Equal(t, "twothree", string(got))
				way.socket.held = nil

				time.Sleep(rest)
				way.socket.hold = true
				send(t, way.from, "four")
				way.socket.hold = false
				for _, part := range [][]byte{way.socket.held[:4], way.socket.held[4:9], way.socket.held[9:]} {
					send(t, way.socket, string(part))
					time.Sleep(rest)
				}
				wantRead(t, way.to, "four")
				way.socket.held = nil
			}
		}
		require.NoError(t, client.Close())
		wantError(t, server, io.EOF)
		require.NoError(t, server.Close())
		require.NoError(t, s.Shutdown(t.Context()))
		require.ErrorIs(t, wait(), ErrServerClosed)
	})
}
