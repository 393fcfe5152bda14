// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l4/l4test"
)

// TestAcceptGoesOn: the servers of l4 and l7 agree on what ends Serve.
func TestAcceptGoesOn(t *testing.T) {
	quiet := slog.New(slog.DiscardHandler)
	for _, serve := range []func(ln net.Listener) error{
		func(ln net.Listener) error { return (&l4.Server{Logger: quiet, Handler: l4.Reject{}}).Serve(ln) },
		func(ln net.Listener) error {
			return (&Server{Logger: quiet, Handler: http.NotFoundHandler()}).Serve(ln)
		},
	} {
		for err, goesOn := range map[error]bool{
			syscall.EMFILE: true, syscall.ENFILE: true, syscall.ENOBUFS: true, syscall.ENOMEM: true,
			syscall.ECONNABORTED: true, syscall.EPROTO: true, syscall.EPERM: true,
			syscall.EINVAL: false, errors.New("broken"): false,
		} {
			synctest.Test(t, func(t *testing.T) {
				ln, lerr := l4test.NewNetwork().Listen("tcp", "10.0.0.1:80")
				require.NoError(t, lerr)
				ln.(*l4test.Listener).FailAccept(3, err)
				ended := make(chan error, 1)
				start := time.Now()
				go func() { ended <- serve(ln) }()
				time.Sleep(time.Minute)
				require.Equal(t, goesOn, len(ended) == 0, err)
				if goesOn {
					ln.Close()
					require.ErrorIs(t, <-ended, net.ErrClosed)
				} else {
					require.ErrorIs(t, <-ended, err)
				}
				require.Equal(t, time.Minute, time.Since(start))
			})
		}
	}
}

// Where the descriptors have run out, Accept fails again and again, with a connection now
// and then: the log has a line at once and then one a minute.
func TestAcceptFailuresAreLoggedOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := l4test.NewNetwork()
		ln, err := n.Listen("tcp", "10.0.0.1:80")
		require.NoError(t, err)
		failing := ln.(*l4test.Listener)
		var log bytes.Buffer
		s := &Server{Logger: slog.New(slog.NewTextHandler(&log, nil)), Handler: &FixedReply{}}
		ended := make(chan error, 1)
		failing.FailAccept(3, syscall.EMFILE)
		go func() { ended <- s.Serve(ln) }()
		for range 299 { // five minutes
			time.Sleep(time.Second)
			failing.FailAccept(3, syscall.EMFILE)
			c, err := n.DialContext(t.Context(), "tcp", "10.0.0.1:80")
			require.NoError(t, err)
			c.Close()
		}
		synctest.Wait()
		require.Equal(t, 5, strings.Count(log.String(), "\n"), log.String())
		require.Contains(t, log.String(), "too many open files")
		require.NoError(t, s.Close())
		require.ErrorIs(t, <-ended, ErrServerClosed)
	})
}
