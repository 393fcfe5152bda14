// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4/l4test"
)

// narrow is a pool of one server with one slot.
func narrow(t *testing.T, addr string) *balance.Pool {
	p := &balance.Pool{Queue: balance.Queue{Timeout: time.Minute}}
	require.NoError(t, p.Set(balance.Endpoint{Addr: addr, MaxConns: 1}))
	return p
}

// TestQueueForgetsClientsThatReset: those that are gone leave the queue at once
// and get no server; those that have only ended their stream still want an
// answer.
func TestQueueForgetsClientsThatReset(t *testing.T) {
	p := narrow(t, "10.0.1.1:80")
	play(t, &Proxy{Pool: p}, func(t *testing.T, s *scene) {
		ln := s.backend("10.0.1.1:80")
		first, server := s.connect(ln)
		mute := dial(t, s.net, "10.0.0.1:80")
		talker := dial(t, s.net, "10.0.0.1:80")
		send(t, talker, "question")
		half := dial(t, s.net, "10.0.0.1:80")
		send(t, half, "last question")
		half.CloseWrite()
		synctest.Wait() // the queue is in this order
		stays := dial(t, s.net, "10.0.0.1:80")
		send(t, stays, "ques")
		synctest.Wait()
		require.Equal(t, 4, p.Stats().Queued)
		time.Sleep(time.Second)
		mute.Reset()
		talker.Reset()
		synctest.Wait()
		require.Equal(t, 2, p.Stats().Queued)
		for range 2 {
			r := s.record()
			require.Equal(t, "CQ", r.Termination.String())
			require.ErrorIs(t, r.Err, errClientLeft)
			require.Zero(t, r.Assigned)
			require.Equal(t, time.Second, r.Total)
		}
		send(t, stays, "tion")
		first.Close()
		server.Close()
		for _, c := range []struct {
			client *l4test.Conn
			said   string
		}{{half, "last question"}, {stays, "question"}} {
			server, err := ln.Accept()
			require.NoError(t, err)
			got := make([]byte, len(c.said))
			for n := 0; n < len(got); {
				m, err := server.Read(got[n:])
				require.NoError(t, err)
				n += m
			}
			require.Equal(t, c.said, string(got))
			send(t, server, "answer")
			wantRead(t, c.client, "answer")
			c.client.Close()
			server.Close()
		}
	})
}

// TestQueueKeepsClientsThatEnd: those that have only ended their stream, or closed it, which
// looks the same, wait until the timeout of the queue.
func TestQueueKeepsClientsThatEnd(t *testing.T) {
	p := narrow(t, "10.0.1.1:80")
	play(t, &Proxy{Pool: p}, func(t *testing.T, s *scene) {
		first, server := s.connect(s.backend("10.0.1.1:80"))
		dial(t, s.net, "10.0.0.1:80").CloseWrite()
		synctest.Wait()
		require.Equal(t, 1, p.Stats().Queued)
		time.Sleep(time.Minute)
		synctest.Wait()
		r := s.record()
		require.Equal(t, Termination{ServerTimeout, PhaseQueue}, r.Termination)
		require.Equal(t, time.Minute, r.Total)
		first.Close()
		server.Close()
	})
}

// TestQueueForgetsClientsThatEnd does so with AbortOnClose, whether they have sent something
// or not, and before they queue or while they wait.
func TestQueueForgetsClientsThatEnd(t *testing.T) {
	want := func(t *testing.T, r Record, total time.Duration) {
		t.Helper()
		require.Equal(t, "CQ", r.Termination.String())
		require.ErrorIs(t, r.Err, errClientLeft)
		require.Equal(t, total, r.Total)
	}
	p := narrow(t, "10.0.1.1:80")
	play(t, &Proxy{Pool: p, AbortOnClose: true}, func(t *testing.T, s *scene) {
		first, server := s.connect(s.backend("10.0.1.1:80"))
		dial(t, s.net, "10.0.0.1:80").CloseWrite()
		synctest.Wait()
		want(t, s.record(), 0)
		mute, talker := dial(t, s.net, "10.0.0.1:80"), dial(t, s.net, "10.0.0.1:80")
		send(t, talker, "question")
		synctest.Wait()
		require.Equal(t, 2, p.Stats().Queued)
		time.Sleep(time.Second)
		mute.CloseWrite()
		talker.Close()
		synctest.Wait()
		require.Zero(t, p.Stats().Queued)
		want(t, s.record(), time.Second)
		want(t, s.record(), time.Second)
		first.CloseWrite() // no longer in the queue
		synctest.Wait()
		send(t, server, "answer")
		wantRead(t, first, "answer")
		first.Close()
		server.Close()
	})
}

// TestQueueForgetsSocketsThatEnd does so by events.
func TestQueueForgetsSocketsThatEnd(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			onSockets(t, network, &Proxy{AbortOnClose: true}, func(t *testing.T, s *stage) {
				p := s.proxy.Pool
				for m := range p.All() {
					require.NoError(t, p.Set(balance.Endpoint{Addr: m.Addr(), MaxConns: 1}))
				}
				first, server := s.connect()
				for _, said := range []string{"", "question"} {
					c, err := net.Dial("tcp", s.addr)
					require.NoError(t, err)
					send(t, c, said)
					wantWaiting(t, p, 1)
					s.clients++
					closeWrite(t, c)
					wantWaiting(t, p, 0)
					require.Equal(t, "CQ", s.record().Termination.String())
					c.Close()
				}
				first.Close()
				server.Close()
				require.Equal(t, "--", s.record().Termination.String())
			})
		})
	}
}

// TestQueueForgetsTLSClientsThatReset does so with TLS ended in between.
func TestQueueForgetsTLSClientsThatReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := l4test.NewNetwork()
		p := narrow(t, "10.0.1.1:80")
		ln := listen(t, n, "10.0.1.1:80")
		s := &Server{Logger: quiet, Handler: &TerminateTLS{Config: testConfig(t, "a.test"), Next: &Proxy{Pool: p, Dial: n.DialContext}}}
		wait := serve(s, listen(t, n, "10.0.0.1:443"))
		connect := func() (*l4test.Conn, *tls.Conn) {
			c := dial(t, n, "10.0.0.1:443")
			secure := tls.Client(c, &tls.Config{InsecureSkipVerify: true})
			require.NoError(t, secure.Handshake())
			synctest.Wait()
			return c, secure
		}
		held, err := p.Acquire(t.Context(), balance.Request{})
		require.NoError(t, err)
		a, secureA := connect()
		_, b := connect()
		send(t, secureA, "question")
		send(t, b, "question")
		synctest.Wait()
		require.Equal(t, 2, p.Stats().Queued)
		a.Reset()
		synctest.Wait()
		require.Equal(t, 1, p.Stats().Queued)
		held.Done(balance.Outcome{})
		server, err := ln.Accept()
		require.NoError(t, err)
		wantRead(t, server, "question")
		wantEchoBetween(t, b, server)
		b.Close()
		server.Close()
		require.NoError(t, s.Shutdown(t.Context()))
		require.ErrorIs(t, wait(), ErrServerClosed)
		require.Zero(t, p.Server("10.0.1.1:80").InFlight())
	})
}

// TestQueueForgetsSocketsThatReset does so by events. A client that goes on by
// goroutines has no more events.
func TestQueueForgetsSocketsThatReset(t *testing.T) {
	plain := func(_ context.Context, client, server net.Conn, _ *balance.Server) (net.Conn, error) {
		if client.(*Conn).parker.Load() != nil {
			return nil, errors.New("still watched")
		}
		return struct{ *net.TCPConn }{server.(*net.TCPConn)}, nil
	}
	for name, h := range map[string]HandshakeFunc{"tcp": nil, "unix": nil, "goroutines": plain} {
		t.Run(name, func(t *testing.T) {
			network := "tcp"
			if name == "unix" {
				network = name
			}
			onSockets(t, network, &Proxy{Handshake: h}, func(t *testing.T, s *stage) {
				p := s.proxy.Pool
				var e balance.Endpoint
				for m := range p.All() {
					e = balance.Endpoint{Addr: m.Addr(), MaxConns: 1}
				}
				require.NoError(t, p.Set(e))
				first, server := s.connect()
				queued := func(n int) *net.TCPConn {
					c, err := net.Dial("tcp", s.addr)
					require.NoError(t, err)
					t.Cleanup(func() { c.Close() })
					send(t, c, "question")
					wantWaiting(t, p, n)
					return c.(*net.TCPConn)
				}
				gone, half, stays := queued(1), queued(2), queued(3)
				s.clients += 2
				gone.SetLinger(0)
				gone.Close()
				closeWrite(t, half)
				wantWaiting(t, p, 2)
				r := s.record()
				require.Equal(t, "CQ", r.Termination.String())
				first.Close()
				server.Close()
				require.Equal(t, "--", s.record().Termination.String())
				for _, c := range []net.Conn{half, stays} {
					server, err := s.backend.Accept()
					require.NoError(t, err)
					wantRead(t, server, "question")
					send(t, server, "answer")
					server.Close()
					wantRead(t, c, "answer")
					c.Close()
					require.Equal(t, "--", s.record().Termination.String())
				}
			})
		})
	}
}

func wantWaiting(t *testing.T, p *balance.Pool, n int) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); p.Stats().Queued != n; time.Sleep(time.Millisecond) {
		require.True(t, time.Now().Before(end), "%d wait, want %d", p.Stats().Queued, n)
	}
}

// TestQueueEndsWithTheServer: those that wait are cut, and it was not they who
// left.
func TestQueueEndsWithTheServer(t *testing.T) {
	onSockets(t, "tcp", &Proxy{}, func(t *testing.T, s *stage) {
		p := s.proxy.Pool
		for m := range p.All() {
			require.NoError(t, p.Set(balance.Endpoint{Addr: m.Addr(), MaxConns: 1}))
		}
		held, err := p.Acquire(t.Context(), balance.Request{})
		require.NoError(t, err)
		c, err := net.Dial("tcp", s.addr)
		require.NoError(t, err)
		defer c.Close()
		wantWaiting(t, p, 1)
		require.NoError(t, s.server.Close())
		require.Equal(t, "K", s.record().Termination.String()[:1])
		held.Done(balance.Outcome{})
		_, err = c.Read(make([]byte, 1))
		require.Error(t, err)
		require.NotErrorIs(t, err, syscall.ETIMEDOUT)
	})
}
