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

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l4/l4test"
)

// TestLameDuckAcceptsOn: handlers are told at once, and clients that come while those
// before us have not noticed are served.
func TestLameDuckAcceptsOn(t *testing.T) {
	world(t, func(t *testing.T, n *l4test.Network) {
		told := make(chan time.Time, 2)
		s := &Server{LameDuck: 5 * time.Second, Handler: HandlerFunc(func(ctx context.Context, c net.Conn) error {
			go func() { <-Draining(ctx); told <- time.Now() }()
			return echo(ctx, c)
		})}
		wait := serve(s, listen(t, n, "10.0.0.1:80"))
		before := dial(t, n, "10.0.0.1:80")
		wantEcho(t, before, "before")
		start := time.Now()
		down := make(chan error, 1)
		go func() { down <- s.Shutdown(t.Context()) }()
		time.Sleep(4 * time.Second)
		require.Equal(t, start, <-told)
		during := dial(t, n, "10.0.0.1:80")
		wantEcho(t, during, "during")
		time.Sleep(2 * time.Second)
		_, err := n.DialContext(t.Context(), "tcp", "10.0.0.1:80")
		require.ErrorIs(t, err, syscall.ECONNREFUSED)
		wantEcho(t, before, "still here")
		before.Close()
		during.Close()
		require.NoError(t, <-down)
		require.ErrorIs(t, wait(), ErrServerClosed)
		require.Equal(t, 6*time.Second, time.Since(start))
	})
}

// TestLameDuckEndsEarly by the deadline of Shutdown, and by Close.
func TestLameDuckEndsEarly(t *testing.T) {
	world(t, func(t *testing.T, n *l4test.Network) {
		for _, byClose := range []bool{false, true} {
			s := &Server{LameDuck: time.Hour, Handler: echo}
			wait := serve(s, listen(t, n, "10.0.0.1:80"))
			c := dial(t, n, "10.0.0.1:80")
			wantEcho(t, c, "x")
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if byClose {
				time.AfterFunc(time.Second, func() { s.Close() })
			}
			start := time.Now()
			err := s.Shutdown(ctx)
			if byClose {
				require.NoError(t, err)
				require.Equal(t, time.Second, time.Since(start))
			} else {
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.Equal(t, time.Minute, time.Since(start))
			}
			require.ErrorIs(t, wait(), ErrServerClosed)
			wantError(t, c, syscall.ECONNRESET)
		}
	})
}

// lateListener returns from Accept what it has accepted only when it may.
type lateListener struct {
	net.Listener
	may chan struct{}
}

func (l *lateListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		<-l.may
	}
	return c, err
}

// TestShutdownServesWhatIsBeingAccepted: a connection that Accept is about to return
// when Shutdown begins has left the backlog; the client knows nothing and is served.
func TestShutdownServesWhatIsBeingAccepted(t *testing.T) {
	world(t, func(t *testing.T, n *l4test.Network) {
		s := &Server{Handler: echo}
		ln := &lateListener{listen(t, n, "10.0.0.1:80"), make(chan struct{})}
		wait := serve(s, ln)
		c := dial(t, n, "10.0.0.1:80")
		_, err := io.WriteString(c, "late")
		require.NoError(t, err)
		synctest.Wait()
		down := make(chan error, 1)
		go func() { down <- s.Shutdown(t.Context()) }()
		synctest.Wait()
		require.Empty(t, down)
		close(ln.may)
		wantRead(t, c, "late")
		require.Empty(t, down)
		c.Close()
		require.NoError(t, <-down)
		require.ErrorIs(t, wait(), ErrServerClosed)
	})
}

// TestCloseDoesNotWaitForAccept of a listener that takes its time.
func TestCloseDoesNotWaitForAccept(t *testing.T) {
	world(t, func(t *testing.T, n *l4test.Network) {
		s := &Server{Handler: echo}
		ln := &lateListener{listen(t, n, "10.0.0.1:80"), make(chan struct{})}
		wait := serve(s, ln)
		c := dial(t, n, "10.0.0.1:80")
		synctest.Wait()
		require.NoError(t, s.Close())
		close(ln.may)
		require.ErrorIs(t, wait(), ErrServerClosed)
		wantError(t, c, syscall.ECONNRESET)
	})
}

// TestAfterDraining finds every server that a connection has passed, whatever is
// around it, and calls f once.
func TestAfterDraining(t *testing.T) {
	world(t, func(t *testing.T, n *l4test.Network) {
		passed := new(Listener)
		outer, got := &Server{Handler: passed, Logger: quiet}, make(chan net.Conn, 1)
		inner := &Server{Logger: quiet, Handler: HandlerFunc(func(_ context.Context, c net.Conn) error { got <- c; return nil })}
		waitOuter, waitInner := serve(outer, listen(t, n, "10.0.0.1:80")), serve(inner, passed)
		dial(t, n, "10.0.0.1:80")
		c := <-got
		wrapped := tls.Server(c, &tls.Config{})
		calls := 0
		AfterDraining(wrapped, func() { calls++ })
		AfterDraining(wrapped, func() { panic("of the host's") })
		require.Zero(t, calls)
		down := make(chan error, 2)
		go func() { down <- outer.Shutdown(t.Context()) }()
		synctest.Wait()
		require.Equal(t, 1, calls)
		AfterDraining(c, func() { calls += 10 })
		require.Equal(t, 11, calls, "at once if it drains already")
		go func() { down <- inner.Shutdown(t.Context()) }()
		synctest.Wait()
		require.Equal(t, 11, calls)
		c.Close()
		require.NoError(t, <-down)
		require.NoError(t, <-down)
		require.ErrorIs(t, waitOuter(), ErrServerClosed)
		require.ErrorIs(t, waitInner(), ErrServerClosed)
		a, b := net.Pipe()
		AfterDraining(a, func() { t.Error("no server of ours") })
		a.Close()
		b.Close()
	})
}
