// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Many clients that say hello at once do not hold up a connection that is open.
func TestOpenConnectionsComeBetweenHandshakes(t *testing.T) {
	const clients = 64
	var begun atomic.Int32
	var servers []net.Conn
	hello := shortHello(t)
	for range clients {
		client, server := tcpPair(t)
		client.Write(hello)
		servers = append(servers, server)
	}
	cert := testCert(t, nil, "a.test")
	ctx, cancel := context.WithCancel(t.Context())
	var ends sync.WaitGroup
	served := beside(t, &begun, func(first func()) {
		cfg := &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			first()
			begun.Add(1)
			return &cert, nil
		}}
		for _, server := range servers {
			ends.Go(func() { Handshake(ctx, tls.Server(NewConn(server), cfg)) })
		}
	})
	cancel()
	ends.Wait()
	require.LessOrEqual(t, served, int32(20)) // a few turns are given at once if the machine stalls
}

// shortHello is a ClientHello that crypto/tls takes in one read.
func shortHello(t *testing.T) []byte {
	return clientHello(t, &tls.Config{ServerName: "a.test", CurvePreferences: []tls.CurveID{tls.X25519}})
}

// A connection that is closed while it waits for its turn computes nothing.
func TestClosedConnTakesNoTurn(t *testing.T) {
	client, server := tcpPair(t)
	cfg := &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		t.Error("it has computed")
		return nil, nil
	}}
	ended := make(chan error)
	ctx, cancel := context.WithCancel(t.Context())
	for held := false; !held; { // the turn is given by nobody but the test
		turns.mu.Lock()
		held = turns.ready() && !turns.giving
		turns.giving = turns.giving || held
		turns.mu.Unlock()
	}
	go func() { ended <- Handshake(ctx, tls.Server(NewConn(server), cfg)) }()
	client.Write(shortHello(t))
	turns.await(1)
	cancel()
	io.Copy(io.Discard, client) // until it is closed
	turns.give()
	require.ErrorIs(t, <-ended, context.Canceled)
}

// await returns when so many wait for a turn.
func (h *handshakes) await(n int) {
	for {
		h.mu.Lock()
		waiting := len(h.first) + len(h.again)
		h.mu.Unlock()
		if waiting >= n {
			return
		}
		runtime.Gosched()
	}
}

// Who has had a turn goes first, and at once if nobody waits.
func TestOrderOfTurns(t *testing.T) {
	var h handshakes
	h.wait(true)
	h.giving = true // by the test
	order := make(chan string)
	for i, name := range []string{"first", "second", "again"} {
		go func() { h.wait(name == "again"); order <- name }()
		h.await(i + 1)
	}
	for _, name := range []string{"again", "first", "second"} {
		h.next().Unlock()
		require.Equal(t, name, <-order)
	}
	require.Nil(t, h.next())
	h.give()
	require.False(t, h.giving)
}

// Turns are waited for in a bubble and outside of it, and given by one goroutine.
func TestTurnsAcrossBubbles(t *testing.T) {
	var outside sync.WaitGroup
	done := make(chan struct{})
	outside.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				turns.wait(false)
			}
		}
	})
	synctest.Test(t, func(*testing.T) {
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				for range 50 {
					turns.wait(false)
				}
			})
		}
		all.Wait()
	})
	close(done)
	outside.Wait()
}

func TestTurnsAfter(t *testing.T) {
	for d, want := range map[time.Duration]int{
		0: 1, time.Millisecond: 1, 2 * time.Millisecond: 2, 10 * time.Millisecond: 6, time.Hour: 8,
	} {
		require.Equal(t, want, turnsAfter(d), d)
	}
}

// The handshakes of this package take turns.
func TestHandshakesTakeTurns(t *testing.T) {
	in := make(chan string, 2)
	note := func(name string) func(tls.ConnectionState) error {
		return func(tls.ConnectionState) error {
			if strings.Contains(string(debug.Stack()), "l4.Handshake(") {
				in <- name
			}
			return nil
		}
	}
	cfg := testConfig(t, "a.test")
	cfg.VerifyConnection = note("TerminateTLS")
	client, server := tcpPair(t)
	ended := make(chan error, 1)
	go func() {
		ended <- (&TerminateTLS{Config: cfg, Next: HandlerFunc(func(_ context.Context, c net.Conn) error { return c.Close() })}).ServeConn(t.Context(), server)
	}()
	to := &OriginateTLS{Config: &tls.Config{InsecureSkipVerify: true, VerifyConnection: note("OriginateTLS")}}
	c, err := to.Handshake(t.Context(), client, client, pool(t, "a.test:443").Server("a.test:443"))
	require.NoError(t, err)
	c.Read(make([]byte, 1))
	require.NoError(t, <-ended)
	require.ElementsMatch(t, []string{"TerminateTLS", "OriginateTLS"}, []string{<-in, <-in})
}

// Only a short flight behind a ClientHello that has been answered goes without a turn.
func TestFinishes(t *testing.T) {
	const ccs = "\x14\x03\x03\x00\x01\x01"
	finished := "\x17\x03\x03\x00\x35" + strings.Repeat("f", 53)
	for text, want := range map[string]bool{
		"": false, ccs: false, finished: true, ccs + finished: true, ccs + ccs + finished: false,
		"\x16" + finished[1:]: false, ccs + "\x16" + finished[1:]: false, finished + strings.Repeat("c", 300): false,
	} {
		require.Equal(t, want, finishes([]byte(text)), "%q", text)
	}
}
