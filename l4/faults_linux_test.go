// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
)

// The faults of real sockets that TestWireEnds does not play: those before
// anything is relayed. What they do in memory is in TestRouterWaits,
// TestRouterRecord, TestAcceptProxyRefuses, TestProxyReachesNobody and
// TestServerAcceptErrors.

// listeners are the two ways to listen, whose connections differ.
func listeners(t *testing.T, f func(t *testing.T, listen func(network, addr string) (net.Listener, error))) {
	t.Run("net", func(t *testing.T) { f(t, net.Listen) })
	t.Run("l4", func(t *testing.T) {
		f(t, func(network, addr string) (net.Listener, error) {
			return new(ListenConfig).Listen(t.Context(), network, addr)
		})
	})
}

// open connects to the stage's front only.
func (s *stage) open() *net.TCPConn {
	s.t.Helper()
	c, err := net.Dial("tcp", s.addr)
	require.NoError(s.t, err)
	s.t.Cleanup(func() { c.Close() })
	s.clients++
	return c.(*net.TCPConn)
}

// TestFaultsBeforeRoute: clients that are slow to say what they want, in every
// manner.
func TestFaultsBeforeRoute(t *testing.T) {
	hello := string(clientHello(t, &tls.Config{ServerName: "a.test", NextProtos: []string{"h2"}}))
	header := v2(0x21, 0x11, inet4+"\x02\x00\x06a.test")
	// inBytes sends text as so many segments.
	inBytes := func(t *testing.T, c net.Conn, text string) {
		for i := range len(text) {
			send(t, c, text[i:i+1])
		}
	}
	// reaches reads what the server gets, to the client's end.
	reaches := func(t *testing.T, s *stage, client *net.TCPConn, want string) {
		s.backend.(*net.TCPListener).SetDeadline(time.Now().Add(30 * time.Second))
		server, err := s.backend.Accept()
		if err != nil {
			t.Fatalf("not reached, %+v", s.record())
		}
		s.clients++
		defer server.Close()
		closeWrite(t, client)
		got, err := io.ReadAll(server)
		require.NoError(t, err)
		require.Equal(t, want, string(got), "no byte lost")
		server.Close()
		wantError(t, client, io.EOF)
		client.Close()
	}
	const short = 100 * time.Millisecond
	for _, tt := range []struct {
		name string
		act  func(t *testing.T, s *stage, client *net.TCPConn)
		want string
		from string // RemoteAddr in the record; empty means the client's own
	}{
		{name: "ClientHello in segments of 1 byte", want: "--", from: "10.0.0.1:56789", act: func(t *testing.T, s *stage, client *net.TCPConn) {
			send(t, client, header)
			inBytes(t, client, hello)
			reaches(t, s, client, hello)
		}},
		{name: "PROXY header and ClientHello in segments of 1 byte", want: "--", from: "10.0.0.1:56789", act: func(t *testing.T, s *stage, client *net.TCPConn) {
			inBytes(t, client, header+hello)
			reaches(t, s, client, hello)
		}},
		{name: "client never sends", want: "cR", act: func(t *testing.T, s *stage, client *net.TCPConn) {
			wantGone(t, client)
		}},
		{name: "client never sends after its PROXY header", want: "cR", from: "10.0.0.1:56789", act: func(t *testing.T, s *stage, client *net.TCPConn) {
			send(t, client, header)
			wantGone(t, client)
		}},
		{name: "slow loris in the PROXY header", want: "cR", act: func(t *testing.T, s *stage, client *net.TCPConn) {
			trickle(client, header, short/5)
			wantGone(t, client)
		}},
		{name: "slow loris in the ClientHello", want: "cR", from: "10.0.0.1:56789", act: func(t *testing.T, s *stage, client *net.TCPConn) {
			send(t, client, header)
			trickle(client, hello, short/5)
			wantGone(t, client)
		}},
		{name: "end in the PROXY header", want: "CR", act: func(t *testing.T, s *stage, client *net.TCPConn) {
			send(t, client, header[:20])
			closeWrite(t, client)
			wantGone(t, client)
		}},
		{name: "end in the ClientHello", want: "CR", from: "10.0.0.1:56789", act: func(t *testing.T, s *stage, client *net.TCPConn) {
			send(t, client, header+hello[:100])
			closeWrite(t, client)
			wantGone(t, client)
		}},
		{name: "reset in the ClientHello", want: "CR", from: "10.0.0.1:56789", act: func(t *testing.T, s *stage, client *net.TCPConn) {
			send(t, client, header+hello[:100])
			time.AfterFunc(short/5, func() { client.SetLinger(0); client.Close() })
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			listeners(t, func(t *testing.T, listen func(network, addr string) (net.Listener, error)) {
				p := &Proxy{}
				r := &Router{Routes: []Route{{Match: SNI("a.test"), Handler: p}}}
				h := &AcceptProxy{Trusted: MustParsePrefixes("127.0.0.0/8"), Next: r}
				switch { // only what must time out is given little time
				case tt.want == "cR" && tt.from == "":
					h.Timeout = short
				case tt.want == "cR":
					r.Timeout = short
				}
				behind(t, "tcp", p, h, listen, func(t *testing.T, s *stage) {
					client := s.open()
					from := client.LocalAddr().String()
					if tt.from != "" {
						from = tt.from
					}
					tt.act(t, s, client)
					r := s.record()
					require.Equal(t, tt.want, r.Termination.String(), "%v", r.Err)
					require.Equal(t, tt.want == "--", r.Err == nil, "%v", r.Err)
					require.Equal(t, from, r.Remote.String())
				})
			})
		})
	}
}

// wantGone waits for the other side to close, or reset, c.
func wantGone(t *testing.T, c net.Conn) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(30 * time.Second))
	_, err := c.Read(make([]byte, 1))
	require.Error(t, err)
	require.False(t, isTimeout(err), "still open")
}

// trickle sends text byte by byte until it is done or c is closed.
func trickle(c net.Conn, text string, every time.Duration) {
	for i := range len(text) {
		if _, err := io.WriteString(c, text[i:i+1]); err != nil {
			return
		}
		time.Sleep(every)
	}
}

// fullSocket returns the address of a socket whose backlog is full, which answers to
// nothing.
func fullSocket(t *testing.T) string {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	t.Cleanup(func() { syscall.Close(fd) })
	require.NoError(t, syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	require.NoError(t, syscall.Listen(fd, 0))
	sa, err := syscall.Getsockname(fd)
	require.NoError(t, err)
	full := sockAddr(sa).String()
	for range 10 { // more than the backlog takes
		c, err := net.DialTimeout("tcp", full, 50*time.Millisecond)
		if err != nil {
			break
		}
		t.Cleanup(func() { c.Close() })
	}
	return full
}

// TestFaultServerNeverAccepts connects to a socket that answers to nothing.
func TestFaultServerNeverAccepts(t *testing.T) {
	listeners(t, func(t *testing.T, listen func(network, addr string) (net.Listener, error)) {
		full := fullSocket(t)
		p := &Proxy{ConnectTimeout: 100 * time.Millisecond, Tries: 1}
		behind(t, "tcp", p, p, listen, func(t *testing.T, s *stage) {
			require.NoError(t, p.Pool.Set(balance.Endpoint{Addr: full}))
			client := s.open()
			wantError(t, client, syscall.ECONNRESET)
			r := s.record()
			require.Equal(t, "sC", r.Termination.String(), "%v", r.Err)
			require.ErrorIs(t, r.Err, os.ErrDeadlineExceeded)
			require.Positive(t, r.Assigned)
			require.Zero(t, r.Connected)
			require.Zero(t, r.FirstByte)
			require.GreaterOrEqual(t, r.Total, 100*time.Millisecond)
		})
	})
}

// TestFaultCutOfServerThatNeverAccepts cuts it while it is connected to.
func TestFaultCutOfServerThatNeverAccepts(t *testing.T) {
	listeners(t, func(t *testing.T, listen func(network, addr string) (net.Listener, error)) {
		full := fullSocket(t)
		p := &Proxy{ConnectTimeout: time.Minute, Tries: 1}
		behind(t, "tcp", p, p, listen, func(t *testing.T, s *stage) {
			require.NoError(t, p.Pool.Set(balance.Endpoint{Addr: full}))
			server := p.Pool.Server(full)
			client := s.open()
			for end := time.Now().Add(10 * time.Second); server.InFlight() == 0 && time.Now().Before(end); {
				time.Sleep(time.Millisecond)
			}
			go func() { // it may not be attached yet
				for server.InFlight() > 0 {
					server.Cut(true, "told to")
					time.Sleep(time.Millisecond)
				}
			}()
			wantError(t, client, syscall.ECONNRESET)
			r := s.record()
			require.Equal(t, "DC", r.Termination.String(), "%v", r.Err)
			require.ErrorContains(t, r.Err, "told to")
			require.Less(t, r.Total, 30*time.Second)
		})
	})
}

// warmUp has one connection served, so that what is opened once is open.
func (s *stage) warmUp() {
	s.t.Helper()
	c, b := s.connect()
	c.Close()
	b.Close()
	require.Equal(s.t, "--", s.record().Termination.String())
}

// acceptorsWait returns once n goroutines wait in Accept. One that is on its
// way there still has a descriptor for a moment: accept4 takes it before it
// finds that nobody has connected.
func acceptorsWait(t *testing.T, n int) {
	t.Helper()
	stacks := make([]byte, 1<<20)
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		waiting := 0
		for _, g := range bytes.Split(stacks[:runtime.Stack(stacks, true)], []byte("\n\n")) {
			head, calls, _ := bytes.Cut(g, []byte("\n"))
			if bytes.Contains(head, []byte("[IO wait")) && bytes.Contains(calls, []byte(").Accept(")) {
				waiting++
			}
		}
		if waiting >= n {
			return
		}
		require.True(t, time.Now().Before(end), "%d of %d wait in Accept", waiting, n)
	}
}

// exhaust leaves the process n descriptors, until the result is called. So many
// goroutines as acceptors are in Accept.
func exhaust(t *testing.T, n, acceptors int) (restore func()) {
	t.Helper()
	runtime.GC()
	runtime.GC()
	percent := debug.SetGCPercent(-1)
	t.Cleanup(func() { debug.SetGCPercent(percent) })
	acceptorsWait(t, acceptors)
	var was syscall.Rlimit
	require.NoError(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &was))
	low := was
	low.Cur = uint64(descriptors() + 20)
	require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &low))
	var held []int
	for quietRounds := 0; quietRounds < 5; quietRounds++ { // what is garbage is closed when it is found
		for {
			fd, err := syscall.Dup(0)
			if err != nil {
				require.ErrorIs(t, err, syscall.EMFILE)
				break
			}
			held = append(held, fd)
			quietRounds = 0
		}
		time.Sleep(5 * time.Millisecond)
	}
	for _, fd := range held[:n] {
		syscall.Close(fd)
	}
	restore = sync.OnceFunc(func() {
		for _, fd := range held[n:] {
			syscall.Close(fd)
		}
		require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &was))
	})
	t.Cleanup(restore)
	return restore
}

// TestFaultNoDescriptors: a process without descriptors leaves clients in the
// backlog, and serves them once it has some again.
func TestFaultNoDescriptors(t *testing.T) {
	listeners(t, func(t *testing.T, listen func(network, addr string) (net.Listener, error)) {
		p := &Proxy{}
		behind(t, "tcp", p, p, listen, func(t *testing.T, s *stage) {
			s.warmUp()
			back := &Server{Handler: echo, Logger: quiet}
			wait := serve(back, s.backend)
			restore := exhaust(t, 1, 2) // the client's own end
			client := s.open()
			got := make(chan error, 1)
			go func() {
				_, err := client.Write([]byte("x"))
				if err == nil {
					_, err = io.ReadFull(client, make([]byte, 1))
				}
				got <- err
			}()
			select {
			case err := <-got:
				restore()
				t.Fatalf("served without descriptors: %v", err)
			case <-time.After(200 * time.Millisecond):
			}
			restore()
			require.NoError(t, <-got, "recovered")
			client.Close()
			require.Equal(t, "--", s.record().Termination.String(), "nobody was turned away")
			require.NoError(t, back.Shutdown(t.Context()))
			require.ErrorIs(t, wait(), ErrServerClosed)
		})
	})
}

// TestFaultNoDescriptorToDial: the last descriptor was the client's, and there
// is none to connect with.
func TestFaultNoDescriptorToDial(t *testing.T) {
	listeners(t, func(t *testing.T, listen func(network, addr string) (net.Listener, error)) {
		p := &Proxy{}
		behind(t, "tcp", p, p, listen, func(t *testing.T, s *stage) {
			s.warmUp()
			restore := exhaust(t, 2, 1) // the client's own end, and the other
			client, err := net.Dial("tcp", s.addr)
			if err == nil {
				wantError(t, client, syscall.ECONNRESET)
				client.Close()
			} else { // the reset was quicker than Dial
				require.ErrorIs(t, err, syscall.ECONNRESET)
			}
			r := s.record()
			restore()
			require.Equal(t, "RC", r.Termination.String(), "%v", r.Err)
			require.ErrorIs(t, r.Err, syscall.EMFILE)
			c, b := s.connect() // and the next is served again
			wantEchoBetween(t, c, b)
			c.Close()
			b.Close()
			require.Equal(t, "--", s.record().Termination.String())
		})
	})
}
