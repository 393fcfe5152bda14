// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// askLater starts Ask on c, whose request is left to asks when this returns; write has it
// written.
func askLater(t *testing.T, c *Conn, s *sock, req string, also func()) (write func(), answer chan string) {
	p := s.polled()
	as := &p.poller.asks
	as.writing.Lock()
	answer = make(chan string, 1)
	go func() {
		b, n, err := c.Ask([]byte(req), false, &BufferPool{})
		got := ""
		if b != nil {
			got = string(b.B)
		}
		answer <- fmt.Sprint(got, " ", n, " ", err)
	}()
	require.Eventually(t, func() bool { return p.in.state.Load()&isQueued != 0 }, 10*time.Second, time.Millisecond)
	also()
	select {
	case got := <-answer:
		assert.Fail(t, "it returns while its request is still to be written", got)
	case <-time.After(20 * time.Millisecond):
	}
	return as.writing.Unlock, answer
}

// A request that is left to others is theirs until it is written: whatever happens meanwhile,
// Ask returns only then.
func TestAskReturnsOnceItsRequestIsWritten(t *testing.T) {
	for _, tc := range []struct {
		name string
		also func(c *Conn, s *sock, peer net.Conn)
		want string
	}{
		{"nothing", func(_ *Conn, _ *sock, peer net.Conn) {
			go func() {
				io.ReadFull(peer, make([]byte, 3))
				peer.Write([]byte("answer"))
			}()
		}, "answer 3 <nil>"},
		{"a deadline", func(c *Conn, _ *sock, _ net.Conn) { c.SetReadDeadline(time.Now().Add(-time.Second)) }, "i/o timeout"},
		{"an answer before the request", func(_ *Conn, _ *sock, peer net.Conn) { peer.Write([]byte("early")) }, "early 3 <nil>"},
		{"the end before the request", func(_ *Conn, _ *sock, peer net.Conn) { peer.Close() }, "EOF"},
		{"a reset before the request", func(_ *Conn, s *sock, peer net.Conn) {
			peer.(*net.TCPConn).SetLinger(0)
			peer.Close()
			waitState(t, s, hasNews)
		}, "connection reset by peer"},
		{"a close", func(c *Conn, s *sock, _ net.Conn) {
			go c.Close()
			waitState(t, s, isShut)
		}, "use of closed network connection"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, s, peer := polledPair(t, "tcp")
			write, answer := askLater(t, c, s, "ask", func() { tc.also(c, s, peer) })
			write()
			select {
			case got := <-answer:
				assert.Contains(t, got, tc.want)
			case <-time.After(10 * time.Second):
				t.Fatal("it waits for ever")
			}
		})
	}
}

func waitState(t testing.TB, s *sock, bit uint32) {
	t.Helper()
	p := s.polled()
	require.Eventually(t, func() bool { return p.in.state.Load()&bit != 0 }, 10*time.Second, time.Millisecond)
}

// A socket that has no room for all of a request: the caller writes the rest.
func TestAskTellsOfAShortWrite(t *testing.T) {
	c, s, peer := polledPair(t, "tcp")
	require.NoError(t, s.set("setsockopt", func(fd int) error {
		return syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_SNDBUF, 1)
	}))
	filled := 0
	for {
		n, err := c.writeNow(make([]byte, 512), nil, false)
		filled += n
		if err != nil {
			break
		}
	}
	room := make([]byte, 8<<10)
	for short := false; !short; {
		b, n, err := c.Ask(make([]byte, maxWrite), false, &BufferPool{})
		require.NoError(t, err)
		require.Nil(t, b)
		filled += n
		short = n < maxWrite
		n, err = io.ReadFull(peer, room[:min(filled, len(room))])
		require.NoError(t, err)
		filled -= n
	}
}

// The poller reads for a goroutine that waits. Until it has done so, that one stays.
func TestReadReturnsOnceThePollerHasRead(t *testing.T) {
	for name, also := range map[string]func(c *Conn, s *sock){
		"nothing":    func(*Conn, *sock) {},
		"a deadline": func(c *Conn, _ *sock) { c.SetReadDeadline(time.Now().Add(-time.Second)) },
		"a close":    func(c *Conn, s *sock) { go c.Close(); waitState(t, s, isShut) },
	} {
		for _, has := range []string{"data", ""} {
			t.Run(name+" "+has, func(t *testing.T) {
				c, s, _ := polledPair(t, "tcp")
				p := s.polled()
				read := make(chan string, 1)
				go func() {
					b := make([]byte, 10)
					n, err := c.Read(b)
					read <- fmt.Sprint(string(b[:n]), " ", err)
				}()
				waitState(t, s, isPosted)
				require.True(t, p.in.take())
				assert.False(t, p.in.take(), "it is taken twice")
				b := p.read.begin()
				also(c, s)
				select {
				case got := <-read:
					assert.Fail(t, "it returns while it is read", got)
				case <-time.After(20 * time.Millisecond):
				}
				if has != "" {
					p.in.taken(p.read.end(len(b), copy(b, has), 0))
					assert.Equal(t, has+" <nil>", <-read)
					return
				}
				p.in.taken(p.read.end(len(b), -1, syscall.EAGAIN))
				if name == "nothing" {
					waitState(t, s, isPosted) // it waits on
					assert.NoError(t, c.Close())
				}
				assert.Regexp(t, "timeout|closed", <-read)
			})
		}
	}
}

// Whatever ends a wait at the moment at which the poller takes over, it ends behind that.
func TestWaitBesideTake(t *testing.T) {
	var taken int
	for range 30_000 {
		var (
			s    = &side{wake: make(chan struct{}, 1)}
			busy atomic.Bool
			wg   sync.WaitGroup
		)
		s.state.Store(isWaited | isPosted) // as if it had begun to wait
		wg.Go(func() {
			if s.take() {
				busy.Store(true)
				taken++
				busy.Store(false)
				s.taken(true)
			}
		})
		wg.Go(func() { s.tell(isLate) })
		read, err := s.wait(true)
		assert.False(t, busy.Load())
		assert.True(t, read || err != nil)
		assert.Zero(t, s.state.Load()&(isTaken|isPosted))
		wg.Wait()
		require.False(t, !read && s.state.Load()&isRead != 0, "what has been read is lost")
	}
	assert.Positive(t, taken)
	t.Log(taken, "taken")
}

// News that the goroutine has to see itself is not taken from it: of a request that has not
// been written, and of one that could not be.
func TestPollerLeavesNews(t *testing.T) {
	_, s, _ := polledPair(t, "tcp")
	in := &s.polled().in
	in.one.Lock()
	defer in.one.Unlock()
	for _, state := range []uint32{0, isWaited, isPosted | isQueued, isPosted | hasNews} {
		before := in.state.Swap(state)
		assert.False(t, in.take(), "%b", state)
		in.state.Store(before)
	}
}

// Many ask at once, of servers that answer, end and reset at any time: each gets the answer to
// its own request, or an error, and nothing waits for ever.
func TestAskLoad(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var servers sync.WaitGroup
	servers.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			servers.Go(func() {
				defer nc.Close()
				r := bufio.NewReader(nc)
				for {
					line, err := r.ReadString('\n')
					if err != nil {
						return
					}
					switch rand.IntN(100) {
					case 0:
						return
					case 1:
						nc.(*net.TCPConn).SetLinger(0)
						return
					case 2:
						nc.Write([]byte("answer " + line))
						return
					case 3:
						nc.Write([]byte("answer "))
						time.Sleep(time.Millisecond)
						nc.Write([]byte(line))
					default:
						nc.Write([]byte("answer " + line))
					}
				}
			})
		}
	})
	var (
		clients         sync.WaitGroup
		pool            BufferPool
		answers, failed atomic.Int64
		dialer          = &net.Dialer{}
	)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	ask := func(c *Conn, token string) error {
		switch rand.IntN(50) {
		case 0:
			go c.Close()
		case 1:
			c.SetReadDeadline(time.Now().Add(time.Duration(rand.IntN(500)) * time.Microsecond))
		}
		b, n, err := c.Ask([]byte(token+"\n"), rand.IntN(10) == 0, &pool)
		if err != nil {
			return err
		}
		if b == nil || n != len(token)+1 {
			return errors.New("short")
		}
		got := string(b.B)
		pool.Put(b)
		for !strings.HasSuffix(got, "\n") {
			p := make([]byte, 100)
			n, err := c.Read(p)
			if err != nil {
				return err
			}
			got += string(p[:n])
		}
		assert.Equal(t, "answer "+token+"\n", got)
		return nil
	}
	for i := range 64 {
		clients.Go(func() {
			for j := 0; ctx.Err() == nil; {
				nc, err := dialer.DialContext(ctx, "tcp", ln.Addr().String())
				if err != nil {
					continue
				}
				c := NewConn(Adopt(nc))
				for ctx.Err() == nil {
					j++
					if err = ask(c, fmt.Sprint(i, "-", j)); err != nil {
						failed.Add(1)
						break
					}
					answers.Add(1)
				}
				c.Close()
			}
		})
	}
	done := make(chan struct{})
	go func() { clients.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("some wait for ever")
	}
	ln.Close()
	servers.Wait()
	assert.Greater(t, answers.Load(), int64(500))
	assert.Positive(t, failed.Load())
	t.Log(answers.Load(), "answers,", failed.Load(), "errors")
}
