// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"crypto/tls"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l4/l4test"
)

// TestEndsDuringHandshakes: whatever ends a connection while TLS with the client, or with a
// silent server, begins, ends it in time, with its cause in the record, and leaves no lease.
func TestEndsDuringHandshakes(t *testing.T) {
	const hello = "\x16\x03\x01\x02\x00\x01" // the beginning of one
	for _, tt := range []struct {
		why   string
		sends string // before TLS, or instead of it
		tls   bool   // the client does its handshake
		end   func(t *testing.T, s *Server, p *Proxy, c *l4test.Conn)
		want  string
		after time.Duration
	}{
		{"client, Close", hello, false, func(t *testing.T, s *Server, _ *Proxy, _ *l4test.Conn) { s.Close() }, "K", 0}, // of which phase is not determined
		{"client, Cut of a server", hello, false, func(t *testing.T, _ *Server, p *Proxy, _ *l4test.Conn) {
			p.Pool.Server("10.0.1.1:443").Cut(true, "maintenance")
		}, "cR", 10 * time.Second},
		{"client, reset", hello, false, func(t *testing.T, _ *Server, _ *Proxy, c *l4test.Conn) { c.Reset() }, "CR", 0},
		{"client, FIN", hello, false, func(t *testing.T, _ *Server, _ *Proxy, c *l4test.Conn) { c.CloseWrite() }, "CR", 0},
		{"client, silent", hello, false, func(*testing.T, *Server, *Proxy, *l4test.Conn) {}, "cR", 10 * time.Second},
		{"PROXY header before, FIN", "PROXY TCP4 192.0.2.1 ", false, func(t *testing.T, _ *Server, _ *Proxy, c *l4test.Conn) { c.CloseWrite() }, "CR", 0},
		{"server, Cut", "", true, func(t *testing.T, _ *Server, p *Proxy, _ *l4test.Conn) {
			p.Pool.Server("10.0.1.1:443").Cut(true, "maintenance")
		}, "DC", 0},
		{"server, left the pool", "", true, func(t *testing.T, _ *Server, p *Proxy, _ *l4test.Conn) { require.NoError(t, p.Pool.Set()) }, "DC", 0},
		{"server, silent", "", true, func(*testing.T, *Server, *Proxy, *l4test.Conn) {}, "sC", 3 * time.Second},
		{"server, the client leaves", "", true, func(t *testing.T, _ *Server, _ *Proxy, c *l4test.Conn) { c.Reset() }, "sC", 3 * time.Second},
	} {
		t.Run(tt.why, func(t *testing.T) {
			world(t, func(t *testing.T, n *l4test.Network) {
				p := &Proxy{Pool: pool(t, "10.0.1.1:443"), Dial: n.DialContext, CutOnDown: true,
					Handshake: (&OriginateTLS{Config: &tls.Config{InsecureSkipVerify: true}}).Handshake}
				server := p.Pool.Server("10.0.1.1:443")
				h := Handler(&TerminateTLS{Config: testConfig(t, "a.test"), Next: p})
				if strings.HasPrefix(tt.sends, "PROXY") {
					h = &AcceptProxy{Trusted: MustParsePrefixes("0.0.0.0/0"), Next: h}
				}
				records := make(chan Record, 1)
				s := &Server{Handler: h, Logger: quiet, OnDone: func(r *Record) { records <- *r }}
				wait := serve(s, listen(t, n, "10.0.0.1:443"))
				ln := listen(t, n, "10.0.1.1:443")
				defer ln.Close()
				c := dial(t, n, "10.0.0.1:443")
				defer c.Close()
				send(t, c, tt.sends)
				if tt.tls {
					require.NoError(t, tls.Client(c, &tls.Config{InsecureSkipVerify: true}).Handshake())
					silent, err := ln.Accept()
					require.NoError(t, err)
					defer silent.Close()
					_, err = silent.Read(make([]byte, 1)) // the ClientHello
					require.NoError(t, err)
				}
				synctest.Wait() // it is in the handshake
				begin := time.Now()
				tt.end(t, s, p, c)
				r := <-records
				require.Equal(t, tt.want, r.Termination.String()[:len(tt.want)])
				require.Equal(t, tt.after, time.Since(begin))
				require.Error(t, r.Err)
				require.Zero(t, server.InFlight())
				s.Close()
				require.ErrorIs(t, wait(), ErrServerClosed)
			})
		})
	}
}
