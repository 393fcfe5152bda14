// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4/l4test"
)

// A trial of a server that came back is over when it has answered, however long
// the connection lasts: else it would get one client, and the others none.

const onTrial = "10.0.1.1:80"

// trialPool is a pool of the server at addr, which is on trial.
func trialPool(t *testing.T, addr string) (*balance.Pool, *balance.Server) {
	p := &balance.Pool{Queue: balance.Queue{Size: -1}}
	require.NoError(t, p.Set(balance.Endpoint{Name: onTrial, Addr: addr}))
	p.Server(onTrial).SetTrial(true)
	return p, p.Server(onTrial)
}

func wantTrial(t *testing.T, p *balance.Pool, on bool) {
	t.Helper()
	if on {
		_, err := p.Acquire(t.Context(), balance.Request{})
		require.ErrorIs(t, err, balance.ErrQueueFull, "it is on trial, and busy")
		return
	}
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		lease, err := p.Acquire(t.Context(), balance.Request{})
		if err == nil {
			lease.Done(balance.Outcome{})
			return
		}
		require.True(t, time.Now().Before(end), "it has answered: %v", err)
	}
}

// converse is what a client says on trial, and then a server.
func converse(t *testing.T, p *balance.Pool, client, server net.Conn) {
	t.Helper()
	wantTrial(t, p, true)
	send(t, client, "question")
	wantRead(t, server, "question")
	wantTrial(t, p, true)
	send(t, server, "answer")
	wantRead(t, client, "answer")
	wantTrial(t, p, false)
	wantEchoBetween(t, client, server)
	client.Close()
	server.Close()
}

func TestTrialEndsAtTheFirstByte(t *testing.T) {
	t.Run("goroutines", func(t *testing.T) {
		p, _ := trialPool(t, "10.0.1.1:80")
		play(t, &Proxy{Pool: p}, func(t *testing.T, s *scene) {
			client, server := s.connect(s.backend("10.0.1.1:80"))
			converse(t, p, client, server)
		})
	})
	t.Run("events", func(t *testing.T) {
		p := &balance.Pool{Queue: balance.Queue{Size: -1}}
		onSockets(t, "tcp", &Proxy{Pool: p}, func(t *testing.T, s *stage) {
			for m := range p.All() {
				m.SetTrial(true)
			}
			client, server := s.connect()
			converse(t, p, client, server)
		})
	})
	t.Run("Dialer", func(t *testing.T) {
		world(t, func(t *testing.T, n *l4test.Network) {
			p, m := trialPool(t, "10.0.1.1:80")
			ln := listen(t, n, "10.0.1.1:80")
			client, err := (&Dialer{Pool: p, Dial: n.DialContext}).DialContext(t.Context(), "", "")
			require.NoError(t, err)
			server, err := ln.Accept()
			require.NoError(t, err)
			converse(t, p, client, server)
			require.Zero(t, m.InFlight())
		})
	})
	t.Run("UDP", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p, _ := trialPool(t, "10.0.0.1:53")
			r := startUDP(t, &UDPProxy{Pool: p}, "10.0.0.1:53")
			answer := make(chan struct{})
			r.servers["10.0.0.1:53"] = func(b []byte) ([]string, error) { <-answer; return []string{"answer"}, nil }
			r.send("192.0.2.1:1", "question")
			wantTrial(t, p, true)
			answer <- struct{}{}
			r.want(t, "192.0.2.1:1", "answer")
			wantTrial(t, p, false)
			r.stop(t)
		})
	})
}
