// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4/l4test"
)

// kills are the ways in which other code than the relay closes its client's connection.
var kills = map[string]func(t *testing.T, s *Server, accepted *Conn){
	"Close": func(t *testing.T, s *Server, _ *Conn) { require.NoError(t, s.Close()) },
	"deadline of Shutdown": func(t *testing.T, s *Server, _ *Conn) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.ErrorIs(t, s.Shutdown(ctx), context.Canceled)
	},
	"the host": func(t *testing.T, _ *Server, c *Conn) { require.NoError(t, c.Close()) },
}

// TestRecordOfKilledSession: the record is complete also if other code than the relay
// closes the connection of the client.
func TestRecordOfKilledSession(t *testing.T) {
	for how, kill := range kills {
		for name, listen := range map[string]func() (net.Listener, error){
			"net":   func() (net.Listener, error) { return net.Listen("tcp", "127.0.0.1:0") },
			"light": func() (net.Listener, error) { return new(ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0") },
		} {
			for _, secure := range []bool{false, true} {
				t.Run(how+" "+name+map[bool]string{true: " TLS"}[secure], func(t *testing.T) {
					backend, err := net.Listen("tcp", "127.0.0.1:0")
					require.NoError(t, err)
					front, err := listen()
					require.NoError(t, err)
					c, err := net.Dial("tcp", front.Addr().String())
					require.NoError(t, err)
					defer c.Close()
					testKilled(t, kill, backend, front, c, &Proxy{}, secure)
				})
			}
		}
	}
}

// TestRecordOfKilledSessionInMemory is the same where goroutines move the data.
func TestRecordOfKilledSessionInMemory(t *testing.T) {
	for how, kill := range kills {
		for _, secure := range []bool{false, true} {
			t.Run(how+map[bool]string{true: " TLS"}[secure], func(t *testing.T) {
				world(t, func(t *testing.T, n *l4test.Network) {
					backend, front := listen(t, n, "10.0.1.1:80"), listen(t, n, "10.0.0.1:80")
					c := dial(t, n, "10.0.0.1:80")
					defer c.Close()
					testKilled(t, kill, backend, front, c, &Proxy{Dial: n.DialContext}, secure)
				})
			})
		}
	}
}

func testKilled(t *testing.T, kill func(*testing.T, *Server, *Conn), backend, front net.Listener, c net.Conn, p *Proxy, secure bool) {
	echoes := &Server{Handler: echo}
	waitEchoes := serve(echoes, backend)
	p.Pool = new(balance.Pool)
	require.NoError(t, p.Pool.Set(balance.Endpoint{Addr: backend.Addr().String()}))
	records, accepted := make(chan Record, 2), make(chan *Conn, 1)
	var next Handler = p
	if secure {
		next = &TerminateTLS{Config: testConfig(t, "a.test"), Next: p}
	}
	s := &Server{
		Handler: HandlerFunc(func(ctx context.Context, c net.Conn) error {
			accepted <- c.(*Conn)
			return next.ServeConn(ctx, c)
		}),
		OnDone: func(r *Record) { records <- *r },
	}
	wait := serve(s, front)
	if secure {
		c = tls.Client(c, &tls.Config{InsecureSkipVerify: true})
	}
	for range 3 {
		wantEcho(t, c, "hello")
	}
	conn := <-accepted
	kill(t, s, conn)
	r := <-records
	require.Equal(t, [2]int64{15, 15}, [2]int64{r.ToServer, r.FromServer})
	require.Equal(t, [2]int64{conn.BytesRead(), conn.BytesWritten()}, [2]int64{r.BytesIn, r.BytesOut})
	require.GreaterOrEqual(t, r.BytesIn, int64(15))
	require.GreaterOrEqual(t, r.BytesOut, int64(15))
	require.Positive(t, r.FirstByte)
	require.NoError(t, s.Close())
	require.ErrorIs(t, wait(), ErrServerClosed)
	require.NoError(t, echoes.Close())
	require.ErrorIs(t, waitEchoes(), ErrServerClosed)
	require.Empty(t, records)
}

// A channelConn has no deadlines, as a channel of SSH.
type channelConn struct{ net.Conn }

func (channelConn) SetDeadline(time.Time) error      { return errors.ErrUnsupported }
func (channelConn) SetReadDeadline(time.Time) error  { return errors.ErrUnsupported }
func (channelConn) SetWriteDeadline(time.Time) error { return errors.ErrUnsupported }

// TestRelayEndsWithoutDeadlines: a connection that cannot be woken by a deadline is closed.
func TestRelayEndsWithoutDeadlines(t *testing.T) {
	for name, lifetime := range map[string]time.Duration{"Close": 0, "Lifetime": time.Minute} {
		t.Run(name, func(t *testing.T) {
			world(t, func(t *testing.T, n *l4test.Network) {
				pool := new(balance.Pool)
				require.NoError(t, pool.Set(balance.Endpoint{Addr: "10.0.1.1:80"}))
				backend := listen(t, n, "10.0.1.1:80")
				defer backend.Close()
				records := make(chan Record, 1)
				s := &Server{
					Handler: &Proxy{Pool: pool, Lifetime: lifetime, Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
						c, err := n.DialContext(ctx, network, addr)
						return channelConn{c}, err
					}},
					OnDone: func(r *Record) { records <- *r },
				}
				wait := serve(s, listen(t, n, "10.0.0.1:80"))
				c := dial(t, n, "10.0.0.1:80")
				defer c.Close()
				silent, err := backend.Accept()
				require.NoError(t, err)
				defer silent.Close()
				synctest.Wait()
				if lifetime > 0 {
					time.Sleep(lifetime)
					synctest.Wait()
					require.Equal(t, Termination{Local, PhaseData}, (<-records).Termination)
				}
				require.NoError(t, s.Close())
				require.ErrorIs(t, wait(), ErrServerClosed)
				if lifetime == 0 {
					require.Equal(t, Termination{Killed, PhaseData}, (<-records).Termination)
				}
			})
		})
	}
}
