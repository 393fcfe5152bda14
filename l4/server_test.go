// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/stretchr/testify/require"
)

// world is a bubble with a network and a server at 10.0.0.1:80.
func world(t *testing.T, f func(t *testing.T, n *l4test.Network)) {
	synctest.Test(t, func(t *testing.T) { f(t, l4test.NewNetwork()) })
}

func listen(t *testing.T, n *l4test.Network, addr string) net.Listener {
	t.Helper()
	ln, err := n.Listen("tcp", addr)
	require.NoError(t, err)
	return ln
}

func dial(t *testing.T, n *l4test.Network, addr string) *l4test.Conn {
	t.Helper()
	c, err := n.DialContext(t.Context(), "tcp", addr)
	require.NoError(t, err)
	return c.(*l4test.Conn)
}

// serve has s serve ln, and returns a function that waits for the end.
func serve(s *Server, ln net.Listener) (wait func() error) {
	done := make(chan error, 1)
	go func() { done <- s.Serve(ln) }()
	return func() error { return <-done }
}

var quiet = slog.New(slog.DiscardHandler)

// echo is a Handler.
var echo = HandlerFunc(func(ctx context.Context, c net.Conn) error {
	defer c.Close()
	io.Copy(onlyWriter{c}, onlyReader{c}) // the pipes of splice would stay open for a while
	return nil
})

func wantEcho(t *testing.T, c net.Conn, text string) {
	t.Helper()
	_, err := io.WriteString(c, text)
	require.NoError(t, err)
	p := make([]byte, len(text))
	_, err = io.ReadFull(c, p)
	require.NoError(t, err)
	require.Equal(t, text, string(p))
}

func TestServerShutdown(t *testing.T) {
	world(t, func(t *testing.T, n *l4test.Network) {
		s := &Server{Handler: echo}
		wait := serve(s, listen(t, n, "10.0.0.1:80"))
		wait2 := serve(s, listen(t, n, "10.0.0.1:81"))
		c, c2 := dial(t, n, "10.0.0.1:80"), dial(t, n, "10.0.0.1:81")
		wantEcho(t, c, "one")
		wantEcho(t, c2, "two")
		require.Equal(t, 2, s.Open())

		time.AfterFunc(time.Minute, func() { c.Close() })
		time.AfterFunc(2*time.Minute, func() { c2.Close() })
		start := time.Now()
		require.NoError(t, s.Shutdown(t.Context()), "nothing was cut")
		require.Equal(t, 2*time.Minute, time.Since(start))
		require.ErrorIs(t, wait(), ErrServerClosed)
		require.ErrorIs(t, wait2(), ErrServerClosed)
		require.Zero(t, s.Open())
		_, err := n.DialContext(t.Context(), "tcp", "10.0.0.1:80")
		require.ErrorIs(t, err, syscall.ECONNREFUSED)
		require.ErrorIs(t, s.Serve(listen(t, n, "10.0.0.1:82")), ErrServerClosed)
		require.NoError(t, s.Close())
	})
}

func TestServerShutdownCuts(t *testing.T) {
	world(t, func(t *testing.T, n *l4test.Network) {
		told := make(chan struct{})
		var records []Record
		s := &Server{
			Handler: HandlerFunc(func(ctx context.Context, c net.Conn) error {
				<-Draining(ctx)
				close(told)
				<-ctx.Done()
				if context.Cause(ctx) != ErrServerClosed {
					t.Errorf("cause is %v", context.Cause(ctx))
				}
				return nil // c was closed by the server
			}),
			OnDone: func(r *Record) { records = append(records, Record{Termination: r.Termination, Total: r.Total}) },
		}
		wait := serve(s, listen(t, n, "10.0.0.1:80"))
		c := dial(t, n, "10.0.0.1:80")
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		require.ErrorIs(t, s.Shutdown(ctx), context.DeadlineExceeded)
		<-told
		require.ErrorIs(t, wait(), ErrServerClosed)
		wantError(t, c, syscall.ECONNRESET) // and not the end, as if nothing was amiss
		require.Equal(t, []Record{{Termination: Termination{Killed, PhaseData}, Total: 10 * time.Second}}, records)
	})
}

// TestServerConnOutlivesServeConn hands connections on: they count until
// they are closed.
func TestServerConnOutlivesServeConn(t *testing.T) {
	world(t, func(t *testing.T, n *l4test.Network) {
		handed := make(chan net.Conn, 1)
		s := &Server{MaxConns: 1, Handler: HandlerFunc(func(ctx context.Context, c net.Conn) error {
			handed <- c
			return nil
		})}
		wait := serve(s, listen(t, n, "10.0.0.1:80"))
		dial(t, n, "10.0.0.1:80")
		dial(t, n, "10.0.0.1:80")
		first := <-handed
		synctest.Wait()
		require.Empty(t, handed, "the second waits in the backlog")
		first.Close()
		second := <-handed
		require.Equal(t, 1, s.Open())
		time.AfterFunc(time.Second, func() { second.Close() })
		require.NoError(t, s.Shutdown(t.Context()))
		require.ErrorIs(t, wait(), ErrServerClosed)
	})
}

func TestServerAcceptErrors(t *testing.T) {
	world(t, func(t *testing.T, n *l4test.Network) {
		s := &Server{Handler: echo, Logger: quiet}
		ln := listen(t, n, "10.0.0.1:80")
		ln.(*l4test.Listener).FailAccept(9, syscall.EMFILE)
		wait := serve(s, ln)
		start := time.Now()
		wantEcho(t, dial(t, n, "10.0.0.1:80"), "at last")
		require.Equal(t, (5+10+20+40+80+160+320+640+1000)*time.Millisecond, time.Since(start))

		ln.(*l4test.Listener).FailAccept(1, errors.New("broken"))
		dial(t, n, "10.0.0.1:80")
		require.EqualError(t, wait(), "l4: accept: accept tcp 10.0.0.1:80: broken")
		s.Close()

		s = &Server{Handler: echo, Logger: quiet}
		ln = listen(t, n, "10.0.0.1:80")
		ln.(*l4test.Listener).FailAccept(100, syscall.EMFILE)
		wait = serve(s, ln)
		synctest.Wait()
		s.Close()
		require.ErrorIs(t, wait(), ErrServerClosed, "does not sleep on")
	})
}

func TestServerHandlerPanics(t *testing.T) {
	world(t, func(t *testing.T, n *l4test.Network) {
		var term atomic.Value
		s := &Server{
			Logger:  quiet,
			Handler: HandlerFunc(func(context.Context, net.Conn) error { panic("oops") }),
			OnDone:  func(r *Record) { term.Store(r.Termination.String() + " " + r.Err.Error()) },
		}
		serve(s, listen(t, n, "10.0.0.1:80"))
		c := dial(t, n, "10.0.0.1:80")
		wantError(t, c, syscall.ECONNRESET)
		require.NoError(t, s.Close())
		require.Equal(t, "IR l4: panic: oops", term.Load())
	})
}

func TestServerNested(t *testing.T) {
	world(t, func(t *testing.T, n *l4test.Network) {
		pass := make(chan net.Conn)
		outer := &Server{Handler: HandlerFunc(func(ctx context.Context, c net.Conn) error { pass <- c; return nil })}
		inner := &Server{Handler: echo}
		ln := &chanListener{conns: pass, closed: make(chan struct{})}
		serve(outer, listen(t, n, "10.0.0.1:80"))
		serve(inner, ln)
		c := dial(t, n, "10.0.0.1:80")
		wantEcho(t, c, "through both")
		require.Equal(t, 1, outer.Open())
		require.Equal(t, 1, inner.Open())
		c.Close()
		require.NoError(t, outer.Shutdown(t.Context()))
		require.NoError(t, inner.Shutdown(t.Context()))
	})
}

// chanListener accepts what comes from a channel.
type chanListener struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (l *chanListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}
func (l *chanListener) Close() error {
	select {
	case <-l.closed:
	default:
		close(l.closed)
	}
	return nil
}
func (l *chanListener) Addr() net.Addr { return &net.TCPAddr{} }

func TestRecordOf(t *testing.T) {
	a, _ := tcpPair(t)
	c := NewConn(a)
	require.Nil(t, RecordOf(c))
	RecordOf(c).End(Termination{Denied, PhaseRequest}, nil)
	c.member.server, c.member.record = &Server{}, newRecord()
	require.Same(t, c.member.record, RecordOf(struct{ wrapped }{wrapped{c, c}}))
	RecordOf(c).End(Termination{Denied, PhaseRequest}, nil)
	RecordOf(c).End(Termination{Killed, PhaseData}, io.EOF)
	require.Equal(t, "PR", c.member.record.Termination.String())
	c.member.server = nil
}

type wrapped struct {
	net.Conn
	c net.Conn
}

func (w wrapped) NetConn() net.Conn { return w.c }
