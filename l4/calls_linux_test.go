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

// askLater starts Ask on c, whose request is left to the outbox when this returns; write has it
// written: alone, or with follows behind that of another.
func askLater(t *testing.T, c *Conn, s *sock, req string, look bool, pool *BufferPool, follows bool, also func()) (write func(), answer chan string) {
	p := s.polled()
	o := &p.poller.outbox
	o.writing.Lock()
	write = o.writing.Unlock
	if follows {
		o.add(&posting{call: call{fd: -1, writes: true, p: []byte("to nobody")}, answer: new(side)})
		write = func() { o.writeAll(); o.writing.Unlock() }
	}
	answer = make(chan string, 1)
	go func() {
		b, n, err := c.Ask([]byte(req), look, pool)
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
	return write, answer
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
		{"an answer before the request", func(_ *Conn, s *sock, peer net.Conn) {
			peer.Write([]byte("early"))
			waitState(t, s, hasNews)
		}, "0 " + ErrNotQuiet.Error()},
		{"news of nothing before the request", func(_ *Conn, s *sock, peer net.Conn) {
			s.polled().in.tell(hasNews)
			go func() {
				io.ReadFull(peer, make([]byte, 3))
				peer.Write([]byte("answer"))
			}()
		}, "answer 3 <nil>"},
		{"the end before the request", func(_ *Conn, s *sock, peer net.Conn) {
			peer.Close()
			waitState(t, s, hasNews)
		}, "0 " + ErrNotQuiet.Error()},
		{"a reset before the request", func(_ *Conn, s *sock, peer net.Conn) {
			peer.(*net.TCPConn).SetLinger(0)
			peer.Close()
			waitState(t, s, hasNews)
		}, "0 " + ErrNotQuiet.Error()},
		{"a close", func(c *Conn, s *sock, _ net.Conn) {
			go c.Close()
			waitState(t, s, isShut)
		}, "use of closed network connection"},
	} {
		for _, follows := range []bool{false, true} {
			t.Run(fmt.Sprint(tc.name, " ", follows), func(t *testing.T) {
				c, s, peer := polledPair(t, "tcp")
				write, answer := askLater(t, c, s, "ask", false, &BufferPool{}, follows, func() { tc.also(c, s, peer) })
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
}

// Where a look is asked for, it is taken right before the write: what the poller has not told
// yet is seen.
func TestAskLooksBeforeItsWrite(t *testing.T) {
	for name, also := range map[string]func(peer net.Conn){
		"an answer before the request": func(peer net.Conn) { peer.Write([]byte("early")) },
		"the end before the request":   func(peer net.Conn) { peer.(*net.TCPConn).CloseWrite() },
		"quiet":                        nil,
	} {
		for _, follows := range []bool{false, true} {
			t.Run(fmt.Sprint(name, " ", follows), func(t *testing.T) {
				c, s, peer := polledPair(t, "tcp")
				want := "0 " + ErrNotQuiet.Error()
				write, answer := askLater(t, c, s, "ask", true, &BufferPool{}, follows, func() {
					if also != nil {
						also(peer)
						waitState(t, s, hasNews)
						s.polled().in.state.And(^uint32(hasNews))
						return
					}
					want = "answer 3 <nil>"
				})
				write()
				if also == nil {
					io.ReadFull(peer, make([]byte, 3))
					peer.Write([]byte("answer"))
				}
				select {
				case got := <-answer:
					assert.Contains(t, got, want)
				case <-time.After(10 * time.Second):
					t.Fatal("it waits for ever")
				}
				c.Close()
				rest, _ := io.ReadAll(peer)
				assert.Empty(t, rest)
			})
		}
	}
}

// Of those that are written together each has its own: some look, and of these some find that
// the peer has spoken.
func TestOutboxLooksForEach(t *testing.T) {
	var o outbox
	defer o.close()
	pairs := socketPairs(t, 3*maxCalls)
	postings := make([]posting, len(pairs))
	for i, pair := range pairs {
		postings[i] = posting{
			call:   call{fd: pair[0], writes: true, p: []byte("ask")},
			looks:  i%3 > 0,
			answer: new(side),
		}
		if i%3 != 1 {
			_, err := syscall.Write(pair[1], []byte("early"))
			require.NoError(t, err)
		}
		o.add(&postings[i])
	}
	o.writing.Lock()
	o.writeAll()
	o.writing.Unlock()
	for i := range postings {
		w, asked := &postings[i], make([]byte, 9)
		n, _ := syscall.Read(pairs[i][1], asked)
		if i%3 == 2 {
			assert.True(t, w.spoke)
			assert.Zero(t, w.n)
			assert.Equal(t, -1, n)
			continue
		}
		assert.False(t, w.spoke)
		assert.Equal(t, 3, w.n)
		assert.Equal(t, "ask", string(asked[:max(n, 0)]))
	}
}

func socketPairs(t testing.TB, n int) (pairs [][2]int) {
	for range n {
		pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK, 0)
		require.NoError(t, err)
		pairs = append(pairs, pair)
		t.Cleanup(func() { syscall.Close(pair[0]); syscall.Close(pair[1]) })
	}
	return pairs
}

// A deadline that passes while the request is another's to write, and is moved before that has
// written it, is none: what happens then still wakes the goroutine.
func TestAskBesideADeadlineThatIsMoved(t *testing.T) {
	for name, then := range map[string]func(c *Conn, peer net.Conn) string{
		"a deadline": func(c *Conn, _ net.Conn) string {
			c.SetReadDeadline(time.Now().Add(time.Millisecond))
			return "timeout"
		},
		"a close":   func(c *Conn, _ net.Conn) string { go c.Close(); return "closed" },
		"an answer": func(_ *Conn, peer net.Conn) string { peer.Write([]byte("answer")); return "answer 3 <nil>" },
		"the end":   func(_ *Conn, peer net.Conn) string { peer.Close(); return "EOF" },
	} {
		for _, size := range []int{0, 2 * maxRead} { // the poller may read, and it may not
			t.Run(fmt.Sprint(name, " ", size), func(t *testing.T) {
				c, s, peer := polledPair(t, "tcp")
				write, answer := askLater(t, c, s, "ask", false, &BufferPool{Size: size}, true, func() {
					c.SetReadDeadline(time.Now().Add(-time.Second))
					waitState(t, s, isHeld)
					c.SetReadDeadline(time.Time{})
				})
				write()
				_, err := io.ReadFull(peer, make([]byte, 3))
				require.NoError(t, err)
				want := then(c, peer)
				select {
				case got := <-answer:
					assert.Contains(t, got, want)
				case <-time.After(10 * time.Second):
					t.Fatal("it waits for ever")
				}
			})
		}
	}
}

// A socket that is full or has ended has taken nothing, alone or together with others.
func TestAskOfASocketThatTakesNothing(t *testing.T) {
	for _, alone := range []bool{true, false} {
		c, s, _ := polledPair(t, "tcp")
		ask := func() string {
			write, answer := askLater(t, c, s, "ask", false, &BufferPool{}, !alone, func() {})
			write()
			select {
			case got := <-answer:
				return got
			case <-time.After(10 * time.Second):
				return "it waits for ever"
			}
		}
		fill(t, c, s)
		assert.Equal(t, " 0 <nil>", ask(), "alone: %v", alone)
		require.NoError(t, c.CloseWrite())
		assert.Regexp(t, "^ 0 .*broken pipe", ask(), "alone: %v", alone)
	}
}

// fill writes until the socket is full, and remains so, and returns how much.
func fill(t testing.TB, c *Conn, s *sock) (filled int) {
	require.NoError(t, s.set("setsockopt", func(fd int) error {
		return syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_SNDBUF, 1)
	}))
	for before := -1; filled > before; time.Sleep(50 * time.Millisecond) { // an ACK may come late
		before = filled
		for _, size := range []int{512, 1} {
			for err := error(nil); err == nil; {
				var n int
				n, err = c.writeNow(make([]byte, size), nil, false)
				filled += n
			}
		}
	}
	return filled
}

func waitState(t testing.TB, s *sock, bit uint32) {
	t.Helper()
	p := s.polled()
	require.Eventually(t, func() bool { return p.in.state.Load()&bit != 0 }, 10*time.Second, time.Millisecond)
}

// A socket that has no room for all of a request: the caller writes the rest.
func TestAskTellsOfAShortWrite(t *testing.T) {
	c, s, peer := polledPair(t, "tcp")
	filled := fill(t, c, s)
	room := make([]byte, 8<<10)
	for short := false; !short; {
		b, n, err := c.Ask(make([]byte, maxWrite), false, &BufferPool{})
		require.NoError(t, err)
		require.Nil(t, b)
		require.GreaterOrEqual(t, n, 0)
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
