// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4"
)

// looseUpConn returns a connection to a server that no host keeps.
func looseUpConn(t *testing.T) (c *upConn, server net.Conn) {
	nc, server := net.Pipe()
	t.Cleanup(func() { _, _ = nc.Close(), server.Close() })
	u := new(Upstream)
	u.init()
	return &upConn{host: &upHost{up: u, conns: make(map[*upConn]struct{})}, c: l4.NewConn(nc)}, server
}

// Who interrupts a source while it becomes a tunnel ends the tunnel.
func TestTunnelOpenedBehindAnInterrupt(t *testing.T) {
	c, _ := looseUpConn(t)
	c.interrupted.Store(true) // and the deadline is set just before open lifts it
	c.open()
	_, err := c.read(make([]byte, 1), 0) // no limit: nothing else sets a deadline
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.ErrorIs(t, c.write([]byte("x"), 0), os.ErrDeadlineExceeded)
}

// The pump may give up on a server just after the wait for a head has looked at it. The
// next wait, which has no limit of its own, sees that.
func TestPumpGivesUpBetweenTwoLooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := looseUpConn(t)
		c.pump = &pump{limit: time.Minute, done: make(chan struct{})}
		c.pump.stuck.Store(true)
		close(c.pump.done)
		x := new(Exchange)
		x.down = &noClient{ctx: t.Context(), x: x}
		ended := make(chan error, 1)
		go func() {
			ended <- c.awaitHead(&attempt{x: x, p: &Proxy{HeaderTimeout: -1}, up: c.host.up}, new(try), time.Now())
		}()
		select {
		case err := <-ended:
			require.Equal(t, errStuck, err)
		case <-time.After(time.Hour):
			t.Error("it waits for ever")
		}
	})
}

// What was read behind the head is given away once, and its buffer with it.
func TestTunnelGivesAwayWhatWasReadAhead(t *testing.T) {
	c, server := looseUpConn(t)
	for _, failing := range []error{nil, io.ErrClosedPipe} {
		c.in = input{c.host.up.pool.Get(), 1}
		c.in.buf.B = append(c.in.buf.B[:0], "Xearly"...)
		got := ""
		err := c.takeEarly(func(p []byte) error {
			got = string(p)
			return failing
		})
		require.Equal(t, failing, err)
		require.Equal(t, "early", got)
		require.Zero(t, c.in)
	}
	require.NoError(t, c.takeEarly(func([]byte) error { return errors.New("there is nothing") }))

	c.in = input{c.host.up.pool.Get(), 1}
	c.in.buf.B = append(c.in.buf.B[:0], "Xab"...)
	go func() { _, _ = server.Write([]byte("c")) }()
	for _, want := range []string{"a", "b", "c"} {
		p := make([]byte, 1)
		n, err := c.read(p, time.Minute)
		require.NoError(t, err)
		require.Equal(t, want, string(p[:n]))
	}
	require.Zero(t, c.in)
	c.leave()
	require.True(t, c.lost())
}

// What goes wrong with the request's body on the client's side ends the wait for
// the reply's by a deadline: that is the client's doing.
func TestReplyEndedByTheRequestsBody(t *testing.T) {
	c, _ := looseUpConn(t)
	bad := errors.New("of the client")
	late := &net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}
	require.Equal(t, late, c.endedBy(late))
	c.pump = new(pump)
	require.Equal(t, late, c.endedBy(late))
	require.False(t, c.readOver())
	c.pump.fromClient.Store(&bad)
	require.True(t, c.readOver())
	require.Equal(t, io.EOF, c.endedBy(io.EOF))
	ce, ok := errors.AsType[*clientError](c.endedBy(late))
	require.True(t, ok)
	require.Equal(t, bad, ce.error)
	require.False(t, c.sendOver())
	c.enough.Store(true)
	require.True(t, c.sendOver())
	c.enough.Store(false)
	c.cut("test")
	require.True(t, c.sendOver())
	c.pump = nil
	require.True(t, c.readOver())
}

// What a Transport tells of a reply's protocol and framing comes from its source.
func TestSourcesTellProtocolAndFraming(t *testing.T) {
	c, _ := looseUpConn(t)
	for left, chunked := range map[int64]bool{-1: true, untilClose: false, 5: false, 0: false} {
		c.left = left
		require.Equal(t, chunked, c.chunked())
	}
	require.Equal(t, "1.1", c.version())
	require.Nil(t, c.tunnel(http.MethodGet))
	c.rep.Status = http.StatusOK
	require.NotNil(t, c.tunnel(http.MethodConnect))
	c.rep.Status = http.StatusSwitchingProtocols
	require.NotNil(t, c.tunnel(http.MethodGet))
	require.Equal(t, "2.0", new(h2Stream).version())
	require.Nil(t, new(h2Stream).tunnel(http.MethodConnect))
	require.False(t, new(h2Stream).chunked())
}

// A long body that moves inside the kernel is counted, and leaves both connections
// ready for the next request.
func TestLongReplyOverTCPIsCounted(t *testing.T) {
	const size = 2 << 20
	origin, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	long := bytes.Repeat([]byte("x"), size)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", formatInt(size))
		_, _ = w.Write(long)
	})}
	go server.Serve(origin)
	defer server.Close()
	pool := new(balance.Pool)
	require.NoError(t, pool.Set(balance.Endpoint{Addr: origin.Addr().String()}))
	records := make(chan Record, 2)
	front := &Server{
		Handler: &Proxy{Pool: pool}, Logger: slog.New(slog.DiscardHandler),
		OnDone: func(r *Record) { records <- *r },
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go front.Serve(ln)
	defer front.Close()
	nc, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(20 * time.Second))
	br := bufio.NewReader(nc)
	for i := range 2 {
		_, _ = io.WriteString(nc, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
		res, err := http.ReadResponse(br, nil)
		require.NoError(t, err)
		n, err := io.Copy(io.Discard, res.Body)
		require.NoError(t, err)
		require.EqualValues(t, size, n)
		r := <-records
		require.EqualValues(t, size, r.BytesOut)
		require.Equal(t, l4.Normal, r.Termination.Cause)
		require.Equal(t, i > 0, r.Reused)
	}
}

// What follows a 101 is a tunnel, whatever an editor calls it.
func TestEditorCannotRenameATunnel(t *testing.T) {
	origin, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer origin.Close()
	go func() {
		c, err := origin.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = http.ReadRequest(bufio.NewReader(c))
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello")
	}()
	pool := new(balance.Pool)
	require.NoError(t, pool.Set(balance.Endpoint{Addr: origin.Addr().String()}))
	proxy := &Proxy{Pool: pool}
	front := &Server{Logger: slog.New(slog.DiscardHandler), Handler: HandlerFunc(func(x *Exchange) {
		x.OnReply(ReplyFunc(func(_ *Exchange, r *Reply) {
			r.Status = http.StatusOK
			r.Header.Set("X-Edited", "yes")
		}))
		proxy.ServeExchange(x)
	})}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go front.Serve(ln)
	defer front.Close()
	nc, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(20 * time.Second))
	_, _ = io.WriteString(nc, "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	br := bufio.NewReader(nc)
	res, err := http.ReadResponse(br, nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusSwitchingProtocols, res.StatusCode)
	require.Equal(t, "yes", res.Header.Get("X-Edited"))
	rest, err := io.ReadAll(br)
	require.NoError(t, err)
	require.Equal(t, "hello", string(rest))
}

// lateReply is a client's side whose writes are late.
type lateReply struct{ noClient }

func (*lateReply) replyLate() bool { return true }

// A client that takes nothing for too long shows as one that is gone. What the
// server does is not put on a client that is late besides.
func TestLateReplyIsTheClientsDoing(t *testing.T) {
	for _, c := range []struct {
		err   error
		want  l4.Cause
		class balance.Class
		limit string
	}{
		{&clientError{io.ErrClosedPipe}, l4.ClientTimeout, balance.ClientAborted, "Proxy.BodyTimeout"},
		{io.ErrUnexpectedEOF, l4.ServerAborted, balance.Reset, ""},
		{os.ErrDeadlineExceeded, l4.ServerTimeout, balance.Timeout, "Proxy.BodyTimeout"},
		{&panicError{"boom"}, l4.Internal, balance.ClientAborted, ""},
	} {
		u, _ := looseUpConn(t)
		x := &Exchange{}
		x.down = &lateReply{noClient{ctx: t.Context(), x: x}}
		tr := &attempt{x: x, p: new(Proxy), up: u.host.up}
		tr.cut(u, c.err)
		require.Equal(t, endOf(c.want, l4.PhaseData), x.Record.Termination)
		require.Equal(t, c.class, tr.try.outcome.Class)
		te, _ := errors.AsType[*TimeoutError](x.Record.Err)
		require.Equal(t, c.limit != "", te != nil)
		require.True(t, te == nil || te.Field == c.limit, "%v", x.Record.Err)
	}
}
