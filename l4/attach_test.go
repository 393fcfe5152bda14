// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"context"
	"io"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l4/l4test"
)

// TestC13_ServerDialsIn: a client before any server has connected is refused
// when the time to connect is over, one after that is served.
func TestC13_ServerDialsIn(t *testing.T) {
	home := new(Attach)
	play(t, &Proxy{Pool: pool(t, "home:1"), Dial: home.DialContext, Tries: 1}, func(t *testing.T, s *scene) {
		attach := &Server{Handler: home, Logger: quiet}
		wait := serve(attach, listen(t, s.net, "10.0.0.1:99"))
		client := dial(t, s.net, "10.0.0.1:80")
		wantError(t, client, syscall.ECONNRESET)
		r := s.record()
		require.Equal(t, "sC", r.Termination.String())
		require.Zero(t, r.Connected)
		require.Equal(t, 3*time.Second, r.Total)

		for _, speaksFirst := range []bool{false, true} {
			server := dial(t, s.net, "10.0.0.1:99")
			if speaksFirst {
				send(t, server, "banner")
			}
			synctest.Wait()
			require.Equal(t, 1, home.Waiting())
			client = dial(t, s.net, "10.0.0.1:80")
			if speaksFirst {
				wantRead(t, client, "banner")
			}
			wantEchoBetween(t, client, server)
			require.Zero(t, home.Waiting())
			client.Close()
			wantError(t, server, io.EOF)
			server.Close()
			require.Equal(t, "--", s.record().Termination.String())
		}
		client = dial(t, s.net, "10.0.0.1:80") // waits
		time.Sleep(time.Second)
		server := dial(t, s.net, "10.0.0.1:99")
		wantEchoBetween(t, client, server)
		client.Close()
		server.Close()
		require.Equal(t, time.Second, s.record().Connected)
		require.NoError(t, attach.Shutdown(t.Context()))
		require.ErrorIs(t, wait(), ErrServerClosed)
	})
}

// TestAttachLeft: those who leave while they wait are not given to anybody, and
// nothing of them stays.
func TestAttachLeft(t *testing.T) {
	world(t, func(t *testing.T, n *l4test.Network) {
		home := &Attach{Max: 2}
		ends := make(chan string, 9)
		s := &Server{Handler: home, Logger: quiet, OnDone: func(r *Record) { ends <- r.Termination.String() }}
		wait := serve(s, listen(t, n, "10.0.0.1:99"))
		dial(t, n, "10.0.0.1:99").Close()
		require.Equal(t, "CR", <-ends)
		dial(t, n, "10.0.0.1:99").Reset()
		require.Equal(t, "CR", <-ends)

		synctest.Wait() // for their places to be free
		one, two := dial(t, n, "10.0.0.1:99"), dial(t, n, "10.0.0.1:99")
		synctest.Wait()
		wantError(t, dial(t, n, "10.0.0.1:99"), syscall.ECONNRESET)
		require.Equal(t, "PR", <-ends)
		synctest.Wait()
		require.Equal(t, 2, home.Waiting())

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		for range 2 {
			c, err := home.DialContext(ctx, "", "")
			require.NoError(t, err)
			defer c.Close()
		}
		_, err := home.DialContext(ctx, "", "")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		one.Close()
		two.Close()

		spoke, silent := dial(t, n, "10.0.0.1:99"), dial(t, n, "10.0.0.1:99")
		send(t, spoke, "hello")
		synctest.Wait()
		go s.Shutdown(t.Context())
		wantError(t, spoke, io.EOF)
		wantError(t, silent, io.EOF)
		require.Equal(t, []string{"KQ", "KQ"}, []string{<-ends, <-ends})
		require.ErrorIs(t, wait(), ErrServerClosed)
	})
}
