// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// In tests, all socks join a poller of this package.
func init() { joined.Add(few) }

// withRuntime makes all socks join the runtime's poller until the end of the test.
func withRuntime(t testing.TB) {
	joined.Add(-1 << 20)
	t.Cleanup(func() { joined.Add(1 << 20) })
}

// polledPair returns a Conn over a sock in a poller of this package, and its peer.
func polledPair(t testing.TB, network string) (c *Conn, s *sock, peer net.Conn) {
	addr := "127.0.0.1:0"
	if network == "unix" {
		addr = t.TempDir() + "/s"
	}
	ln, err := net.Listen(network, addr)
	require.NoError(t, err)
	defer ln.Close()
	nc, err := net.Dial(network, ln.Addr().String())
	require.NoError(t, err)
	c = NewConn(Adopt(nc))
	s, ok := c.nc.(*sock)
	require.True(t, ok, "%T", c.nc)
	peer, err = ln.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { c.Close(); peer.Close() })
	_, err = peer.Write([]byte("hello"))
	require.NoError(t, err)
	hello := make([]byte, 100)
	n, err := c.Read(hello)
	require.NoError(t, err)
	require.Equal(t, "hello", string(hello[:n]))
	require.NoError(t, c.SetReadDeadline(time.Now().Add(-time.Second)))
	_, err = c.Read(hello) // joins, since that has passed
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.NoError(t, c.SetReadDeadline(time.Time{}))
	require.NotNil(t, s.polled())
	return c, s, peer
}

func TestPolledReadsAndWrites(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		c, _, peer := polledPair(t, network)
		go func() {
			b := make([]byte, 3<<20)
			_, err := io.ReadFull(peer, b)
			assert.NoError(t, err)
			_, err = peer.Write(b)
			assert.NoError(t, err)
			peer.Close()
		}()
		sent := make([]byte, 3<<20)
		for i := range sent {
			sent[i] = byte(rand.Int())
		}
		n, err := c.Write(sent) // more than the socket takes
		require.NoError(t, err)
		assert.Equal(t, len(sent), n)
		got, err := io.ReadAll(c)
		require.NoError(t, err)
		assert.True(t, bytes.Equal(sent, got))
	}
}

// What net.Conn does in other words, and what an adopted connection still knows.
func TestAdoptedIsANetConn(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	nc, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	local, remote := nc.LocalAddr().String(), nc.RemoteAddr().String()
	c := Adopt(nc)
	defer c.Close()
	assert.Equal(t, local, c.LocalAddr().String())
	assert.Equal(t, remote, c.RemoteAddr().String())
	assert.Equal(t, remote, NewConn(c).RemoteAddrPort().String())
	_, err = nc.Write([]byte("x"))
	assert.ErrorIs(t, err, net.ErrClosed, "the descriptor of the old one is closed")
	peer, err := ln.Accept()
	require.NoError(t, err)
	defer peer.Close()
	_, err = c.Write([]byte("ping"))
	require.NoError(t, err)
	b := make([]byte, 10)
	n, err := peer.Read(b)
	require.NoError(t, err)
	assert.Equal(t, "ping", string(b[:n]))
	other := NewConn(c) // of another type: left alone
	assert.Same(t, other, Adopt(other))
}

func TestAdoptInABubble(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	synctest.Test(t, func(t *testing.T) {
		nc, err := net.Dial("tcp", ln.Addr().String())
		require.NoError(t, err)
		defer nc.Close()
		assert.Same(t, nc, Adopt(nc))
	})
}

// In a bubble of synctest a sock joins the runtime's poller, so that a wait for the network does
// not look like one for the bubble's clock.
func TestSockInABubbleIsNotPolled(t *testing.T) {
	ln, err := (&ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	peer, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	defer peer.Close()
	nc, err := ln.Accept()
	require.NoError(t, err)
	defer nc.Close()
	s := nc.(*sock)
	go func() {
		for s.waits.Load() == nil {
			time.Sleep(time.Millisecond)
		}
		peer.Write([]byte("x"))
	}()
	synctest.Test(t, func(t *testing.T) {
		timer := time.AfterFunc(time.Nanosecond, func() { t.Error("the clock of the bubble moved") })
		defer timer.Stop()
		_, err := nc.Read(make([]byte, 1))
		assert.NoError(t, err)
	})
	assert.Nil(t, s.polled())
}

func TestPolledDeadlines(t *testing.T) {
	c, s, peer := polledPair(t, "tcp")
	b := make([]byte, 10)
	read := func(want error) {
		t.Helper()
		_, err := c.Read(b)
		require.ErrorIs(t, err, want)
	}
	start := time.Now()
	require.NoError(t, c.SetReadDeadline(start.Add(20*time.Millisecond)))
	read(os.ErrDeadlineExceeded)
	assert.GreaterOrEqual(t, time.Since(start), 20*time.Millisecond)
	read(os.ErrDeadlineExceeded) // again, as for any net.Conn
	_, err := peer.Write([]byte("late"))
	require.NoError(t, err)
	read(os.ErrDeadlineExceeded) // even if there is something
	require.NoError(t, c.SetReadDeadline(time.Now().Add(time.Hour)))
	n, err := c.Read(b)
	require.NoError(t, err)
	assert.Equal(t, "late", string(b[:n]))

	ended := make(chan error, 1)
	go func() { _, err := c.Read(make([]byte, 1)); ended <- err }()
	waitsIn(t, s)
	require.NoError(t, c.SetReadDeadline(time.Now().Add(2*time.Hour))) // moved, it waits on
	waitsIn(t, s)
	require.NoError(t, c.SetReadDeadline(time.Now().Add(-1)))
	assert.ErrorIs(t, <-ended, os.ErrDeadlineExceeded)

	require.NoError(t, c.SetWriteDeadline(time.Now().Add(20*time.Millisecond)))
	_, err = c.Write(make([]byte, 64<<20))
	assert.ErrorIs(t, err, os.ErrDeadlineExceeded)
	var timeout net.Error
	require.ErrorAs(t, err, &timeout)
	assert.True(t, timeout.Timeout())
}

// A timer that fires for a deadline that has been moved says nothing.
func TestPolledTimerOfAnEarlierDeadline(t *testing.T) {
	_, s, _ := polledPair(t, "tcp")
	in := &s.polled().in
	in.deadline(instantNow() + instant(time.Hour))
	in.expire()
	assert.NoError(t, in.over())
	in.deadline(0)
	in.expire()
	assert.NoError(t, in.over())
	in.deadline(instantNow() - 1)
	assert.ErrorIs(t, in.over(), os.ErrDeadlineExceeded)
	in.deadline(0)
	assert.NoError(t, in.over())
}

// waitsIn waits until a goroutine waits to read from s.
func waitsIn(t testing.TB, s *sock) {
	t.Helper()
	require.Eventually(t, func() bool { return s.polled().in.state.Load()&isWaited != 0 }, 10*time.Second, time.Millisecond)
}

func TestPolledCloseEndsWaits(t *testing.T) {
	c, s, _ := polledPair(t, "tcp")
	ended := make(chan error, 2)
	go func() { _, err := c.Read(make([]byte, 1)); ended <- err }()
	go func() { _, err := c.Write(make([]byte, 64<<20)); ended <- err }()
	waitsIn(t, s)
	out := &s.polled().out
	require.Eventually(t, func() bool { return out.state.Load()&isWaited != 0 }, 10*time.Second, time.Millisecond)
	require.NoError(t, c.Close())
	assert.ErrorIs(t, <-ended, net.ErrClosed)
	assert.ErrorIs(t, <-ended, net.ErrClosed)
	assert.ErrorIs(t, c.SetDeadline(time.Now()), net.ErrClosed)
	_, err := c.Read(make([]byte, 1))
	assert.ErrorIs(t, err, net.ErrClosed)
	_, err = c.Write([]byte("x"))
	assert.ErrorIs(t, err, net.ErrClosed)
}

// Close has to wait for the lock of all pollers, and for operations under way. What begins
// meanwhile fails: a close_notify behind a reset would make a part look like the whole.
func TestPolledCloseLetsNothingBegin(t *testing.T) {
	c, s, peer := polledPair(t, "tcp")
	require.NoError(t, s.SetLinger(0))
	polled := s.polled()
	in, q := &polled.in, polled.poller
	closed := make(chan struct{})
	in.one.Lock() // an operation
	polling.mu.Lock()
	go func() { c.Close(); close(closed) }()
	require.Eventually(t, func() bool { return s.SetLinger(0) != nil }, 10*time.Second, time.Millisecond)
	_, err := c.Write([]byte("x"))
	assert.ErrorIs(t, err, net.ErrClosed)
	polling.mu.Unlock()
	require.Eventually(t, func() bool {
		polling.mu.Lock()
		defer polling.mu.Unlock()
		q.mu.Lock()
		defer q.mu.Unlock()
		return q.conns[s.fd] != polled
	}, 10*time.Second, time.Millisecond)
	select {
	case <-closed:
		t.Error("it has not waited")
	default:
	}
	in.one.Unlock()
	<-closed
	_, err = peer.Read(make([]byte, 1))
	assert.ErrorIs(t, err, syscall.ECONNRESET)
}

// Ask knows without a look that the peer is quiet, and that it is not.
func TestAskOfPolled(t *testing.T) {
	for name, say := range map[string]func(t *testing.T, peer net.Conn){
		"data":      func(t *testing.T, peer net.Conn) { peer.Write([]byte("unasked")) },
		"end":       func(t *testing.T, peer net.Conn) { peer.Close() },
		"half end":  func(t *testing.T, peer net.Conn) { peer.(*net.TCPConn).CloseWrite() },
		"reset":     func(t *testing.T, peer net.Conn) { peer.(*net.TCPConn).SetLinger(0); peer.Close() },
		"data, end": func(t *testing.T, peer net.Conn) { peer.Write([]byte("unasked")); peer.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			c, s, peer := polledPair(t, "tcp")
			pool := &BufferPool{}
			for range 3 {
				go func() {
					b := make([]byte, 100)
					n, err := peer.Read(b)
					assert.NoError(t, err)
					assert.Equal(t, "ask", string(b[:n]))
					peer.Write([]byte("answer"))
				}()
				b, n, err := c.Ask([]byte("ask"), false, pool)
				require.NoError(t, err)
				assert.Equal(t, 3, n)
				assert.Equal(t, "answer", string(b.B))
				pool.Put(b)
				assert.False(t, s.polled().in.may)
			}
			say(t, peer)
			require.Eventually(t, func() bool { return s.polled().in.state.Load()&hasNews != 0 }, 10*time.Second, time.Millisecond)
			b, n, err := c.Ask([]byte("ask"), false, pool)
			assert.ErrorIs(t, err, ErrNotQuiet)
			assert.Nil(t, b)
			assert.Zero(t, n)
		})
	}
}

// Only a look finds what no poller has told of yet.
func TestAskLooks(t *testing.T) {
	for _, look := range []bool{false, true} {
		c, s, peer := polledPair(t, "tcp")
		s.polled().in.may = false // as after an answer
		s.polled().unpoll()       // it tells nothing
		require.NoError(t, peer.(*net.TCPConn).CloseWrite())
		_, n, err := c.Ask(make([]byte, 4<<20), look, &BufferPool{})
		if look {
			assert.ErrorIs(t, err, ErrNotQuiet)
			assert.Zero(t, n)
		} else {
			assert.NoError(t, err)
			assert.Positive(t, n)
		}
	}
}

// late tells p of events as its poller does.
func late(p *polled, events uint32) {
	q := &poller{conns: map[int32]*polled{int32(p.fd): p}}
	q.handle([]syscall.EpollEvent{{Fd: int32(p.fd), Events: events}})
}

// An event of which nothing is left, as that of data that has been read already, or of another
// connection which had the descriptor before, costs a look and no more.
func TestPolledEventOfNothing(t *testing.T) {
	c, s, peer := polledPair(t, "tcp")
	for _, events := range []uint32{syscall.EPOLLIN, syscall.EPOLLIN | syscall.EPOLLRDHUP, ^uint32(0)} {
		late(s.polled(), events)
		go func() {
			b := make([]byte, 10)
			n, _ := peer.Read(b)
			peer.Write(b[:n])
		}()
		b, _, err := c.Ask([]byte("ask"), false, &BufferPool{})
		require.NoError(t, err)
		assert.Equal(t, "ask", string(b.B))
	}
	go func() {
		waitsIn(t, s)
		late(s.polled(), ^uint32(0))
		waitsIn(t, s) // on
		peer.Write([]byte("now"))
	}()
	b := make([]byte, 10)
	n, err := c.Read(b)
	require.NoError(t, err)
	assert.Equal(t, "now", string(b[:n]))
}

// What ends a read early, urgent data or the end of the stream, does not hide what follows.
func TestPolledReadsBehindAMark(t *testing.T) {
	c, _, peer := polledPair(t, "tcp")
	raw, err := peer.(*net.TCPConn).SyscallConn()
	require.NoError(t, err)
	require.NoError(t, raw.Control(func(fd uintptr) {
		assert.NoError(t, syscall.Sendto(int(fd), []byte("before!"), syscall.MSG_OOB, nil))
		assert.NoError(t, syscall.Sendto(int(fd), []byte("behind"), 0, nil))
	}))
	require.NoError(t, peer.Close())
	got := make(chan []byte)
	go func() {
		b, err := io.ReadAll(c)
		assert.NoError(t, err)
		got <- b
	}()
	select {
	case b := <-got:
		assert.Equal(t, "beforebehind", string(b))
	case <-time.After(10 * time.Second):
		t.Fatal("it waits for ever")
	}
}

// On a Unix socket a read ends at a message with descriptors, and more may be there.
func TestPolledReadsBehindDescriptors(t *testing.T) {
	c, s, peer := polledPair(t, "unix")
	null, err := os.Open(os.DevNull)
	require.NoError(t, err)
	defer null.Close()
	_, _, err = peer.(*net.UnixConn).WriteMsgUnix([]byte("with"), syscall.UnixRights(int(null.Fd())), nil)
	require.NoError(t, err)
	_, err = peer.Write([]byte("behind"))
	require.NoError(t, err)
	require.Eventually(t, func() bool { return s.polled().in.state.Load()&hasNews != 0 }, 10*time.Second, time.Millisecond)
	time.Sleep(20 * time.Millisecond) // for it to be wrong: the poller has told of both
	require.NoError(t, c.SetReadDeadline(time.Now().Add(10*time.Second)))
	for _, want := range []string{"with", "behind"} {
		c.yields = yields{drained: true, skip: tryAgain} // it does not try by the way
		b := make([]byte, 100)
		n, err := c.Read(b)
		require.NoError(t, err)
		assert.Equal(t, want, string(b[:n]))
	}
}

// A function of the host's may wait for more than there is: that there is something is not
// forgotten then.
func TestPolledReadOfTheHostWantsMore(t *testing.T) {
	c, _, peer := polledPair(t, "tcp")
	_, err := peer.Write([]byte("abc"))
	require.NoError(t, err)
	raw, err := c.SyscallConn()
	require.NoError(t, err)
	require.NoError(t, c.SetReadDeadline(time.Now().Add(20*time.Millisecond)))
	err = raw.Read(func(fd uintptr) bool {
		n, _, err := syscall.Recvfrom(int(fd), make([]byte, 10), syscall.MSG_PEEK)
		return err == nil && n >= 8
	})
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.NoError(t, c.SetReadDeadline(time.Now().Add(10*time.Second)))
	_, _, err = c.Ask([]byte("ask"), false, &BufferPool{})
	require.ErrorIs(t, err, ErrNotQuiet, "it is not quiet")
	c.yields = yields{drained: true, skip: tryAgain}
	b := make([]byte, 10)
	n, err := c.Read(b)
	require.NoError(t, err)
	assert.Equal(t, "bc", string(b[:n]), "the look of Ask has taken a byte")
}

// A function of the host's may use the connection, as with package net, whether that has had to
// wait before or not.
func TestRawConnOfTheHostUsesTheConn(t *testing.T) {
	ln, err := (&ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	for _, waited := range []bool{false, true} {
		peer, err := net.Dial("tcp", ln.Addr().String())
		require.NoError(t, err)
		defer peer.Close()
		c, err := ln.Accept()
		require.NoError(t, err)
		defer c.Close()
		if waited {
			require.NoError(t, c.SetReadDeadline(time.Unix(1, 0)))
			_, err = c.Read(make([]byte, 1))
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
			require.NoError(t, c.SetReadDeadline(time.Time{}))
		}
		raw, err := NewConn(c).SyscallConn()
		require.NoError(t, err)
		use := func(other func([]byte) (int, error)) func(uintptr) bool {
			return func(uintptr) bool {
				assert.NotEmpty(t, c.LocalAddr())
				assert.NotEmpty(t, c.RemoteAddr())
				assert.NoError(t, c.SetDeadline(time.Now().Add(10*time.Second)))
				_, err := other([]byte("x"))
				assert.NoError(t, err)
				return true
			}
		}
		_, err = peer.Write([]byte("x"))
		require.NoError(t, err)
		require.NoError(t, raw.Read(use(c.Write)))
		require.NoError(t, raw.Write(use(c.Read)))
	}
}

// A host may look beside reads.
func TestPolledReadsBesideLooks(t *testing.T) {
	c, _, peer := polledPair(t, "tcp")
	raw, err := c.SyscallConn()
	require.NoError(t, err)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for raw.Read(func(fd uintptr) bool {
			syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK)
			return true
		}) == nil {
			runtime.Gosched()
		}
	}()
	require.NoError(t, c.SetReadDeadline(time.Now().Add(time.Minute)))
	b := make([]byte, 10)
	for range 1000 {
		_, err := peer.Write([]byte("hello"))
		require.NoError(t, err)
		_, err = io.ReadFull(c, b[:5])
		require.NoError(t, err)
	}
	c.Close()
	<-ended
}

// A sock that leaves its poller, to be parked or wired, may come back. It does not leave while
// it is waited for.
func TestPolledLeaves(t *testing.T) {
	c, s, peer := polledPair(t, "tcp")
	before := joined.Load()
	require.NoError(t, c.SetReadDeadline(time.Now().Add(time.Hour)))
	first := s.polled()
	s.leave()
	assert.Nil(t, s.polled())
	assert.LessOrEqual(t, joined.Load(), before-1) // those of an earlier test may leave, too
	assert.Equal(t, errLeft, first.run(func(uintptr) bool { t.Error("called"); return true }, operation{}))
	late(first, ^uint32(0))

	read := make(chan string)
	go func() {
		b := make([]byte, 10)
		n, err := c.Read(b)
		assert.NoError(t, err)
		read <- string(b[:n])
	}()
	require.Eventually(t, func() bool { return s.polled() != nil }, 10*time.Second, time.Millisecond)
	waitsIn(t, s)
	s.leave()
	assert.NotNil(t, s.polled(), "it is waited for")
	_, err := peer.Write([]byte("hello"))
	require.NoError(t, err)
	assert.Equal(t, "hello", <-read)

	for range 2 * runtime.GOMAXPROCS(0) { // it comes to each poller, and again
		require.NoError(t, c.SetReadDeadline(time.Now().Add(time.Millisecond)))
		s.leave()
		_, err = c.Read(make([]byte, 1))
		assert.ErrorIs(t, err, os.ErrDeadlineExceeded, "the deadline is kept")
		assert.NotNil(t, s.polled())
	}
	s.leave()
	assert.Nil(t, s.polled())
	require.NoError(t, c.Close())
	assert.LessOrEqual(t, joined.Load(), before-1) // those of an earlier test may leave, too
	s.leave()
}

// While one goroutine parks a sock, another may write to it, as a GOAWAY is.
func TestPolledLeavesBesideWrites(t *testing.T) {
	c, s, peer := polledPair(t, "tcp")
	const size = 4 << 20
	go func() {
		for range size / 16 {
			if _, err := c.Write(make([]byte, 16)); err != nil {
				t.Error(err)
				return
			}
		}
		c.CloseWrite()
	}()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		n, err := io.Copy(io.Discard, peer)
		assert.NoError(t, err)
		assert.EqualValues(t, size, n)
	}()
	for {
		select {
		case <-ended:
			return
		default:
			s.leave()
			c.SetReadDeadline(time.Unix(1, 0))
			c.Read(make([]byte, 1)) // joins
		}
	}
}

// No poller is without a sock to wait for, whichever come and go.
func TestPollersAreUsed(t *testing.T) {
	var open []*Conn
	for range 100 {
		if n := len(open); n > 0 && rand.N(2) == 0 {
			i := rand.N(n)
			open[i].Close()
			open = append(open[:i], open[i+1:]...)
		} else {
			c, _, _ := polledPair(t, "unix")
			open = append(open, c)
		}
		polling.mu.Lock()
		for _, q := range polling.pollers {
			q.mu.Lock()
			assert.NotEmpty(t, q.conns)
			q.mu.Unlock()
		}
		polling.mu.Unlock()
	}
}

// The pollers end with the last sock that they wait for.
func TestPollersEnd(t *testing.T) {
	c, s, _ := polledPair(t, "tcp")
	polling.mu.Lock()
	q := s.polled().poller
	polling.mu.Unlock()
	c.Close()
	polling.mu.Lock()
	defer polling.mu.Unlock()
	q.mu.Lock()
	defer q.mu.Unlock()
	assert.NotContains(t, q.conns, s.fd)
	if len(q.conns) == 0 {
		assert.NotContains(t, polling.pollers, q)
		assert.Error(t, q.file.SetDeadline(time.Time{}), "it is closed")
	}
}

// No news is lost between a goroutine that looks and waits, and others that tell.
func TestSideLosesNoNews(t *testing.T) {
	const n = 200_000
	for _, tellers := range []int{1, 3} {
		var s side
		s.init(0)
		var sent, seen int64
		var mu sync.Mutex // of sent
		var wg sync.WaitGroup
		for range tellers {
			wg.Go(func() {
				for range n / tellers {
					mu.Lock()
					sent++
					mu.Unlock()
					s.tell(hasNews)
				}
			})
		}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for seen < int64(n/tellers*tellers) {
				if _, err := s.wait(false); err != nil {
					return
				}
				s.hear()
				mu.Lock()
				seen = sent
				mu.Unlock()
			}
		}()
		wg.Wait()
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			t.Fatal("it waits for ever")
		}
		s.deadline(0)
	}
}

// Many socks at once, closed, parked, with deadlines that move, and data in pieces of any size.
func TestPolledLoad(t *testing.T) {
	ln, err := (&ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	parker, err := NewParker()
	require.NoError(t, err)
	var run sync.WaitGroup
	run.Go(func() { parker.Run() })
	defer run.Wait()
	defer parker.Close()
	var wg sync.WaitGroup
	defer wg.Wait()
	for i := range 60 {
		seed := rand.New(rand.NewPCG(1, uint64(i)))
		nc, err := net.Dial("tcp", ln.Addr().String())
		require.NoError(t, err)
		client := NewConn(Adopt(nc))
		nc, err = ln.Accept()
		require.NoError(t, err)
		server := NewConn(nc)
		cut := seed.IntN(4) == 0
		wg.Go(func() { echoPolled(t, parker, server) })
		wg.Go(func() {
			defer client.Close()
			sent := bytes.Repeat([]byte{1, 2, 3, 4, 5, 6, 7}, 20_000+seed.IntN(20_000))
			wg.Go(func() {
				for rest := sent; len(rest) > 0; {
					n := min(1+seed.IntN(40_000), len(rest))
					if _, err := client.Write(rest[:n]); err != nil {
						if !cut {
							t.Error(err)
						}
						return
					}
					rest = rest[n:]
				}
				client.CloseWrite()
			})
			if cut {
				client.Read(make([]byte, 1+i*100))
				return
			}
			client.SetReadDeadline(time.Now().Add(time.Minute))
			got, err := io.ReadAll(client)
			assert.NoError(t, err)
			assert.True(t, bytes.Equal(sent, got))
		})
	}
}

// echoPolled sends back what it reads, parked at times, with deadlines in between.
func echoPolled(t *testing.T, parker *Parker, c *Conn) {
	defer c.Close()
	b := make([]byte, 10_000)
	for i := 0; ; i++ {
		if i%3 == 0 {
			ready := make(chan struct{})
			if parker.Park(c, func() { close(ready) }) {
				<-ready
			}
		}
		c.SetReadDeadline(time.Now().Add(time.Duration(1+i%2*60) * time.Second))
		n, err := c.Read(b[:1+i*997%len(b)])
		if _, werr := c.Write(b[:n]); err != nil || werr != nil {
			return
		}
	}
}
