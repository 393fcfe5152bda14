// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/stretchr/testify/require"
)

func TestServerCountsWithoutRecords(t *testing.T) {
	world(t, func(t *testing.T, n *l4test.Network) {
		ln := listen(t, n, "10.0.0.1:80")
		deny := false
		s := &Server{Logger: quiet, MaxConns: 2, Handler: HandlerFunc(func(ctx context.Context, c net.Conn) error {
			if deny {
				return Reject{}.ServeConn(ctx, c)
			}
			return echo.ServeConn(ctx, c)
		})}
		wait := serve(s, ln)

		a := dial(t, n, "10.0.0.1:80")
		wantEcho(t, a, "hello")
		st := s.Stats()
		require.Equal(t, Stats{Open: 1, Accepted: 1, BytesIn: 5, BytesOut: 5}, st, "an open connection counts its bytes")
		a.Close()
		synctest.Wait()
		deny = true
		b := dial(t, n, "10.0.0.1:80")
		_, err := io.ReadAll(b)
		require.Error(t, err)
		synctest.Wait()
		deny = false
		ln.(*l4test.Listener).FailAccept(1, syscall.ECONNABORTED)

		x, y := dial(t, n, "10.0.0.1:80"), dial(t, n, "10.0.0.1:80")
		wantEcho(t, x, "x")
		wantEcho(t, y, "y")
		synctest.Wait()
		require.EqualValues(t, 1, s.Stats().AtLimit)
		x.Close()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.Error(t, s.Shutdown(ctx))
		require.ErrorIs(t, wait(), ErrServerClosed)
		y.Close()
		st = s.Stats()
		require.Equal(t, Ends{Normal: 2, Denied: 1, Killed: 1}, st.Ends)
		require.Zero(t, st.Open)
		require.EqualValues(t, 4, st.Accepted)
		require.EqualValues(t, 1, st.AcceptErrors)
		require.EqualValues(t, 4, st.Ends.Total())
		require.EqualValues(t, 7, st.BytesIn, "what was open and is closed counts once")
	})
}

func TestServerCountsHandshakes(t *testing.T) {
	world(t, func(t *testing.T, n *l4test.Network) {
		s := &Server{Logger: quiet, Handler: &TerminateTLS{Config: testConfig(t, "a.test"), Next: echo}}
		wait := serve(s, listen(t, n, "10.0.0.1:443"))
		c := tls.Client(dial(t, n, "10.0.0.1:443"), &tls.Config{InsecureSkipVerify: true, ServerName: "a.test"})
		wantEcho(t, c, "hello")
		c.Close()
		bad := dial(t, n, "10.0.0.1:443")
		_, err := io.WriteString(bad, "GET / HTTP/1.1\r\n\r\n")
		require.NoError(t, err)
		_, _ = io.ReadAll(bad)
		require.NoError(t, s.Shutdown(t.Context()))
		require.ErrorIs(t, wait(), ErrServerClosed)
		st := s.Stats()
		require.EqualValues(t, 1, st.Handshakes)
		require.EqualValues(t, 1, st.HandshakeErrors)
		require.EqualValues(t, 1, st.Ends[Denied])
	})
}
