// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
)

// datagrams has UDP flows begin and end while their servers flap.
func (c *chaos) datagrams() {
	pool := &balance.Pool{}
	endpoints := []balance.Endpoint{{Name: "dead", Addr: "127.0.0.1:1"}}
	var (
		servers sync.WaitGroup
		sockets []net.PacketConn
	)
	for i := range 2 {
		pc, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		require.NoError(c.t, err)
		sockets = append(sockets, pc)
		endpoints = append(endpoints, balance.Endpoint{Name: fmt.Sprint("s", i), Addr: pc.LocalAddr().String()})
		servers.Go(func() {
			b := make([]byte, 2*block)
			for {
				n, from, err := pc.ReadFromUDPAddrPort(b)
				if errors.Is(err, net.ErrClosed) {
					return
				}
				if err == nil && rand.N(4) > 0 {
					pc.WriteToUDPAddrPort(b[:n], from)
				}
			}
		})
	}
	defer func() {
		for _, pc := range sockets {
			pc.Close()
		}
		servers.Wait()
	}()
	require.NoError(c.t, pool.Set(endpoints...))
	var flows, records atomic.Int64
	p := &UDPProxy{Pool: pool, IdleTimeout: 50 * time.Millisecond, Logger: quiet, MaxFlows: 20,
		Accept: func(netip.AddrPort) bool { flows.Add(1); return true }, OnDone: func(*Record) { records.Add(1) }}
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(c.t, err)
	served := make(chan error, 1)
	go func() { served <- p.Serve(pc) }()
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for c.going() {
				c.sayDatagrams(pc.LocalAddr().String())
			}
		})
	}
	for c.going() {
		time.Sleep(2 * time.Millisecond)
		state := balance.Up
		if rand.N(2) == 0 {
			state = balance.Down
		}
		pool.Server(endpoints[rand.N(len(endpoints))].Name).Report(balance.Check, state, "chaos")
	}
	clients.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	p.Shutdown(ctx)
	if err := <-served; !errors.Is(err, ErrServerClosed) {
		c.t.Error(err)
	}
	for s := range pool.All() {
		wantSoon(c.t, func() bool { return s.InFlight() == 0 }, "lease of %s left", s.Name())
	}
	if p.Flows() != 0 || p.kept.Load() != 0 || records.Load() > flows.Load() {
		c.t.Errorf("%d flows, %d bytes kept, %d records of %d", p.Flows(), p.kept.Load(), records.Load(), flows.Load())
	}
}

// sayDatagrams is one client: replies are its own or none.
func (c *chaos) sayDatagrams(addr string) {
	nc, err := net.Dial("udp", addr)
	if err != nil {
		c.t.Error(err)
		return
	}
	defer nc.Close()
	token := c.tokens.Add(1)
	b := make([]byte, block)
	for n := range uint64(1 + rand.N(5)) {
		putBlock(b, token, n)
		nc.Write(b)
		nc.SetReadDeadline(time.Now().Add(rand.N(20 * time.Millisecond)))
		if _, err := nc.Read(b); err == nil && binary.BigEndian.Uint64(b) != token {
			c.t.Errorf("a datagram of %d came to %d", binary.BigEndian.Uint64(b), token)
		}
	}
}
