// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"

	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7/internal/h2"
)

// The tests below replay, step by step, what once went wrong between a connection
// of the byte front and those that look at it meanwhile.

// deadlineConn tells of read deadlines in the past, and waits until it is let go on.
type deadlineConn struct {
	net.Conn
	begun, goOn chan struct{} // nil: does not wait
	last        atomic.Pointer[time.Time]
}

func (c *deadlineConn) SetReadDeadline(t time.Time) error {
	if c.begun != nil && t.Equal(past) {
		close(c.begun)
		<-c.goOn
	}
	c.last.Store(&t)
	return nil
}

// idleByteConn returns a connection without a goroutine, of a server that serves.
func idleByteConn(t *testing.T, nc net.Conn) *byteConn {
	s := new(Server)
	s.init()
	c := &byteConn{srv: s, raw: nc, nc: nc, c: l4.NewConn(nc)}
	c.ctx, c.cancel = context.WithCancel(t.Context())
	c.takeWork()
	s.mu.Lock()
	s.conns.add(c)
	s.mu.Unlock()
	return c
}

// Who wakes while the wait is being ended waits for the deadline in the past: set
// later, it would end the exchange that follows.
func TestWakeWaitsForWhoInterrupts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nc := &deadlineConn{begun: make(chan struct{}), goOn: make(chan struct{})}
		nc.Conn, _ = net.Pipe()
		c := idleByteConn(t, nc)
		c.state.rest(1)
		go c.interruptIdle()
		<-nc.begun
		var woke atomic.Bool
		interrupted := make(chan bool, 1)
		go func() {
			i := c.goBusy()
			woke.Store(true)
			interrupted <- i
		}()
		for range 1000 { // a goroutine that waits for a mutex is not idle to synctest
			runtime.Gosched()
			require.False(t, woke.Load())
		}
		close(nc.goOn)
		require.True(t, <-interrupted)
		require.True(t, nc.last.Load().Equal(past))
		require.Equal(t, past, c.readAt.at, "the next deadline is set, whatever was before")
		require.True(t, c.state.is(stateBusy))
		c.interruptIdle() // too late: there is no wait
		require.True(t, c.state.is(stateBusy))
	})
}

// A connection is settled when it has idled for a whole period. One that is settled
// already, with a goroutine that waits, is left to its deadline.
func TestSettledConnectionIsLeftToItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nc := new(deadlineConn)
		nc.Conn, _ = net.Pipe()
		c := idleByteConn(t, nc)
		w := &c.srv.sweeper
		w.armed.Store(true) // the test sweeps
		c.goIdle()
		w.sweep(c.srv)
		require.True(t, c.state.is(stateIdle), "it may have begun just now")
		require.True(t, w.armed.Load(), "it is looked at again")
		w.sweep(c.srv)
		require.True(t, c.state.is(stateInterrupted))
		require.True(t, c.goBusy())
		c.settled = true
		w.armed.Store(true)
		c.goIdle()
		for range 10 {
			w.sweep(c.srv)
			require.True(t, c.state.is(stateIdle))
		}
		require.False(t, w.armed.Load(), "there is nothing to look at")
		time.Sleep(time.Second)
		require.True(t, c.state.is(stateIdle))
	})
}

// pairOfTCP returns both ends of a connection that a Parker can look after.
func pairOfTCP(t *testing.T) (server, client net.Conn) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	client, err = net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	server, err = ln.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { _, _ = server.Close(), client.Close() })
	return server, client
}

// Shutdown has looked at the connections just before one parks, or waits: that
// one sees it, and ends.
func TestShutdownBetweenLookAndPark(t *testing.T) {
	nc, _ := pairOfTCP(t)
	c := idleByteConn(t, nc)
	c.watch() // starts the Parker
	defer c.srv.parking.close()
	c.leaving.begun.Store(true)
	c.srv.stopping.Store(true)
	require.False(t, c.park())
	require.True(t, c.state.is(stateBusy), "or who looks at it would take it for the Parker's")
	more, idle := c.waitRequest()
	require.False(t, more)
	require.False(t, idle)
	require.True(t, c.state.is(stateBusy))
}

// A connection that is parked ends after IdleTimeout, unless there is none.
func TestSweeperEndsWhatIsParkedForTooLong(t *testing.T) {
	for limit, ends := range map[time.Duration]bool{time.Minute: true, -1: false} {
		nc, _ := pairOfTCP(t)
		c := idleByteConn(t, nc)
		c.srv.IdleTimeout = limit
		c.srv.sweeper.armed.Store(true)
		c.srv.sweeper.start = time.Now().Add(-time.Hour)
		c.state.park(58*time.Minute + 30*time.Second)
		c.srv.stopping.Store(true) // the test sweeps
		c.srv.sweeper.sweep(c.srv)
		err := nc.SetReadDeadline(time.Now())
		require.Equal(t, ends, err != nil, "IdleTimeout of %v", limit)
	}
}

// The watch of a connection begins late: by then it may be handed on.
func TestLateWatchOfAConnectionHandedOn(t *testing.T) {
	nc, peer := pairOfTCP(t)
	c := idleByteConn(t, nc)
	c.watch()
	defer c.srv.parking.close()
	if c.watched == nil {
		t.Skip("no Parker on this system")
	}
	c.unwatch()
	c.watchNow()
	_ = peer.Close()
	_, err := nc.Read(make([]byte, 1)) // it has arrived
	require.Error(t, err)
	require.False(t, c.gone.Load())
	require.NoError(t, c.ctx.Err())
}

// The pump may come to the end of the request's body just when the exchange has
// ended its peek: no other must begin, beside the read of the next request.
func TestNoPeekBehindTheExchange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nc, _ := net.Pipe()
		c := idleByteConn(t, nc)
		c.beginPeek()
		require.NotNil(t, c.peek)
		c.stopPeek()
		c.startPeek() // by who has read the body
		require.Nil(t, c.peek)
		time.Sleep(2 * peekAfter)
		c.beginPeek()
		require.NotNil(t, c.peek)
		time.Sleep(2 * peekAfter) // it reads
		p := c.peek
		c.stopPeek()
		select {
		case <-p.done:
		default:
			t.Error("it reads still")
		}
		require.Equal(t, past, c.readAt.at, "its read was ended by a deadline")
		require.False(t, c.gone.Load(), "which does not mean that the client is gone")

		c.beginPeek()
		p = c.peek
		c.stopPeek()
		p.timer.Reset(1) // it had gone off just before it was stopped
		time.Sleep(time.Second)
		require.Nil(t, p.done, "it begins behind its end")

		c.req.left = 5
		c.beginPeek()
		require.Nil(t, c.peek, "the body is there to be read")
		_ = nc.Close()
	})
}

type interruptCounter struct{ n atomic.Int32 }

func (i *interruptCounter) interrupt() { i.n.Add(1) }

// The client may go away before the server's side is attached, while it is, and
// behind that.
func TestClientGoneAroundAttach(t *testing.T) {
	nc, _ := net.Pipe()
	defer nc.Close()
	for name, steps := range map[string]struct {
		before, within bool
		want           int32
	}{
		"before": {before: true, want: 1}, "within": {within: true, want: 1}, "behind": {want: 0},
	} {
		c := idleByteConn(t, nc)
		up := new(interruptCounter)
		if steps.before {
			c.clientGone()
		}
		c.attach(up)
		if steps.within {
			c.clientGone()
		}
		require.True(t, c.detach())
		if !steps.before && !steps.within {
			c.clientGone()
		}
		require.Equal(t, steps.want, up.n.Load(), name)
		require.True(t, c.gone.Load())
		require.Error(t, c.ctx.Err())
	}
}

// What a pump has been made to stop reading is not read again, but a body that
// nobody has begun to read is there to be drained.
func TestBodyStoppedBehindItsReader(t *testing.T) {
	nc, _ := net.Pipe()
	defer nc.Close()
	for _, touched := range []bool{false, true} {
		c := idleByteConn(t, nc)
		c.req.left, c.req.touched = 5, touched
		c.stopBody()
		_, err := c.readBody(make([]byte, 5))
		require.Equal(t, errStopped, err, "or it would pass for the client's doing")
		c.req.touched, c.req.failed = touched, false
		c.resumeBody()
		require.Equal(t, touched, c.req.failed)
		require.Equal(t, past, c.readAt.at)
		c.req.failed = false
		c.resumeBody() // of a body that was not stopped: nothing
		require.False(t, c.req.failed)
	}
}

// endlessReads counts reads, which give zeros for ever, and drops what is written.
type endlessReads struct {
	net.Conn
	reads   int
	written bool // before the first read
}

func (c *endlessReads) Read(p []byte) (int, error)       { c.reads++; clear(p); return len(p), nil }
func (c *endlessReads) Write(p []byte) (int, error)      { c.written = c.reads == 0; return len(p), nil }
func (c *endlessReads) SetReadDeadline(time.Time) error  { return nil }
func (c *endlessReads) SetWriteDeadline(time.Time) error { return nil }

// The rest of a body is read only where another request may follow.
func TestDrainOnlyForTheNextRequest(t *testing.T) {
	nc := new(endlessReads)
	nc.Conn, _ = net.Pipe()
	for _, e := range []ending{endsNot, endsClosed, endsLate} {
		c := idleByteConn(t, nc)
		c.unpeeked = true
		c.req.left, c.ends, nc.reads = 5, e, 0
		require.Equal(t, e == endsNot, c.drain())
		require.Equal(t, e == endsNot, nc.reads > 0)
	}
	c := idleByteConn(t, nc)
	c.unpeeked = true
	c.req.left, nc.reads = maxUnread+1, 0
	require.False(t, c.drain(), "too much to come")
	require.Zero(t, nc.reads)
	c.req.left = 5
	c.room().B = append(c.room().B, "HTTP/1.1 200 OK"...)
	require.True(t, c.drain())
	require.True(t, nc.written, "the client may wait for it before it sends the rest")
}

// A client that goes away while its request is served gets no further one served,
// though that has come already.
func TestNoRequestBehindAClientThatIsGone(t *testing.T) {
	for _, gone := range []bool{false, true} {
		nc := &sayingConn{said: strings.Repeat("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n", 3)}
		nc.Conn, _ = net.Pipe()
		c := idleByteConn(t, nc)
		served := 0
		c.srv.Handler = exchangeFunc(func(x *Exchange) {
			if served++; served == 2 && gone {
				c.clientGone()
			}
			x.Respond(http.StatusOK, nil, "")
		})
		require.True(t, c.srv.slot())
		c.srv.wg.Add(1)
		c.loop()
		require.Equal(t, map[bool]int{false: 3, true: 2}[gone], served)
	}
}

// sayingConn says something, and ends.
type sayingConn struct {
	net.Conn
	said string
}

func (c *sayingConn) Read(p []byte) (int, error) {
	n := copy(p, c.said)
	if c.said = c.said[n:]; n == 0 {
		return 0, io.EOF
	}
	return n, nil
}
func (c *sayingConn) Write(p []byte) (int, error)      { return len(p), nil }
func (c *sayingConn) SetReadDeadline(time.Time) error  { return nil }
func (c *sayingConn) SetWriteDeadline(time.Time) error { return nil }

// exchangeFunc is a native handler.
type exchangeFunc func(x *Exchange)

func (f exchangeFunc) ServeExchange(x *Exchange)                        { f(x) }
func (f exchangeFunc) ServeHTTP(w http.ResponseWriter, r *http.Request) { ServeHTTP(f, w, r) }

// What ends a connection says how.
func TestWaysToEndAConnection(t *testing.T) {
	nc := new(endlessReads)
	nc.Conn, _ = net.Pipe()
	c := idleByteConn(t, nc)
	c.mustClose()
	require.Equal(t, endsLate, c.ends, "the client may be sending still")
	c = idleByteConn(t, nc)
	_, _, err := c.hijack(&Reply{Status: http.StatusSwitchingProtocols})
	require.NoError(t, err)
	require.Equal(t, endsHanded, c.ends)
}

// The deadlines of a foreign handler end with it.
func TestHandlersDeadlinesEndWithIt(t *testing.T) {
	nc := new(meanwhileConn)
	nc.Conn, _ = net.Pipe()
	c := idleByteConn(t, nc)
	later := time.Now().Add(time.Hour)
	require.NoError(t, c.setReadDeadline(later))
	require.NoError(t, c.setWriteDeadline(later))
	require.NoError(t, c.awaitBody())
	c.boundSend(time.Now(), time.Minute)
	require.Equal(t, []time.Time{later, later}, []time.Time{nc.read, nc.write})
	c.resetDeadlines()
	require.Equal(t, []time.Time{{}, {}}, []time.Time{nc.read, nc.write})
	require.NoError(t, c.awaitBody())
	c.boundSend(time.Now(), time.Minute)
	require.True(t, !nc.read.IsZero() && nc.read.Before(later) && !nc.write.IsZero() && nc.write.Before(later), "ours hold again")
}

// A connection that is not watched any more is not told of, whatever happens to it.
func TestUnwatchedIsNotToldOf(t *testing.T) {
	nc, peer := pairOfTCP(t)
	c := idleByteConn(t, nc)
	c.watch()
	defer c.srv.parking.close()
	c.watchNow()
	c.unwatch()
	require.Nil(t, c.watched)
	other, otherPeer := pairOfTCP(t)
	o := idleByteConn(t, other)
	o.srv = c.srv
	o.watch()
	o.watchNow()
	_, _ = peer.Close(), otherPeer.Close() // in this order
	<-o.ctx.Done()
	require.False(t, c.gone.Load())
	require.True(t, o.gone.Load())

	c.srv.late.watch()
	require.Empty(t, c.srv.late.conns, "each is watched once")
	c.srv.HalfClose = true
	c.watch()
	require.Nil(t, c.watched, "its end does not mean that the client is gone")
}

// A settled connection holds nothing, and one that could not be parked for its first
// request is not taken for settled.
func TestSettledConnectionHoldsNothing(t *testing.T) {
	nc, _ := pairOfTCP(t)
	c := idleByteConn(t, nc)
	c.watch()
	defer c.srv.parking.close()
	c.settle()
	require.Nil(t, c.work)
	require.True(t, c.state.is(stateParked))

	nc, _ = pairOfTCP(t)
	o := idleByteConn(t, nc)
	o.srv = c.srv
	o.leaving.begun.Store(true)
	c.srv.stopping.Store(true)
	require.False(t, o.await())
	require.False(t, o.settled)
}

// goodbyeConn takes its time to close, as TLS may whose peer reads nothing.
type goodbyeConn struct {
	net.Conn
	closed chan struct{}
}

func (c *goodbyeConn) Close() error {
	<-c.closed
	return c.Conn.Close()
}

// A close that waits for the client holds up neither the sweep nor Shutdown, which close
// many connections in turn.
func TestCloseOfParkedWaitsForNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nc := &goodbyeConn{closed: make(chan struct{})}
		nc.Conn, _ = net.Pipe()
		c := idleByteConn(t, nc)
		c.closeParked() // would never return
		close(nc.closed)
		synctest.Wait()
		_, err := nc.Write([]byte("x"))
		require.ErrorIs(t, err, io.ErrClosedPipe)
	})
}

// gatedConn holds back what is written until its gate is opened, if it has one.
type gatedConn struct {
	*l4test.Conn
	gate atomic.Pointer[chan struct{}]
}

func (c *gatedConn) Write(p []byte) (int, error) {
	if gate := c.gate.Load(); gate != nil {
		<-*gate
	}
	return c.Conn.Write(p)
}

// The GOAWAY is still being written, by another goroutine, when the reader finds that
// the connection is over: it waits, or the client would read its end first.
func TestEndOfHTTP2WaitsForItsGoAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, b := l4test.Pipe()
		server := &gatedConn{Conn: b}
		srv := &Server{Handler: HandlerFunc(func(x *Exchange) { x.Respond(200, nil, "ok") }), Logger: slog.New(slog.DiscardHandler)}
		defer srv.Close()
		_ = srv.Serve(&oneShot{conn: server})
		_, _ = io.WriteString(client, http2.ClientPreface)
		fr := http2.NewFramer(client, client)
		require.NoError(t, fr.WriteSettings())
		synctest.Wait()
		gate := make(chan struct{})
		server.gate.Store(&gate)
		c := onlyByteConn(srv)
		go c.http2().leave()
		synctest.Wait() // the reader has seen that the connection is over
		close(gate)
		last := http2.FrameType(0)
		for {
			f, err := fr.ReadFrame()
			if err != nil {
				require.ErrorIs(t, err, io.EOF)
				break
			}
			last = f.Header().Type
		}
		require.Equal(t, http2.FrameGoAway, last)
	})
}

func onlyByteConn(s *Server) *byteConn {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns.all() {
		return c
	}
	return nil
}

// What is about to be written to a connection that is settled meanwhile is not lost.
func TestSettledHTTP2KeepsItsGoAway(t *testing.T) {
	client, b := l4test.Pipe()
	k := new(h2Link)
	k.start(l4.NewConn(b), false, time.Second, &h2.Config{MaxStreams: 1, MaxFrame: h2.MinMaxFrame, MaxBlock: 1 << 10, StreamWindow: h2StreamWindow, MaxWindow: h2MaxWindow, ConnWindow: h2ConnWindow(1)}, func(error) {}, func(f func()) { f() })
	k.flush()
	k.mu.Lock()
	k.h2.Leave(false, h2.NoError, "")
	k.mu.Unlock()
	k.rest()
	k.flush()
	require.NoError(t, b.Close())
	all, err := io.ReadAll(client)
	require.NoError(t, err)
	require.Contains(t, string(all), string([]byte{7 /* GOAWAY */, 0, 0, 0, 0, 0}))
}
