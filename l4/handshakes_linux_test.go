// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"bytes"
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

// Many clients that say hello at once do not hold up a connection that is open, wherever
// they cut the ClientHello. At the end of it is what a flight of TLS 1.3 can begin with.
func TestOpenConnectionsComeBetweenHandshakes(t *testing.T) {
	hello := helloWith17(t)
	for name, cut := range map[string]int{
		"whole":                  len(hello),
		"cut":                    len(hello) / 2,
		"cut as before Finished": len(hello) - 100 + bytes.IndexByte(hello[len(hello)-100:], 0x17),
	} {
		t.Run(name, func(t *testing.T) {
			var begun atomic.Int32
			var clients, servers []net.Conn
			for range 64 {
				client, server := tcpPair(t)
				client.Write(hello[:cut])
				clients, servers = append(clients, client), append(servers, NewConn(server))
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
					ends.Go(func() { Handshake(ctx, tls.Server(server, cfg)) })
				}
				if cut == len(hello) {
					return
				}
				for _, server := range servers {
					turns.quiet(func() bool { return server.(*Conn).BytesRead() == int64(cut) })
				}
				for _, client := range clients {
					client.Write(hello[cut:])
				}
			})
			cancel()
			ends.Wait()
			require.LessOrEqual(t, served, int32(20)) // a few turns are given at once if the machine stalls
		})
	}
}

// helloWith17 is a shortHello that has a byte 0x17 near its end.
func helloWith17(t *testing.T) []byte {
	for {
		if b := shortHello(t); bytes.IndexByte(b[len(b)-100:], 0x17) >= 0 {
			return b
		}
	}
}

// quiet returns when f is true and no turns are given.
func (h *handshakes) quiet(f func() bool) {
	for giving := true; giving || !f(); {
		runtime.Gosched()
		h.mu.Lock()
		giving = h.giving
		h.mu.Unlock()
	}
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
	for held := false; !held; { // only the test gives the turn
		turns.mu.Lock()
		held = turns.ready() && !turns.giving
		turns.giving = turns.giving || held
		turns.mu.Unlock()
	}
	go func() { ended <- Handshake(ctx, tls.Server(NewConn(server), cfg)) }()
	client.Write(shortHello(t))
	turns.queued(1)
	cancel()
	io.Copy(io.Discard, client) // until it is closed
	turns.give()
	require.ErrorIs(t, <-ended, context.Canceled)
}

// queued returns when so many wait for a turn.
func (h *handshakes) queued(n int) {
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

// Those that have had a turn go first, but only every other time.
func TestOrderOfTurns(t *testing.T) {
	var h handshakes
	h.giving = true // by the test
	order := make(chan string)
	for i, name := range []string{"first", "second", "again", "once more", "at last"} {
		turn := &handshakeTurn{had: i > 1}
		turn.wait.Lock()
		go func() { h.await(turn); order <- name }()
		h.queued(i + 1)
	}
	for _, name := range []string{"again", "first", "once more", "second", "at last"} {
		h.next().wait.Unlock()
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
				aTurn()
			}
		}
	})
	synctest.Test(t, func(*testing.T) {
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				for range 50 {
					aTurn()
				}
			})
		}
		all.Wait()
	})
	close(done)
	outside.Wait()
}

func aTurn() {
	t := new(handshakeTurn)
	t.wait.Lock()
	turns.await(t)
}

func TestTurnsAfter(t *testing.T) {
	const us, ms = time.Microsecond, time.Millisecond
	for _, x := range []struct {
		d        time.Duration
		procs, n int
		cost     time.Duration
		want     int
	}{
		{0, 1, 0, 0, 4},                  // the first of all
		{300 * us, 1, 1, 250 * us, 4},    // handshakes only
		{9 * ms, 1, 1, 8 * ms, 1},        // that take long
		{70 * us, 1, 1, 10 * us, 4},      // that fail
		{70 * 9 * us, 1, 9, 10 * us, 4},  // many of them
		{10250 * us, 1, 1, 250 * us, 20}, // processors that are busy otherwise
		{15 * ms, 1, 20, 250 * us, 20},
		{40 * ms, 4, 0, 500 * us, 40},
		{time.Hour, 2, 1, 1, 64},
		{-ms, 1, 0, 250 * us, 4},
		{ms, 1, 1, 10 * ms, 1},
	} {
		require.Equal(t, x.want, turnsAfter(x.d, x.procs, x.n, x.cost), x)
	}
}

// A turn lasts while there is something to read, unless other goroutines go before.
func TestTurnEnds(t *testing.T) {
	client, server := tcpPair(t)
	c, turn, begin := NewConn(server), &handshakeTurn{had: true, since: time.Unix(1, 0)}, time.Unix(1, 0)
	turn.wait.Lock()
	c.note(func(n *noted) { n.turn = turn })
	c.flags.set(shakesHands)
	read := func(n int) {
		t.Helper()
		m, err := c.Read(make([]byte, n))
		require.NoError(t, err)
		require.Equal(t, n, m)
	}
	client.Write([]byte("abc"))
	read(1)
	require.Equal(t, begin, turn.since, "there was something to read")
	read(2)
	require.Equal(t, begin, turn.since, "there was something to read")
	c.yields = yields{drained: true, credit: 1}
	client.Write([]byte("d"))
	read(1)
	require.NotEqual(t, begin, turn.since, "other goroutines went before")
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

// A client without TCP_NODELAY sends its request once its last word of the handshake is
// acknowledged, which the kernel would delay by 40 ms at least.
func TestHandshakeIsAcknowledged(t *testing.T) {
	cfg := testConfig(t, "a.test")
	for name, version := range map[string]uint16{"TLS 1.3": tls.VersionTLS13, "TLS 1.2, resumed": tls.VersionTLS12} {
		t.Run(name, func(t *testing.T) {
			dials := &tls.Config{
				InsecureSkipVerify: true, ServerName: "a.test", MaxVersion: version, ClientSessionCache: tls.NewLRUClientSessionCache(1),
			}
			terminate := &TerminateTLS{Config: cfg, Next: HandlerFunc(func(_ context.Context, c net.Conn) error {
				io.Copy(c, c)
				return c.Close()
			})}
			fastest := time.Hour
			for i := range 6 {
				client, server := tcpPair(t)
				require.NoError(t, client.(*net.TCPConn).SetNoDelay(false))
				ended := make(chan error, 1)
				go func() { ended <- terminate.ServeConn(t.Context(), server) }()
				c := tls.Client(client, dials)
				require.NoError(t, c.Handshake())
				began := time.Now()
				c.Write([]byte("ask"))
				_, err := io.ReadFull(c, make([]byte, 3))
				require.NoError(t, err)
				if i > 0 { // the first is not resumed
					fastest = min(fastest, time.Since(began))
				}
				c.Close()
				<-ended
			}
			require.Less(t, fastest, 30*time.Millisecond)
		})
	}
}
