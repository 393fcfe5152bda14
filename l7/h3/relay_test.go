// SPDX-License-Identifier: Apache-2.0

package h3

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/testutils/simnet"
	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4"
)

// The tests of this file are of the UDPProxy of package l4, which is in between QUIC clients
// and servers and has no key. They are here for the sake of quic-go.

// A relayed is a UDPProxy before servers that say who they are and who asks, in the network of
// a world, where the proxy is at the address of the gateway.
type relayed struct {
	*world
	proxy  *l4.UDPProxy
	server tls.Config
}

// inRelay runs a story with n servers, 10.0.2.1 and so on, whose ids have a length: of 4 bytes
// or more, they have the number of the server in the second one.
func inRelay(t *testing.T, n, length int, proxy *l4.UDPProxy, story func(r *relayed)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &relayed{world: &world{T: t}, proxy: proxy}
		cert, roots := certificate(t)
		r.roots = roots
		r.server = tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"who"}}
		var all []balance.Endpoint
		for i := range n {
			addr := &net.UDPAddr{IP: net.IPv4(10, 0, 2, byte(i+1)).To4(), Port: 443}
			r.serve(&quic.Transport{Conn: r.endpoint(addr), ConnectionIDGenerator: ids{byte(i + 1), length}}, addr.String())
			all = append(all, balance.Endpoint{Addr: addr.String()})
		}
		if proxy.Pool == nil {
			proxy.Pool = &balance.Pool{Policy: balance.RoundRobin{}}
			require.NoError(t, proxy.Pool.Set(all...))
		}
		proxy.Dial = r.dialUDP
		served := make(chan error, 1)
		pc := r.endpoint(gateway)
		go func() { served <- proxy.Serve(pc) }()
		t.Cleanup(func() {
			require.NoError(t, proxy.Close())
			require.ErrorIs(t, <-served, l4.ErrServerClosed)
			synctest.Wait()
			for _, l := range r.links {
				_ = l.Close()
			}
		})
		story(r)
	})
}

// serve replies to each stream with the server's name and the client's address.
func (r *relayed) serve(tr *quic.Transport, name string) {
	ln, err := tr.Listen(&r.server, nil)
	require.NoError(r, err)
	r.Cleanup(func() { _ = ln.Close(); _ = tr.Close(); _ = tr.Conn.Close() })
	go func() {
		for {
			c, err := ln.Accept(context.Background())
			if err != nil {
				return
			}
			go func() {
				for {
					s, err := c.AcceptStream(context.Background())
					if err != nil {
						return
					}
					_, _ = io.Copy(io.Discard, s)
					_, _ = fmt.Fprintf(s, "%s %s", name, c.RemoteAddr())
					_ = s.Close()
				}
			}()
		}
	}()
}

// ids are connection ids with a server's number.
type ids struct {
	server byte
	length int
}

func (g ids) ConnectionIDLen() int { return g.length }
func (g ids) GenerateConnectionID() (quic.ConnectionID, error) {
	b := make([]byte, g.length)
	_, err := rand.Read(b)
	if g.length >= 4 {
		b[1] = g.server
	}
	return quic.ConnectionIDFromBytes(b), err
}

// dialUDP is a socket of the gateway to one server.
func (r *relayed) dialUDP(_ context.Context, _, addr string) (net.Conn, error) {
	to, err := net.ResolveUDPAddr("udp4", addr)
	if err != nil {
		return nil, err
	}
	to.IP = to.IP.To4() // as the network has it
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dialed++
	return &connected{r.endpoint(&net.UDPAddr{IP: net.IPv4(10, 0, 0, 1).To4(), Port: 1000 + r.dialed}), to}, nil
}

// connected is a socket as a connection.
type connected struct {
	net.PacketConn
	to *net.UDPAddr
}

func (c *connected) Read(b []byte) (int, error) {
	n, _, err := c.ReadFrom(b)
	if errors.Is(err, simnet.ErrDeadlineExceeded) {
		err = os.ErrDeadlineExceeded
	}
	return n, err
}
func (c *connected) Write(b []byte) (int, error) { return c.WriteTo(b, c.to) }
func (c *connected) RemoteAddr() net.Addr        { return c.to }

// ask asks who serves.
func (r *relayed) ask(c *quic.Conn) (server, seen string) {
	r.Helper()
	s, err := c.OpenStreamSync(r.context(10 * time.Second))
	require.NoError(r, err)
	require.NoError(r, s.SetDeadline(time.Now().Add(10*time.Second)))
	require.NoError(r, s.Close())
	b, err := io.ReadAll(s)
	require.NoError(r, err)
	_, err = fmt.Sscan(string(b), &server, &seen)
	require.NoError(r, err)
	return server, seen
}

func (r *relayed) connect(tr *quic.Transport, name string) *quic.Conn {
	r.Helper()
	c, err := tr.Dial(r.context(10*time.Second), gateway, &tls.Config{RootCAs: r.roots, ServerName: name, NextProtos: []string{"who"}}, nil)
	require.NoError(r, err)
	r.Cleanup(func() { _ = c.CloseWithError(0, "") })
	return c
}

// A nat gives the client behind it another address from time to time.
type nat struct {
	net.PacketConn // the newest
	r              *relayed
	mu             sync.Mutex
	in             chan []byte
}

func (r *relayed) nat() *nat {
	n := &nat{r: r, in: make(chan []byte, 1000)}
	n.rebind()
	return n
}

func (n *nat) rebind() {
	n.r.hosts++
	pc := n.r.endpoint(&net.UDPAddr{IP: net.IPv4(10, 0, 1, n.r.hosts).To4(), Port: 5000})
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.PacketConn != nil {
		_ = n.PacketConn.Close() // what comes for the old address is lost
	}
	n.PacketConn = pc
	go func() {
		for b := make([]byte, 2000); ; {
			k, _, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			select {
			case n.in <- append([]byte(nil), b[:k]...):
			default:
			}
		}
	}()
}

func (n *nat) ReadFrom(b []byte) (int, net.Addr, error) {
	p, ok := <-n.in
	if !ok {
		return 0, nil, net.ErrClosed
	}
	return copy(b, p), gateway, nil
}

func (n *nat) WriteTo(b []byte, to net.Addr) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.PacketConn.WriteTo(b, to)
}

func (n *nat) SetReadDeadline(time.Time) error { return errors.ErrUnsupported }

// TestRelayRebinding: a client whose NAT gives it another address keeps its connection, though
// no id that it uses has been seen in the handshake: quic-go changes to another right after.
func TestRelayRebinding(t *testing.T) {
	for _, length := range []int{4, 8, 20} {
		inRelay(t, 3, length, &l4.UDPProxy{QUIC: &l4.QUIC{}}, func(r *relayed) {
			for range 4 { // clients
				n := r.nat()
				tr := &quic.Transport{Conn: n}
				r.Cleanup(func() { close(n.in); _ = tr.Close(); _ = n.PacketConn.Close() })
				c := r.connect(tr, "gateway.example")
				server, seen := r.ask(c)
				for range 4 {
					time.Sleep(time.Second)
					n.rebind()
					r.ask(c)
					time.Sleep(time.Second) // for the server to validate the new path
					again, from := r.ask(c)
					require.Equal(t, server, again)
					require.NotEqual(t, seen, from, "the server sees that the address has changed")
					seen = from
				}
			}
		})
	}
}

// TestRelayMigration: a client that migrates uses an id that only the server can read. With
// ids that have the number of the server, it stays there.
func TestRelayMigration(t *testing.T) {
	proxy := &l4.UDPProxy{QUIC: &l4.QUIC{ServerOf: func(id []byte) string {
		if len(id) < 4 {
			return ""
		}
		return fmt.Sprintf("10.0.2.%d:443", id[1])
	}}}
	inRelay(t, 3, 8, proxy, func(r *relayed) {
		c := r.connect(r.socket(), "gateway.example")
		server, seen := r.ask(c)
		for range 3 {
			path, err := c.AddPath(r.socket())
			require.NoError(t, err)
			require.NoError(t, path.Probe(r.context(10*time.Second)))
			require.NoError(t, path.Switch())
			r.ask(c)
			time.Sleep(time.Second)
			again, from := r.ask(c)
			require.Equal(t, server, again)
			require.NotEqual(t, seen, from)
			seen = from
		}
	})
}

// TestRelayRoutes: two sites by name, by connections over one socket, whose ClientHellos
// take two datagrams each; without ids, too, where each has a socket.
func TestRelayRoutes(t *testing.T) {
	for _, length := range []int{0, 8} {
		a, b := &balance.Pool{}, &balance.Pool{}
		require.NoError(t, a.Set(balance.Endpoint{Addr: "10.0.2.1:443"}))
		require.NoError(t, b.Set(balance.Endpoint{Addr: "10.0.2.2:443"}))
		proxy := &l4.UDPProxy{Pool: b, QUIC: &l4.QUIC{Routes: []l4.QUICRoute{
			{Match: l4.All(l4.SNI("gateway.example"), l4.ALPN("who")), Pool: a},
		}}}
		inRelay(t, 2, length, proxy, func(r *relayed) {
			tr := r.socket()
			one := r.connect(tr, "gateway.example")
			if length == 0 {
				tr = r.socket()
			}
			two := r.connect(tr, "other.example")
			for range 20 {
				server, _ := r.ask(one)
				require.Equal(t, "10.0.2.1:443", server)
				server, _ = r.ask(two)
				require.Equal(t, "10.0.2.2:443", server)
			}
			require.Equal(t, 2, proxy.Flows())
		})
	}
}
