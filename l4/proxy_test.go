// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"context"
	"errors"
	"io"
	"math"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/stretchr/testify/require"
)

// A scene is a proxy at 10.0.0.1:80 before servers that the test plays.
type scene struct {
	t       *testing.T
	net     *l4test.Network
	proxy   *Proxy
	server  *Server
	mu      sync.Mutex
	records []Record
}

// play runs f with a proxy of pool servers in a bubble. Leases, connections
// and goroutines left behind fail the test.
func play(t *testing.T, p *Proxy, f func(t *testing.T, s *scene)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &scene{t: t, net: l4test.NewNetwork(), proxy: p}
		if p.Dial == nil {
			p.Dial = s.net.DialContext
		}
		s.server = &Server{Handler: p, Logger: quiet, OnDone: func(r *Record) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.records = append(s.records, *r)
		}}
		wait := serve(s.server, listen(t, s.net, "10.0.0.1:80"))
		f(t, s)
		require.NoError(t, s.server.Shutdown(t.Context()))
		require.ErrorIs(t, wait(), ErrServerClosed)
		for srv := range p.Pool.All() {
			require.Zero(t, srv.InFlight(), srv.Name())
		}
	})
}

// backend listens where a server of the pool is.
func (s *scene) backend(addr string) net.Listener { return listen(s.t, s.net, addr) }

// connect is a client whose connection got through to ln.
func (s *scene) connect(ln net.Listener) (client, server *l4test.Conn) {
	s.t.Helper()
	client = dial(s.t, s.net, "10.0.0.1:80")
	c, err := ln.Accept()
	require.NoError(s.t, err)
	return client, c.(*l4test.Conn)
}

// record waits for the next one.
func (s *scene) record() Record {
	s.t.Helper()
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	require.NotEmpty(s.t, s.records)
	r := s.records[0]
	s.records = s.records[1:]
	return r
}

func pool(t testing.TB, addrs ...string) *balance.Pool {
	t.Helper()
	p := &balance.Pool{Policy: balance.RoundRobin{}}
	var endpoints []balance.Endpoint
	for _, a := range addrs {
		endpoints = append(endpoints, balance.Endpoint{Addr: a})
	}
	require.NoError(t, p.Set(endpoints...))
	return p
}

func wantRead(t *testing.T, c net.Conn, want string) {
	t.Helper()
	p := make([]byte, len(want)+1)
	n, err := c.Read(p)
	require.NoError(t, err)
	require.Equal(t, want, string(p[:n]))
}

func wantError(t *testing.T, c net.Conn, want error) {
	t.Helper()
	_, err := c.Read(make([]byte, 1))
	require.ErrorIs(t, err, want)
}

func send(t *testing.T, c net.Conn, text string) {
	t.Helper()
	_, err := io.WriteString(c, text)
	require.NoError(t, err)
}

// TestProxyEnds plays every way a relayed connection can end.
func TestProxyEnds(t *testing.T) {
	cases := []struct {
		name  string
		proxy *Proxy
		act   func(t *testing.T, client, server *l4test.Conn)
		want  string
		after time.Duration
		says  string // the error; "" if another test looks at it
	}{
		{name: "client ends first", want: "--", act: func(t *testing.T, client, server *l4test.Conn) {
			send(t, client, "question")
			client.CloseWrite()
			wantRead(t, server, "question")
			wantError(t, server, io.EOF)
			send(t, server, "answer")
			server.Close()
			wantRead(t, client, "answer")
			wantError(t, client, io.EOF)
		}},
		{name: "server ends first", want: "--", act: func(t *testing.T, client, server *l4test.Conn) {
			send(t, server, "banner")
			server.CloseWrite()
			wantRead(t, client, "banner")
			wantError(t, client, io.EOF)
			send(t, client, "bye")
			client.Close()
			wantRead(t, server, "bye")
			wantError(t, server, io.EOF)
		}},
		{name: "client resets", want: "CD", act: func(t *testing.T, client, server *l4test.Conn) {
			send(t, client, "half a ques")
			wantRead(t, server, "half a ques")
			client.Reset()
			wantError(t, server, syscall.ECONNRESET)
		}},
		{name: "server resets", want: "SD", act: func(t *testing.T, client, server *l4test.Conn) {
			send(t, server, "half an ans")
			wantRead(t, client, "half an ans")
			server.Reset()
			wantError(t, client, syscall.ECONNRESET)
		}},
		{name: "server answers early and closes", want: "SD", act: func(t *testing.T, client, server *l4test.Conn) {
			send(t, client, "long upload")
			wantRead(t, server, "long upload")
			send(t, server, "no thanks")
			server.Close()
			wantRead(t, client, "no thanks")
			wantError(t, client, io.EOF)
			send(t, client, "more") // not wanted
			synctest.Wait()
			client.Close()
		}},
		{name: "server is cut", want: "SD", act: func(t *testing.T, client, server *l4test.Conn) {
			server.CutAfter(6)
			send(t, server, "a part of it")
			wantRead(t, client, "a part")
			wantError(t, client, syscall.ECONNRESET)
		}},
		{name: "nobody says anything", says: "l4: IdleTimeout of 1h0m0s exceeded", want: "cD", after: time.Hour, act: func(t *testing.T, client, server *l4test.Conn) {
			wantError(t, client, syscall.ECONNRESET)
			wantError(t, server, syscall.ECONNRESET)
		}},
		{name: "both refresh", says: "l4: IdleTimeout of 1m0s exceeded", proxy: &Proxy{IdleTimeout: time.Minute}, want: "sD", after: 130 * time.Second, act: func(t *testing.T, client, server *l4test.Conn) {
			time.Sleep(40 * time.Second)
			send(t, client, "1")
			time.Sleep(20 * time.Second)
			send(t, server, "2")
			time.Sleep(10 * time.Second)
			send(t, client, "3")
			wantRead(t, client, "2")
			wantError(t, client, syscall.ECONNRESET)
		}},
		{name: "client is silent", says: "l4: ClientTimeout of 10s exceeded", proxy: &Proxy{ClientTimeout: 10 * time.Second}, want: "cD", after: 15 * time.Second, act: func(t *testing.T, client, server *l4test.Conn) {
			time.Sleep(5 * time.Second)
			send(t, client, "x")
			time.Sleep(5 * time.Second)
			send(t, server, "does not count")
			wantRead(t, client, "does not count")
			wantError(t, client, syscall.ECONNRESET)
		}},
		{name: "server is silent", says: "l4: ServerTimeout of 10s exceeded", proxy: &Proxy{ServerTimeout: 10 * time.Second}, want: "sD", after: 10 * time.Second, act: func(t *testing.T, client, server *l4test.Conn) {
			time.Sleep(5 * time.Second)
			send(t, client, "x")
			wantError(t, client, syscall.ECONNRESET)
		}},
		{name: "client waits for its answer", want: "--", after: 33 * time.Minute, act: func(t *testing.T, client, server *l4test.Conn) {
			client.CloseWrite()
			time.Sleep(33 * time.Minute)
			send(t, server, "answer")
			server.Close()
			wantRead(t, client, "answer")
			wantError(t, client, io.EOF)
		}},
		{name: "client waits for nothing", says: "l4: IdleTimeout of 1h0m0s exceeded", want: "sD", after: time.Hour, act: func(t *testing.T, client, server *l4test.Conn) {
			client.CloseWrite()
			wantError(t, client, syscall.ECONNRESET)
		}},
		{name: "ServerTimeout goes on after FIN", says: "l4: ServerTimeout of 10s exceeded", proxy: &Proxy{ServerTimeout: 10 * time.Second}, want: "sD", after: 15 * time.Second, act: func(t *testing.T, client, server *l4test.Conn) {
			time.Sleep(5 * time.Second)
			client.CloseWrite()
			wantError(t, client, syscall.ECONNRESET)
		}},
		{name: "client stays after the server is done, by default", says: "l4: HalfClosedTimeout of 30s exceeded", want: "cL", after: 30 * time.Second, act: func(t *testing.T, client, server *l4test.Conn) {
			server.CloseWrite()
			wantError(t, client, io.EOF)
			wantError(t, server, syscall.ECONNRESET)
		}},
		{name: "the longest durations", says: "l4: ClientTimeout of 59s exceeded", want: "cD", after: time.Minute, proxy: &Proxy{
			IdleTimeout: math.MaxInt64, ServerTimeout: math.MaxInt64, ClientTimeout: time.Minute - time.Second, HalfClosedTimeout: math.MaxInt64, Lifetime: math.MaxInt64,
			ConnectTimeout: math.MaxInt64,
		}, act: func(t *testing.T, client, server *l4test.Conn) {
			time.Sleep(time.Second)
			send(t, client, "x")
			wantRead(t, server, "x")
			wantError(t, client, syscall.ECONNRESET)
		}},
		{name: "server is silent after FIN", says: "l4: HalfClosedTimeout of 30s exceeded", proxy: &Proxy{HalfClosedTimeout: 30 * time.Second}, want: "sD", after: 40 * time.Second, act: func(t *testing.T, client, server *l4test.Conn) {
			time.Sleep(5 * time.Second)
			client.CloseWrite()
			time.Sleep(5 * time.Second)
			send(t, server, "refreshes")
			wantRead(t, client, "refreshes")
			wantError(t, client, syscall.ECONNRESET)
		}},
		{name: "client stays after the server is done", says: "l4: HalfClosedTimeout of 1s exceeded", proxy: &Proxy{HalfClosedTimeout: time.Second}, want: "cL", after: time.Second, act: func(t *testing.T, client, server *l4test.Conn) {
			server.CloseWrite()
			wantError(t, client, io.EOF)
			wantError(t, server, syscall.ECONNRESET)
		}},
		{name: "lifetime", says: "l4: Lifetime of 1m0s exceeded", proxy: &Proxy{Lifetime: time.Minute}, want: "LD", after: time.Minute, act: func(t *testing.T, client, server *l4test.Conn) {
			for {
				if _, err := io.WriteString(client, "x"); err != nil {
					return
				}
				time.Sleep(time.Second / 2)
				server.Read(make([]byte, 1))
			}
		}},
		{name: "client does not read", want: "cD", after: time.Hour, act: func(t *testing.T, client, server *l4test.Conn) {
			server.SetWriteDeadline(time.Now().Add(2 * time.Hour))
			_, err := server.Write(make([]byte, 10<<20))
			require.ErrorIs(t, err, syscall.ECONNRESET)
		}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if c.proxy == nil {
				c.proxy = &Proxy{}
			}
			c.proxy.Pool = pool(t, "10.0.1.1:80")
			play(t, c.proxy, func(t *testing.T, s *scene) {
				client, server := s.connect(s.backend("10.0.1.1:80"))
				c.act(t, client, server)
				synctest.Wait()
				client.Close()
				server.Close()
				r := s.record()
				require.Equal(t, c.want, r.Termination.String(), "%v", r.Err)
				require.Equal(t, c.want == "--", r.Err == nil, "%v", r.Err)
				require.Equal(t, "10.0.1.1:80", r.Server)
				if c.says != "" {
					require.EqualError(t, r.Err, c.says)
					require.ErrorIs(t, r.Err, os.ErrDeadlineExceeded)
				}
				if c.after > 0 {
					require.InDelta(t, c.after, r.Total, float64(time.Second))
				}
			})
		})
	}
}

func TestProxyRecord(t *testing.T) {
	play(t, &Proxy{Pool: pool(t, "10.0.1.1:80")}, func(t *testing.T, s *scene) {
		ln := s.backend("10.0.1.1:80")
		client, server := s.connect(ln)
		time.Sleep(time.Second)
		send(t, client, "hello")
		time.Sleep(time.Second)
		send(t, server, "welcome")
		wantRead(t, client, "welcome")
		client.Close()
		wantRead(t, server, "hello")
		wantError(t, server, io.EOF)
		server.Close()
		r := s.record()
		r.mu = nil
		require.Equal(t, Record{
			Remote: client.LocalAddr(), Local: client.RemoteAddr(), Start: r.Start,
			Assigned: 1, Connected: 1, FirstByte: 2 * time.Second, Total: 2 * time.Second, BytesIn: 5, BytesOut: 7, ToServer: 5, FromServer: 7, Server: "10.0.1.1:80", Tries: 1,
		}, r)
	})
}

func TestProxyTriesAnother(t *testing.T) {
	play(t, &Proxy{Pool: pool(t, "10.0.1.1:80", "10.0.1.2:80", "10.0.1.3:80")}, func(t *testing.T, s *scene) {
		s.net.Drop("tcp", "10.0.1.2:80") // times out; the first refuses
		ln := s.backend("10.0.1.3:80")
		client, server := s.connect(ln)
		wantEchoBetween(t, client, server)
		client.Close()
		server.Close()
		r := s.record()
		require.Equal(t, 3, r.Tries)
		require.Equal(t, "10.0.1.3:80", r.Server)
		require.Equal(t, 3*time.Second, r.Assigned, "of the last try")
		require.Equal(t, 3*time.Second, r.Connected)
		require.Equal(t, "--", r.Termination.String())
	})
}

// TestProxyRefusedNeedsNoBudget has a connection go on to the next server
// without any retry budget, since the first has refused.
func TestProxyRefusedNeedsNoBudget(t *testing.T) {
	p := &balance.Pool{Policy: balance.RoundRobin{}, Budget: balance.Budget{Share: -1, Min: -1}}
	require.NoError(t, p.Set(balance.Endpoint{Addr: "10.0.1.1:80"}, balance.Endpoint{Addr: "10.0.1.2:80"}))
	play(t, &Proxy{Pool: p}, func(t *testing.T, s *scene) {
		client, server := s.connect(s.backend("10.0.1.2:80"))
		wantEchoBetween(t, client, server)
		client.Close()
		server.Close()
		require.Equal(t, 2, s.record().Tries)
	})
}

func wantEchoBetween(t *testing.T, client, server net.Conn) {
	t.Helper()
	send(t, client, "ping")
	wantRead(t, server, "ping")
	send(t, server, "pong")
	wantRead(t, client, "pong")
}

func TestProxyReachesNobody(t *testing.T) {
	cases := []struct {
		name  string
		proxy *Proxy
		set   func(t *testing.T, s *scene)
		want  string
		err   error
		tries int
	}{
		{"no server", &Proxy{Pool: pool(t)}, func(t *testing.T, s *scene) {}, "SC", balance.ErrNoServer, 0},
		{"refused", &Proxy{Pool: pool(t, "10.0.1.1:80", "10.0.1.2:80")}, func(t *testing.T, s *scene) {}, "SC", syscall.ECONNREFUSED, 2},
		{"silent", &Proxy{Pool: pool(t, "10.0.1.1:80"), Tries: -1}, func(t *testing.T, s *scene) { s.net.Drop("tcp", "10.0.1.1:80") }, "sC", context.DeadlineExceeded, 1},
		{"handshake fails", &Proxy{Pool: pool(t, "10.0.1.1:80"), Tries: 1,
			Handshake: func(context.Context, net.Conn, net.Conn, *balance.Server) (net.Conn, error) {
				return nil, io.ErrUnexpectedEOF
			}},
			func(t *testing.T, s *scene) { s.backend("10.0.1.1:80") }, "SC", io.ErrUnexpectedEOF, 1},
		{"handshake is slow", &Proxy{Pool: pool(t, "10.0.1.1:80"), Tries: 1,
			Handshake: func(ctx context.Context, client, server net.Conn, s *balance.Server) (net.Conn, error) {
				_, err := server.Read(make([]byte, 1))
				return nil, err
			}},
			func(t *testing.T, s *scene) { s.backend("10.0.1.1:80") }, "sC", os.ErrDeadlineExceeded, 1},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			play(t, c.proxy, func(t *testing.T, s *scene) {
				c.set(t, s)
				client := dial(t, s.net, "10.0.0.1:80")
				wantError(t, client, syscall.ECONNRESET)
				r := s.record()
				require.Equal(t, c.want, r.Termination.String())
				require.ErrorIs(t, r.Err, c.err)
				if c.want == "sC" {
					require.ErrorContains(t, r.Err, "ConnectTimeout of 3s exceeded")
				}
				require.Equal(t, c.tries, r.Tries)
				require.Zero(t, r.Connected)
				require.Zero(t, r.FirstByte)
			})
		})
	}
}

func TestProxyQueue(t *testing.T) {
	p := &balance.Pool{Queue: balance.Queue{Size: 1, Timeout: 10 * time.Second}}
	require.NoError(t, p.Set(balance.Endpoint{Addr: "10.0.1.1:80", MaxConns: 1}))
	play(t, &Proxy{Pool: p}, func(t *testing.T, s *scene) {
		ln := s.backend("10.0.1.1:80")
		client, server := s.connect(ln)
		wantEchoBetween(t, client, server)
		second := dial(t, s.net, "10.0.0.1:80")
		synctest.Wait()
		third := dial(t, s.net, "10.0.0.1:80")
		wantError(t, third, syscall.ECONNRESET)
		r := s.record()
		require.Equal(t, "RQ", r.Termination.String())
		require.ErrorIs(t, r.Err, balance.ErrQueueFull)

		time.Sleep(4 * time.Second)
		client.Close()
		server.Close()
		require.Equal(t, "--", s.record().Termination.String())
		other, err := ln.Accept()
		require.NoError(t, err)
		wantEchoBetween(t, second, other)

		fourth := dial(t, s.net, "10.0.0.1:80")
		wantError(t, fourth, syscall.ECONNRESET)
		r = s.record()
		require.Equal(t, "sQ", r.Termination.String())
		require.Zero(t, r.Assigned)
		require.Equal(t, 10*time.Second, r.Total)
		second.Close()
		other.Close()
		require.Equal(t, 4*time.Second, s.record().Assigned)
	})
}

func TestProxyCutOnDown(t *testing.T) {
	for _, cut := range []bool{true, false} {
		play(t, &Proxy{Pool: pool(t, "10.0.1.1:80"), CutOnDown: cut}, func(t *testing.T, s *scene) {
			client, server := s.connect(s.backend("10.0.1.1:80"))
			wantEchoBetween(t, client, server)
			member := s.proxy.Pool.Server("10.0.1.1:80")
			member.Report(balance.Check, balance.Down, "test")
			synctest.Wait()
			if !cut {
				wantEchoBetween(t, client, server)
				member.Cut(true, "told to")
			}
			wantError(t, client, syscall.ECONNRESET)
			wantError(t, server, syscall.ECONNRESET)
			require.Equal(t, "DD", s.record().Termination.String())
		})
	}
}

func TestProxyKilledByShutdown(t *testing.T) {
	play(t, &Proxy{Pool: pool(t, "10.0.1.1:80")}, func(t *testing.T, s *scene) {
		client, server := s.connect(s.backend("10.0.1.1:80"))
		wantEchoBetween(t, client, server)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		require.ErrorIs(t, s.server.Shutdown(ctx), context.DeadlineExceeded)
		wantError(t, server, syscall.ECONNRESET)
		require.Equal(t, "KD", s.record().Termination.String())
		client.Close()
	})
}

// TestProxyWithoutServer serves a connection that nobody accepted for it.
func TestProxyWithoutServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := l4test.NewNetwork()
		p := &Proxy{Pool: pool(t, "10.0.1.1:80"), Dial: n.DialContext}
		ln := listen(t, n, "10.0.1.1:80")
		c, client := l4test.Pipe()
		ctx, cancel := context.WithCancel(t.Context())
		go p.ServeConn(ctx, c)
		server, err := ln.Accept()
		require.NoError(t, err)
		wantEchoBetween(t, client, server)
		cancel()
		wantError(t, client, syscall.ECONNRESET)
		synctest.Wait()
		require.Zero(t, p.Pool.Server("10.0.1.1:80").InFlight())
	})
}

func TestProxyLocalHandler(t *testing.T) {
	p := &balance.Pool{}
	require.NoError(t, p.Set(balance.Endpoint{Name: "local", Value: echo}))
	play(t, &Proxy{Pool: p}, func(t *testing.T, s *scene) {
		c := dial(t, s.net, "10.0.0.1:80")
		wantEcho(t, c, "in process")
		c.Close()
		require.Equal(t, "local", s.record().Server)
	})
}

func TestProxySticky(t *testing.T) {
	addrs := []string{"10.0.1.1:80", "10.0.1.2:80", "10.0.1.3:80"}
	proxy := &Proxy{Pool: pool(t, addrs...), Sticky: &Sticky{Expire: time.Minute}}
	play(t, proxy, func(t *testing.T, s *scene) {
		for _, a := range addrs {
			ln := s.backend(a)
			defer ln.Close()
			go (&Server{Handler: echo}).Serve(ln)
		}
		visit := func(from string) string {
			dial := s.net.DialFrom(netip.AddrPortFrom(netip.MustParseAddr(from), 0))
			c, err := dial(t.Context(), "tcp", "10.0.0.1:80")
			require.NoError(t, err)
			wantEcho(t, c, "x")
			c.Close()
			return s.record().Server
		}
		a := visit("203.0.113.1")
		b := visit("203.0.113.2")
		require.NotEqual(t, a, b)
		for range 3 {
			require.Equal(t, a, visit("203.0.113.1"))
			require.Equal(t, b, visit("203.0.113.2"))
		}
		require.Equal(t, 2, proxy.Sticky.Len())
		proxy.Pool.Server(a).SetAdmin(balance.Maint, "test")
		moved := visit("203.0.113.1")
		require.NotEqual(t, a, moved)
		proxy.Pool.Server(a).SetAdmin(balance.Ready, "test")
		require.Equal(t, moved, visit("203.0.113.1"), "it stays where it went")
	})
}

func TestSticky(t *testing.T) {
	addr := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}) }
	start := time.Now()
	at := func(d time.Duration) time.Time { return start.Add(d) }
	table := &Sticky{Max: 3, Expire: time.Minute}
	require.Empty(t, table.lookup(addr(1), start))
	for i := range 4 {
		table.note(addr(i), "s", at(time.Duration(i)))
	}
	require.Equal(t, 3, table.Len())
	require.Empty(t, table.lookup(addr(0), at(10)), "the oldest had to go")
	require.Equal(t, "s", table.lookup(addr(1), at(10*time.Second)))
	table.note(addr(4), "s", at(10*time.Second))
	require.Empty(t, table.lookup(addr(2), at(11*time.Second)), "it was used less lately than 1")
	require.Equal(t, "s", table.lookup(addr(1), at(69*time.Second)))
	require.Empty(t, table.lookup(addr(1), at(129*time.Second)), "expired")
	table.note(netip.Addr{}, "s", start)
	require.Equal(t, 1, table.Forget(func(a netip.Addr, server string) bool { return a == addr(3) }))
	require.Equal(t, 1, table.Forget(nil))
	require.Zero(t, table.Len())
}

func TestServerErrorIs(t *testing.T) {
	err := error(&ServerError{Server: "a", Addr: "b", Err: syscall.ECONNREFUSED})
	require.True(t, errors.Is(err, syscall.ECONNREFUSED))
	require.EqualError(t, err, "l4: server a: connection refused")
}

func TestTermination(t *testing.T) {
	require.Equal(t, "--", Termination{}.String())
	require.Equal(t, "sQ", Termination{ServerTimeout, PhaseQueue}.String())
	require.Equal(t, "KT", Termination{Killed, PhaseTarpit}.String())
	require.Equal(t, "??", Termination{99, 99}.String())
	var names []string
	for c := Normal; c <= Killed+1; c++ {
		names = append(names, c.String())
	}
	for p := PhaseNone; p <= PhaseTarpit+1; p++ {
		names = append(names, p.String())
	}
	slices.Sort(names)
	require.Len(t, slices.Compact(names), int(Killed)+2+int(PhaseTarpit)+2, "all differ, as do the numbers of what has no name")
}
