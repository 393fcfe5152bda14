// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"context"
	"io"
	"net"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A lateWrite is a socket whose Write is told of a reset before a Read looks, and says
// so late.
type lateWrite struct {
	*net.TCPConn
	write  chan struct{} // closed when Write may begin
	failed chan error    // what Write will return
	say    chan struct{} // closed when it may
}

func (c *lateWrite) Write(p []byte) (int, error) {
	<-c.write
	n, err := c.TCPConn.Write(p)
	c.failed <- err
	<-c.say
	return n, err
}

func (c *lateWrite) Read(p []byte) (int, error) {
	<-c.write
	err := <-c.failed
	c.failed <- err
	return c.TCPConn.Read(p)
}

// An endedConn tells of CloseWrite.
type endedConn struct {
	net.Conn
	ended chan struct{}
}

func (c endedConn) CloseWrite() error {
	close(c.ended)
	return nil
}

// TestRelayTakesNoResetForAnEnd: the kernel tells of a reset once. If that is the write
// of one direction, the read of the other finds an end, which is none to pass on: a part
// would be taken for the whole.
func TestRelayTakesNoResetForAnEnd(t *testing.T) {
	for _, of := range []string{"server", "client"} {
		t.Run(of, func(t *testing.T) {
			bare, peer := sockets(t)
			broken := &lateWrite{bare, make(chan struct{}), make(chan error, 1), make(chan struct{})}
			near, far := net.Pipe()
			other := endedConn{near, make(chan struct{})}
			a, b := NewConn(other), NewConn(broken)
			if of == "client" {
				a, b = b, a
			}
			r := &relay{}
			ended := make(chan struct{})
			r.init(a, b, (&RelayOptions{}).complete(), func(*relay) { close(ended) })
			writes, reads := &r.up, &r.down
			if of == "client" {
				writes, reads = reads, writes
			}
			go r.run(nil)
			_, err := far.Write([]byte("a part"))
			require.NoError(t, err)
			require.NoError(t, peer.SetLinger(0))
			require.NoError(t, peer.Close())
			wantSoon(t, func() bool { return unconnected(broken) }, "no reset")
			close(broken.write)
			for end := time.Now().Add(10 * time.Second); writes.put.Load() != owing; runtime.Gosched() {
				select {
				case <-other.ended:
					t.Fatal("the end was passed on")
				default:
				}
				require.False(t, time.Now().After(end), "no end read")
			}
			close(broken.say)
			<-ended
			select {
			case <-other.ended:
				t.Fatal("the end was passed on")
			default:
			}
			require.True(t, reads.over && writes.over)
			require.True(t, r.aborted)
			require.ErrorIs(t, r.result().Err, syscall.ECONNRESET)
			far.Close()
		})
	}
}

// TestRelayPassesOnAnEndOfADeadSocket: what was written before the peer had gone for
// good leaves the end of its stream as it is.
func TestRelayPassesOnAnEndOfADeadSocket(t *testing.T) {
	r := &relay{}
	near, far := net.Pipe()
	defer far.Close()
	other := endedConn{near, make(chan struct{})}
	bare, _ := sockets(t)
	r.init(NewConn(other), NewConn(bare), (&RelayOptions{}).complete(), func(*relay) {})
	r.up.put.Store(owing) // the down direction has left its end to it
	r.up.settle()
	<-other.ended
	require.True(t, r.down.over)
	require.False(t, r.aborted)
}

// A brokenEnd is a connection whose reset is told of by CloseWrite, as one of TLS, so
// that Read finds an end.
type brokenEnd struct {
	net.Conn
	told chan struct{}
}

func (c brokenEnd) CloseWrite() error {
	close(c.told)
	return syscall.ECONNRESET
}

func (c brokenEnd) Read([]byte) (int, error) {
	<-c.told
	return 0, io.EOF
}

// TestRelayHearsOfAResetByCloseWrite: a reset that passing on an end has found is not
// followed by a good end.
func TestRelayHearsOfAResetByCloseWrite(t *testing.T) {
	for _, of := range []string{"server", "client"} {
		near, far := net.Pipe()
		bare, _ := net.Pipe()
		a, b := NewConn(near), NewConn(brokenEnd{bare, make(chan struct{})})
		want := Termination{ServerAborted, PhaseData}
		if of == "client" {
			a, b, want = b, a, Termination{ClientAborted, PhaseData}
		}
		r := &relay{}
		ended := make(chan struct{})
		r.init(a, b, (&RelayOptions{}).complete(), func(*relay) { close(ended) })
		go r.run(nil)
		require.NoError(t, far.Close())
		<-ended
		require.Equal(t, want, r.result().Termination)
		require.True(t, r.aborted)
		require.Equal(t, of == "server", r.late)
	}
}

func sockets(t *testing.T) (near, far *net.TCPConn) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	c, err := new(net.Dialer).DialContext(context.Background(), "tcp", ln.Addr().String())
	require.NoError(t, err)
	d, err := ln.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { c.Close(); d.Close() })
	return c.(*net.TCPConn), d.(*net.TCPConn)
}
