// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"context"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/stretchr/testify/require"
)

// troubles are what ends live connections of a server, without and with CutOnDown.
var troubles = []struct {
	name   string
	onDown bool
	do     func(p *balance.Pool, s *balance.Server)
}{
	{"cut", false, func(_ *balance.Pool, s *balance.Server) { s.Cut(true, "told to") }},
	{"down", true, func(_ *balance.Pool, s *balance.Server) { s.Report(balance.Check, balance.Down, "test") }},
	{"maint", true, func(_ *balance.Pool, s *balance.Server) { s.SetAdmin(balance.Maint, "test") }},
	{"left", true, func(p *balance.Pool, _ *balance.Server) { _ = p.Set(balance.Endpoint{Addr: "10.0.1.2:80"}) }},
}

// A server that is taken away while it is connected to is not waited for: the
// connection goes to another one, or ends.
func TestProxyCutEndsConnecting(t *testing.T) {
	for _, tr := range troubles {
		t.Run(tr.name, func(t *testing.T) {
			p := pool(t, "10.0.1.1:80", "10.0.1.2:80")
			p.Policy = balance.First{}
			play(t, &Proxy{Pool: p, CutOnDown: tr.onDown}, func(t *testing.T, s *scene) {
				s.net.Drop("tcp", "10.0.1.1:80")
				ln := s.backend("10.0.1.2:80")
				client := dial(t, s.net, "10.0.0.1:80")
				synctest.Wait()
				start := time.Now()
				tr.do(p, p.Server("10.0.1.1:80"))
				server, err := ln.Accept()
				require.NoError(t, err)
				require.Zero(t, time.Since(start))
				wantEchoBetween(t, client, server.(*l4test.Conn))
				client.Close()
				server.Close()
				require.Equal(t, 2, s.record().Tries)
			})
		})
	}
	play(t, &Proxy{Pool: pool(t, "10.0.1.1:80")}, func(t *testing.T, s *scene) {
		s.net.Drop("tcp", "10.0.1.1:80")
		client := dial(t, s.net, "10.0.0.1:80")
		synctest.Wait()
		s.proxy.Pool.Server("10.0.1.1:80").Cut(false, "only what carries nothing")
		synctest.Wait()
		start := time.Now()
		s.proxy.Pool.Server("10.0.1.1:80").Cut(true, "told to")
		wantError(t, client, syscall.ECONNRESET)
		require.Zero(t, time.Since(start))
		r := s.record()
		require.Equal(t, "DC", r.Termination.String())
		require.ErrorContains(t, r.Err, "told to")
	})
}

// A cut that comes when the server has answered already, but nothing is relayed yet,
// is not lost, nor is one between two tries the end of the second.
func TestProxyCutAsItConnects(t *testing.T) {
	p := pool(t, "10.0.1.1:80", "10.0.1.2:80")
	p.Policy = balance.First{}
	proxy := &Proxy{Pool: p, ConnectTimeout: -1}
	play(t, proxy, func(t *testing.T, s *scene) {
		s.backend("10.0.1.1:80")
		ln := s.backend("10.0.1.2:80")
		proxy.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := s.net.DialContext(ctx, network, addr)
			if addr == "10.0.1.1:80" {
				p.Server(addr).Cut(true, "told to")
			}
			return c, err
		}
		client := dial(t, s.net, "10.0.0.1:80")
		server, err := ln.Accept()
		require.NoError(t, err)
		wantEchoBetween(t, client, server.(*l4test.Conn))
		p.Server("10.0.1.1:80").Cut(true, "no more its business")
		wantEchoBetween(t, client, server.(*l4test.Conn))
		p.Server("10.0.1.2:80").Cut(true, "told to")
		wantError(t, client, syscall.ECONNRESET)
		require.Equal(t, "DD", s.record().Termination.String())
		server.Close()
	})
}

func TestDialerCutEndsConnecting(t *testing.T) {
	for _, tr := range troubles {
		t.Run(tr.name, func(t *testing.T) {
			world(t, func(t *testing.T, n *l4test.Network) {
				p := pool(t, "10.0.1.1:80", "10.0.1.2:80")
				p.Policy = balance.First{}
				first := p.Server("10.0.1.1:80")
				d := &Dialer{Pool: p, Dial: n.DialContext, CutOnDown: tr.onDown}
				n.Drop("tcp", "10.0.1.1:80")
				listen(t, n, "10.0.1.2:80")
				start := time.Now()
				time.AfterFunc(time.Second, func() { tr.do(p, first) })
				c, err := d.DialContext(t.Context(), "tcp", "")
				require.NoError(t, err)
				require.Equal(t, time.Second, time.Since(start))
				require.Equal(t, "10.0.1.2:80", c.RemoteAddr().String())
				first.Cut(true, "no more its business")
				p.Server("10.0.1.2:80").Cut(true, "told to")
				wantError(t, c, net.ErrClosed)
				c.Close()
				require.Zero(t, first.InFlight())
			})
		})
	}
}
