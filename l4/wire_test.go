// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
)

// A stage is a proxy on real sockets.
type stage struct {
	t       *testing.T
	server  *Server
	proxy   *Proxy
	addr    string
	backend net.Listener
	records chan Record
	clients int // connections that the test holds two ends of
}

// onSockets runs f with a proxy at addr before one server, and checks that
// nothing is left behind. Network is that of the server: tcp or unix.
func onSockets(t *testing.T, network string, p *Proxy, f func(t *testing.T, s *stage)) {
	t.Helper()
	behind(t, network, p, p, net.Listen, f)
}

// behind is onSockets with handlers before the proxy, and another way to listen.
func behind(t *testing.T, network string, p *Proxy, h Handler, listen func(network, addr string) (net.Listener, error), f func(t *testing.T, s *stage)) {
	t.Helper()
	before, files := runtime.NumGoroutine(), descriptors()
	s := &stage{t: t, proxy: p, records: make(chan Record, 1000)}
	addr, name := "127.0.0.1:0", ""
	if network == "unix" {
		addr, name = filepath.Join(t.TempDir(), "s"), "unix:"
	}
	var err error
	s.backend, err = net.Listen(network, addr)
	require.NoError(t, err)
	if p.Pool == nil {
		p.Pool = &balance.Pool{}
	}
	require.NoError(t, p.Pool.Set(balance.Endpoint{Addr: name + s.backend.Addr().String()}))
	s.server = &Server{Handler: h, Logger: quiet, OnDone: func(r *Record) { s.records <- *r }}
	front, err := listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s.addr = front.Addr().String()
	wait := serve(s.server, front)
	f(t, s)
	s.backend.Close()
	require.NoError(t, s.server.Close())
	require.ErrorIs(t, wait(), ErrServerClosed)
	for m := range p.Pool.All() {
		require.Zero(t, m.InFlight())
	}
	for end := time.Now().Add(30 * time.Second); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			stacks := make([]byte, 1<<16)
			t.Fatalf("goroutines left behind:\n%s", stacks[:runtime.Stack(stacks, true)])
		}
	}
	require.LessOrEqual(t, descriptors(), files+2*s.clients, "descriptors left behind")
}

// descriptors returns how many the process has open, 0 if it cannot know.
func descriptors() int {
	all, _ := os.ReadDir("/proc/self/fd")
	return len(all)
}

func (s *stage) connect() (client *net.TCPConn, server net.Conn) {
	s.t.Helper()
	c, err := net.Dial("tcp", s.addr)
	require.NoError(s.t, err)
	b, err := s.backend.Accept()
	require.NoError(s.t, err)
	s.t.Cleanup(func() { c.Close(); b.Close() })
	s.clients++
	return c.(*net.TCPConn), b
}

func (s *stage) record() Record {
	s.t.Helper()
	select {
	case r := <-s.records:
		return r
	case <-time.After(30 * time.Second):
		s.t.Fatal("no record")
		return Record{}
	}
}

func closeWrite(t *testing.T, c net.Conn) {
	t.Helper()
	require.NoError(t, c.(interface{ CloseWrite() error }).CloseWrite())
}

// TestWireEnds plays on sockets what TestProxyEnds plays in memory.
func TestWireEnds(t *testing.T) {
	cases := []struct {
		name  string
		proxy *Proxy
		act   func(t *testing.T, client *net.TCPConn, server net.Conn)
		want  string
	}{
		{"client ends first", &Proxy{}, func(t *testing.T, client *net.TCPConn, server net.Conn) {
			send(t, client, "question")
			closeWrite(t, client)
			wantRead(t, server, "question")
			wantError(t, server, io.EOF)
			send(t, server, "answer")
			server.Close()
			wantRead(t, client, "answer")
			wantError(t, client, io.EOF)
		}, "--"},
		{"server ends first", &Proxy{}, func(t *testing.T, client *net.TCPConn, server net.Conn) {
			send(t, server, "banner")
			closeWrite(t, server)
			wantRead(t, client, "banner")
			wantError(t, client, io.EOF)
			send(t, client, "bye")
			client.Close()
			wantRead(t, server, "bye")
			wantError(t, server, io.EOF)
			server.Close()
		}, "--"},
		{"client resets", &Proxy{}, func(t *testing.T, client *net.TCPConn, server net.Conn) {
			wantEchoBetween(t, client, server)
			client.SetLinger(0)
			client.Close()
			wantError(t, server, syscall.ECONNRESET)
		}, "CD"},
		{"server resets", &Proxy{}, func(t *testing.T, client *net.TCPConn, server net.Conn) {
			wantEchoBetween(t, client, server)
			server.(*net.TCPConn).SetLinger(0)
			server.Close()
			wantError(t, client, syscall.ECONNRESET)
		}, "SD"},
		{"nobody says anything", &Proxy{IdleTimeout: 50 * time.Millisecond}, func(t *testing.T, client *net.TCPConn, server net.Conn) {
			wantError(t, client, syscall.ECONNRESET)
			wantError(t, server, syscall.ECONNRESET)
		}, "cD"},
		{"server is silent after FIN", &Proxy{HalfClosedTimeout: 50 * time.Millisecond}, func(t *testing.T, client *net.TCPConn, server net.Conn) {
			closeWrite(t, client)
			wantError(t, server, io.EOF)
			wantError(t, client, syscall.ECONNRESET)
		}, "sD"},
		{"client resets while the server does not read", &Proxy{}, func(t *testing.T, client *net.TCPConn, server net.Conn) {
			client.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
			_, err := client.Write(make([]byte, 64<<20))
			require.Error(t, err)
			client.SetLinger(0)
			client.Close()
		}, "CD"},
		{"half-closed for too long, else without a limit", &Proxy{IdleTimeout: -1, HalfClosedTimeout: 50 * time.Millisecond}, func(t *testing.T, client *net.TCPConn, server net.Conn) {
			closeWrite(t, server)
			wantError(t, client, io.EOF)
			wantError(t, client, io.EOF)
		}, "cL"},
		{"client does not read", &Proxy{IdleTimeout: 50 * time.Millisecond}, func(t *testing.T, client *net.TCPConn, server net.Conn) {
			_, err := server.Write(make([]byte, 64<<20))
			require.Error(t, err)
		}, "cD"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			onSockets(t, "tcp", c.proxy, func(t *testing.T, s *stage) {
				client, server := s.connect()
				c.act(t, client, server)
				r := s.record()
				require.Equal(t, c.want, r.Termination.String(), "%v", r.Err)
				if r.Err != nil {
					require.NotContains(t, r.Err.Error(), "->:0", "a socket that was reset is named by its addresses")
				}
			})
		})
	}
}

// TestWireBulk sends a lot both ways at once, in pieces of all sizes.
func TestWireBulk(t *testing.T) {
	size := 24 << 20
	if testing.Short() {
		size = 4 << 20
	}
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			onSockets(t, network, &Proxy{}, func(t *testing.T, s *stage) {
				client, server := s.connect()
				var wg sync.WaitGroup
				stream := func(from, to net.Conn, seed uint64) {
					sum := make(chan [32]byte, 1)
					wg.Go(func() {
						h := sha256.New()
						rng := rand.New(rand.NewPCG(seed, 0))
						for left := size; left > 0; {
							p := bytes.Repeat([]byte{byte(rng.Uint32())}, min(left, 1+rng.IntN(300_000)))
							h.Write(p)
							if _, err := from.Write(p); err != nil {
								t.Error(err)
								return
							}
							left -= len(p)
						}
						from.(interface{ CloseWrite() error }).CloseWrite()
						sum <- [32]byte(h.Sum(nil))
					})
					wg.Go(func() {
						h := sha256.New()
						n, err := io.Copy(h, to)
						if n != int64(size) || err != nil {
							t.Errorf("read %d of %d, %v", n, size, err)
							return
						}
						if got, want := [32]byte(h.Sum(nil)), <-sum; got != want {
							t.Error("not what was sent")
						}
					})
				}
				stream(client, server, 1)
				stream(server, client, 2)
				wg.Wait()
				r := s.record()
				require.Equal(t, "--", r.Termination.String(), "%v", r.Err)
				require.EqualValues(t, size, r.BytesIn)
				require.EqualValues(t, size, r.BytesOut)
				wantPipes(t, s.server)
			})
		})
	}
}

// TestWireMany opens and closes connections from many goroutines, in all
// manners at once.
func TestWireMany(t *testing.T) {
	onSockets(t, "tcp", &Proxy{}, func(t *testing.T, s *stage) {
		back := &Server{Handler: echo, Logger: quiet}
		go back.Serve(s.backend)
		defer back.Close()
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				for j := range 50 {
					c, err := net.Dial("tcp", s.addr)
					if err != nil {
						t.Error(err)
						return
					}
					text := []byte("hello")
					c.Write(text)
					if _, err := io.ReadFull(c, text); err != nil || string(text) != "hello" {
						t.Errorf("%q, %v", text, err)
					}
					switch (i + j) % 3 {
					case 0:
						c.(*net.TCPConn).SetLinger(0)
					case 1:
						c.(*net.TCPConn).CloseWrite()
						io.Copy(io.Discard, c)
					}
					c.Close()
				}
			})
		}
		wg.Wait()
		for range 400 {
			s.record()
		}
		// The record comes first, so that Shutdown does not return before it.
		for end := time.Now().Add(30 * time.Second); s.server.Open() > 0; time.Sleep(time.Millisecond) {
			require.True(t, time.Now().Before(end), "%d are open", s.server.Open())
		}
	})
}

// TestWireShutdown cuts what does not end by itself.
func TestWireShutdown(t *testing.T) {
	onSockets(t, "tcp", &Proxy{}, func(t *testing.T, s *stage) {
		client, server := s.connect()
		wantEchoBetween(t, client, server)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		require.ErrorIs(t, s.server.Shutdown(ctx), context.DeadlineExceeded)
		_, err := client.Read(make([]byte, 1))
		require.Error(t, err)
		_, err = server.Read(make([]byte, 1))
		require.Error(t, err)
		require.Equal(t, "KD", s.record().Termination.String())
	})
}

// TestRelayTunnel relays by the exported function, with what was read ahead,
// with and without a Parker, and breaks off or ends it.
func TestRelayTunnel(t *testing.T) {
	for i := range 4 {
		wired, ends := i&1 > 0, i&2 > 0
		client, a := tcpPair(t)
		b, server := tcpPair(t)
		var opt RelayOptions
		if wired {
			p, err := NewParker()
			if err != nil {
				t.Skip(err)
			}
			done := make(chan struct{})
			go func() { p.Run(); close(done) }()
			defer func() { p.Close(); <-done }()
			opt.Parker = p
		}
		front, back := NewConn(a), NewConn(b)
		send(t, client, "read ahead")
		_, err := front.Peek(10)
		require.NoError(t, err)
		result := make(chan RelayResult)
		ctx, cancel := context.WithCancelCause(t.Context())
		go func() { result <- Relay(ctx, front, back, opt) }()
		wantRead(t, server, "read ahead")
		wantEchoBetween(t, client, server)
		cause, seen, want := context.Canceled, error(syscall.ECONNRESET), Termination{Killed, PhaseData}
		if ends {
			cause, seen, want = fmt.Errorf("enough: %w", ErrEnd), io.EOF, Termination{}
		}
		cancel(cause)
		r := <-result
		require.Equal(t, want, r.Termination)
		require.ErrorIs(t, r.Err, cause)
		require.EqualValues(t, 14, r.AtoB)
		require.EqualValues(t, 4, r.BtoA)
		front.Close()
		back.Close()
		wantError(t, client, seen)
		wantError(t, server, seen)
	}
}

// TestRelayByServersParker: a handler that relays what a Server has accepted has
// its bulk go by splice, without saying so.
func TestRelayByServersParker(t *testing.T) {
	const size = 8 << 20
	b, server := tcpPair(t)
	results := make(chan RelayResult, 1)
	s := &Server{Logger: quiet, Handler: HandlerFunc(func(ctx context.Context, c net.Conn) error {
		defer c.Close()
		back := NewConn(b)
		defer back.Close()
		results <- Relay(ctx, c.(*Conn), back, RelayOptions{})
		return nil
	})}
	front, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	wait := serve(s, front)
	client, err := net.Dial("tcp", front.Addr().String())
	require.NoError(t, err)
	defer client.Close()
	go func() {
		client.Write(make([]byte, size))
		client.(*net.TCPConn).CloseWrite()
	}()
	n, err := io.Copy(io.Discard, server)
	require.NoError(t, err)
	require.EqualValues(t, size, n)
	server.Close()
	wantError(t, client, io.EOF)
	require.Equal(t, RelayResult{AtoB: size}, <-results)
	wantPipes(t, s)
	require.NoError(t, s.Shutdown(t.Context()))
	require.ErrorIs(t, wait(), ErrServerClosed)
}

// TestResetAfterClientsEnd: a server that resets what its client has left did
// break the connection, but is not to be ejected for it.
func TestResetAfterClientsEnd(t *testing.T) {
	for _, ended := range []bool{true, false} {
		outcomes := make(chan balance.Outcome, 1)
		observed := &balance.Pool{OnOutcome: []func(*balance.Server, balance.Outcome){
			func(_ *balance.Server, o balance.Outcome) { outcomes <- o },
		}}
		onSockets(t, "tcp", &Proxy{Pool: observed}, func(t *testing.T, s *stage) {
			client, server := s.connect()
			wantEchoBetween(t, client, server)
			if ended {
				closeWrite(t, client)
				wantError(t, server, io.EOF)
			}
			server.(*net.TCPConn).SetLinger(0)
			server.Close()
			wantError(t, client, syscall.ECONNRESET)
			require.Equal(t, "SD", s.record().Termination.String())
			want := balance.Reset
			if ended {
				want = balance.OK
			}
			o := <-outcomes
			require.Equal(t, want, o.Class)
			require.ErrorIs(t, o.Err, syscall.ECONNRESET)
		})
	}
}
