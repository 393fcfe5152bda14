// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4/l4test"
)

// TestFailureIsToldOnce: a connection that was not served is a line of the log, or a record
// that says why; not both, and not neither.
func TestFailureIsToldOnce(t *testing.T) {
	failed := errors.New("no such server")
	for name, tc := range map[string]struct {
		hook, noted bool
		line        bool
	}{
		"no OnDone":           {noted: true, line: true},
		"recorded":            {hook: true, noted: true},
		"recorded by nothing": {hook: true, line: true},
	} {
		t.Run(name, func(t *testing.T) {
			world(t, func(t *testing.T, n *l4test.Network) {
				var log bytes.Buffer
				s := &Server{Logger: slog.New(slog.NewTextHandler(&log, nil)), Handler: HandlerFunc(func(_ context.Context, c net.Conn) error {
					if tc.noted {
						endConn(c, Termination{ServerAborted, PhaseConnect}, failed)
					}
					c.Close()
					return failed
				})}
				if tc.hook {
					s.OnDone = func(r *Record) { require.Equal(t, tc.noted, r.Err != nil) }
				}
				wait := serve(s, listen(t, n, "10.0.0.1:80"))
				dial(t, n, "10.0.0.1:80")
				synctest.Wait()
				require.NoError(t, s.Close())
				require.ErrorIs(t, wait(), ErrServerClosed)
				require.Equal(t, tc.line, bytes.Contains(log.Bytes(), []byte(failed.Error())), "%s", &log)
			})
		})
	}
}

// TestFlowFailureIsToldOnce is the same of flows.
func TestFlowFailureIsToldOnce(t *testing.T) {
	for _, hook := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var log bytes.Buffer
			r := newUDP(t, &UDPProxy{}, "10.0.0.1:53")
			require.NoError(t, r.p.Pool.Set())
			r.p.Logger = slog.New(slog.NewTextHandler(&log, nil))
			if !hook {
				r.p.OnDone = nil
			}
			r.serve()
			r.send("192.0.2.1:1000", "a")
			synctest.Wait()
			require.Equal(t, !hook, bytes.Contains(log.Bytes(), []byte("flow not served")), "%s", &log)
			r.stop(t)
		})
	}
}

// sayGoodbye reads all that one client sends, and answers.
func sayGoodbye(ln net.Listener) {
	c, err := ln.Accept()
	if err != nil {
		return
	}
	io.ReadAll(c)
	io.WriteString(c, "goodbye")
	c.Close()
}

// TestRecordHasPayload: the wire of the client has a PROXY header, that of the server another.
func TestRecordHasPayload(t *testing.T) {
	world(t, func(t *testing.T, n *l4test.Network) {
		backend := listen(t, n, "10.0.1.1:80")
		go sayGoodbye(backend)
		pool := new(balance.Pool)
		require.NoError(t, pool.Set(balance.Endpoint{Addr: "10.0.1.1:80"}))
		records := make(chan Record, 1)
		s := &Server{
			Handler: &AcceptProxy{Trusted: MustParsePrefixes("0.0.0.0/0"), Next: &Proxy{Pool: pool, Dial: n.DialContext, Handshake: (&SendProxy{Version: 2}).Handshake}},
			OnDone:  func(r *Record) { records <- *r },
		}
		wait := serve(s, listen(t, n, "10.0.0.1:80"))
		c := dial(t, n, "10.0.0.1:80")
		io.WriteString(c, headerV1+"hello")
		c.CloseWrite()
		io.ReadAll(c)
		r := <-records
		require.Equal(t, [4]int64{int64(len(headerV1)) + 5, 7, 5, 7}, [4]int64{r.BytesIn, r.BytesOut, r.ToServer, r.FromServer})
		require.NoError(t, s.Close())
		require.ErrorIs(t, wait(), ErrServerClosed)
	})
}

// TestRecordHasPayloadWithinTLS: with TLS ended on one side and begun on the other, the
// payload is that of neither wire.
func TestRecordHasPayloadWithinTLS(t *testing.T) {
	backend, err := tls.Listen("tcp", "127.0.0.1:0", testConfig(t, "a.test"))
	require.NoError(t, err)
	defer backend.Close()
	go sayGoodbye(backend)
	pool := new(balance.Pool)
	require.NoError(t, pool.Set(balance.Endpoint{Addr: backend.Addr().String()}))
	records := make(chan Record, 1)
	trusting := &tls.Config{InsecureSkipVerify: true}
	s := &Server{
		Handler: &TerminateTLS{Config: testConfig(t, "a.test"), Next: &Proxy{Pool: pool, Handshake: (&OriginateTLS{Config: trusting}).Handshake}},
		OnDone:  func(r *Record) { records <- *r },
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	wait := serve(s, ln)
	c, err := tls.Dial("tcp", ln.Addr().String(), trusting)
	require.NoError(t, err)
	defer c.Close()
	io.WriteString(c, "hello")
	require.NoError(t, c.CloseWrite())
	reply, err := io.ReadAll(c)
	require.NoError(t, err)
	require.Equal(t, "goodbye", string(reply))
	r := <-records
	require.Equal(t, [2]int64{5, 7}, [2]int64{r.ToServer, r.FromServer})
	require.Greater(t, r.BytesIn, int64(100))
	require.Greater(t, r.BytesOut, int64(100))
	require.NoError(t, s.Close())
	require.ErrorIs(t, wait(), ErrServerClosed)
}

// TestLogTo: what is not known is left out, and what the servers or the gateway did wrong is a
// warning.
func TestLogTo(t *testing.T) {
	var out bytes.Buffer
	log := LogTo(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}})))
	log(&Record{})
	log(&Record{
		Remote: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 33313}, Local: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 2), Port: 443},
		Server: "db1", Tries: 3, JA4: "t13", Total: time.Second,
		Termination: Termination{ServerAborted, PhaseConnect}, Err: io.ErrUnexpectedEOF,
	})
	log(&Record{Termination: Termination{ClientAborted, PhaseData}})
	tail := " connection.assigned=0s connection.connected=0s connection.first_byte=0s connection.total="
	none := "level=INFO msg=connection connection.remote=\"\" connection.local=\"\" connection.tries=0 connection.in=0 connection.out=0 connection.to_server=0 connection.from_server=0" + tail
	require.Equal(t, none+"0s connection.end=--\n"+
		"level=WARN msg=connection connection.remote=192.0.2.1:33313 connection.local=192.0.2.2:443 connection.ja4=t13 connection.server=db1 connection.tries=3 connection.in=0 connection.out=0 connection.to_server=0 connection.from_server=0"+
		tail+"1s connection.end=SC connection.error=\"unexpected EOF\"\n"+
		none+"0s connection.end=CD\n", out.String())
}
