// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4/l4test"
)

// A tlsEnd is one end of a connection, with TLS or without. It tells whether the other end
// sent close_notify: a *tls.Conn that has got one does not read the end of the socket.
type tlsEnd struct {
	net.Conn             // the socket
	eof      atomic.Bool // read from it
	use      net.Conn    // the *tls.Conn, or the socket
}

func (e *tlsEnd) Read(p []byte) (int, error) {
	n, err := e.Conn.Read(p)
	if err == io.EOF {
		e.eof.Store(true)
	}
	return n, err
}

func (e *tlsEnd) secure() bool { return e.use != e.Conn }

// end ends the stream, with close_notify if notify.
func (e *tlsEnd) end(t *testing.T, notify bool) {
	t.Helper()
	c := e.Conn
	if notify {
		c = e.use
	}
	require.NoError(t, c.(interface{ CloseWrite() error }).CloseWrite())
}

// wantEnd reads all, and the end of it.
func (e *tlsEnd) wantEnd(t *testing.T, want []byte, notify bool) {
	t.Helper()
	got, err := io.ReadAll(e.use)
	require.NoError(t, err)
	require.True(t, bytes.Equal(want, got), "%d bytes", len(got))
	if e.secure() {
		require.Equal(t, notify, !e.eof.Load(), "close_notify")
	}
}

// TestEndWithoutCloseNotify: the end of TCP alone may be anyone's (RFC 8446, section 6.1). The
// relay does not make a close_notify of it, loses no data, and says so in the record.
func TestEndWithoutCloseNotify(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789"), 20_000)
	for _, tt := range []struct {
		why            string
		client, server bool // have TLS
		short          string
	}{
		{"TLS to TLS, client", true, true, "client"},
		{"TLS to TLS, server", true, true, "server"},
		{"TLS to TLS, both", true, true, "both"},
		{"TLS to TLS, none", true, true, ""},
		{"TLS to plain", true, false, "client"},
		{"TLS to plain, none", true, false, ""},
		{"plain to TLS", false, true, "server"},
		{"plain to TLS, none", false, true, ""},
	} {
		for _, first := range []string{"client", "server"} {
			t.Run(tt.why+", "+first+" ends first", func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n := l4test.NewNetwork()
					outcomes := make(chan balance.Outcome, 1)
					to := &balance.Pool{OnOutcome: []func(*balance.Server, balance.Outcome){
						func(_ *balance.Server, o balance.Outcome) { outcomes <- o },
					}}
					require.NoError(t, to.Set(balance.Endpoint{Addr: "10.0.1.1:443"}))
					p := &Proxy{Pool: to, Dial: n.DialContext}
					if tt.server {
						p.Handshake = (&OriginateTLS{Config: &tls.Config{InsecureSkipVerify: true}}).Handshake
					}
					var h Handler = p
					if tt.client {
						h = &TerminateTLS{Config: testConfig(t, "a.test"), Next: p}
					}
					records := make(chan Record, 1)
					s := &Server{Handler: h, Logger: quiet, OnDone: func(r *Record) { records <- *r }}
					wait := serve(s, listen(t, n, "10.0.0.1:443"))
					ln := listen(t, n, "10.0.1.1:443")

					client := &tlsEnd{Conn: dial(t, n, "10.0.0.1:443")}
					if client.use = client.Conn; tt.client {
						client.use = tls.Client(client, &tls.Config{InsecureSkipVerify: true})
						go client.use.(*tls.Conn).Handshake()
					}
					c, err := ln.Accept()
					require.NoError(t, err)
					server := &tlsEnd{Conn: c}
					if server.use = c; tt.server {
						server.use = tls.Server(server, testConfig(t, "b.test"))
					}
					wantEchoBetween(t, client.use, server.use)

					clientSays, serverSays := tt.short != "client" && tt.short != "both", tt.short != "server" && tt.short != "both"
					up := func() {
						_, err := client.use.Write(data)
						require.NoError(t, err)
						client.end(t, clientSays)
						server.wantEnd(t, data, clientSays)
					}
					down := func() {
						_, err := server.use.Write(data)
						require.NoError(t, err)
						server.end(t, serverSays)
						client.wantEnd(t, data, serverSays)
					}
					if first == "client" {
						up()
						down()
					} else {
						down()
						up()
					}
					r := <-records
					require.Equal(t, "--", r.Termination.String(), "harmless peers do it too")
					if tt.short == "" {
						require.NoError(t, r.Err)
					} else {
						require.ErrorIs(t, r.Err, ErrNoCloseNotify)
						by := tt.short
						if by == "both" {
							by = first
						}
						require.ErrorContains(t, r.Err, "by the "+by)
					}
					o := <-outcomes
					require.NoError(t, o.Err)
					require.False(t, o.Class.ServerFault())
					client.Close()
					server.Close()
					require.NoError(t, s.Shutdown(t.Context()))
					require.ErrorIs(t, wait(), ErrServerClosed)
				})
			})
		}
	}
}

// TestShortEndOfHiddenSockets: where there is no half-close, the connection is closed, without
// close_notify all the same.
func TestShortEndOfHiddenSockets(t *testing.T) {
	for _, last := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			front, back := testConfig(t, "a.test"), testConfig(t, "b.test")
			from, a := l4test.Pipe()
			b, to := net.Pipe()
			src, dst := tls.Server(NewConn(a), front), tls.Server(NewConn(b), back)
			client := tls.Client(from, &tls.Config{InsecureSkipVerify: true})
			end := &tlsEnd{Conn: to}
			end.use = tls.Client(end, &tls.Config{InsecureSkipVerify: true})
			go src.Handshake()
			require.NoError(t, client.Handshake())
			go dst.Handshake()
			require.NoError(t, end.use.(*tls.Conn).Handshake())
			results := make(chan RelayResult, 1)
			go func() {
				x, y := NewConn(src), NewConn(dst)
				r := Relay(t.Context(), x, y, RelayOptions{})
				x.Close()
				y.Close()
				results <- r
			}()
			if last {
				go end.use.(*tls.Conn).CloseWrite()
				wantError(t, client, io.EOF)
			}
			send(t, client, "whole")
			from.CloseWrite()
			end.wantEnd(t, []byte("whole"), false)
			r := <-results
			require.Equal(t, "--", r.Termination.String())
			require.ErrorIs(t, r.Err, ErrNoCloseNotify)
		})
	}
}

// TestShortEndTCP: servers that never send close_notify are many. All that they have sent
// reaches a slow client.
func TestShortEndTCP(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<18)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	cfg := testConfig(t, "b.test")
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		secure := tls.Server(c, cfg)
		secure.Read(make([]byte, 1))
		secure.Write(data)
		c.Close()
	}()
	records := make(chan Record, 1)
	s := &Server{
		Logger: quiet, OnDone: func(r *Record) { records <- *r },
		Handler: &TerminateTLS{Config: testConfig(t, "a.test"), Next: &Proxy{
			Pool: pool(t, ln.Addr().String()), Handshake: (&OriginateTLS{Config: &tls.Config{InsecureSkipVerify: true}}).Handshake,
		}},
	}
	front, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	wait := serve(s, front)
	c, err := net.Dial("tcp", front.Addr().String())
	require.NoError(t, err)
	require.NoError(t, c.(*net.TCPConn).SetReadBuffer(64<<10))
	client := &tlsEnd{Conn: c}
	client.use = tls.Client(client, &tls.Config{InsecureSkipVerify: true})
	send(t, client.use, "?")
	client.wantEnd(t, data, false)
	require.NoError(t, client.use.Close())
	r := <-records
	require.Equal(t, "--", r.Termination.String())
	require.ErrorIs(t, r.Err, ErrNoCloseNotify)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	require.NoError(t, s.Shutdown(ctx))
	require.True(t, errors.Is(wait(), ErrServerClosed))
}

// trimmed loses the last byte of what is written, if short.
type trimmed struct {
	*l4test.Conn
	short bool
}

func (c *trimmed) Write(p []byte) (int, error) {
	if !c.short {
		return c.Conn.Write(p)
	}
	_, err := c.Conn.Write(p[:len(p)-1])
	return len(p), err
}

// TestEndWithinRecord: such an end is known to have lost data, and resets the other side.
func TestEndWithinRecord(t *testing.T) {
	world(t, func(t *testing.T, n *l4test.Network) {
		records := make(chan Record, 1)
		p := &Proxy{Pool: pool(t, "10.0.1.1:80"), Dial: n.DialContext}
		s := &Server{Handler: &TerminateTLS{Config: testConfig(t, "a.test"), Next: p}, Logger: quiet, OnDone: func(r *Record) { records <- *r }}
		wait := serve(s, listen(t, n, "10.0.0.1:443"))
		ln := listen(t, n, "10.0.1.1:80")
		bare := &trimmed{Conn: dial(t, n, "10.0.0.1:443")}
		client := tls.Client(bare, &tls.Config{InsecureSkipVerify: true})
		send(t, client, "whole")
		server, err := ln.Accept()
		require.NoError(t, err)
		wantRead(t, server, "whole")
		bare.short = true
		send(t, client, "part")
		require.NoError(t, bare.CloseWrite())
		wantError(t, server, syscall.ECONNRESET)
		r := <-records
		require.Equal(t, "CD", r.Termination.String())
		require.ErrorIs(t, r.Err, io.ErrUnexpectedEOF)
		require.NotErrorIs(t, r.Err, ErrNoCloseNotify)
		require.NoError(t, s.Shutdown(t.Context()))
		require.ErrorIs(t, wait(), ErrServerClosed)
	})
}
