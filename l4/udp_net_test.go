// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A packetNet is a network of datagrams in memory: one socket for clients, and
// servers that are funcs from a datagram to replies.
type packetNet struct {
	in, out chan packet
	closed  chan struct{}
	once    sync.Once

	mu      sync.Mutex
	servers map[string]func(b []byte) ([]string, error) // an error is an ICMP one
	dials   []string
}

type packet struct {
	addr netip.AddrPort
	data string
}

func newPacketNet() *packetNet {
	return &packetNet{
		in: make(chan packet), out: make(chan packet, 1000), closed: make(chan struct{}),
		servers: make(map[string]func([]byte) ([]string, error)),
	}
}

func (n *packetNet) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case p := <-n.in:
		return copy(b, p.data), net.UDPAddrFromAddrPort(p.addr), nil
	case <-n.closed:
		return 0, nil, net.ErrClosed
	}
}

func (n *packetNet) WriteTo(b []byte, addr net.Addr) (int, error) {
	n.out <- packet{addr.(*net.UDPAddr).AddrPort(), string(b)}
	return len(b), nil
}

func (n *packetNet) Close() error                     { n.once.Do(func() { close(n.closed) }); return nil }
func (n *packetNet) LocalAddr() net.Addr              { return &net.UDPAddr{Port: 53} }
func (n *packetNet) SetDeadline(time.Time) error      { return nil }
func (n *packetNet) SetReadDeadline(time.Time) error  { return nil }
func (n *packetNet) SetWriteDeadline(time.Time) error { return nil }

// dial connects to a server; each datagram is a read of a pipe.
func (n *packetNet) dial(_ context.Context, network, addr string) (net.Conn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.dials = append(n.dials, addr)
	serve, ok := n.servers[addr]
	if !ok {
		return nil, errors.New("no such host")
	}
	a, b := net.Pipe()
	c := &packetConn{Conn: a}
	out := make(chan string, 100) // a pipe has no room
	go func() {
		for r := range out {
			io.WriteString(b, r)
		}
	}()
	go func() {
		defer close(out)
		defer b.Close()
		buf := make([]byte, maxDatagram)
		for {
			k, err := b.Read(buf)
			if err != nil {
				return
			}
			replies, err := serve(buf[:k])
			if err != nil {
				c.refuse.Store(err)
				return
			}
			for _, r := range replies {
				out <- r
			}
		}
	}()
	return c, nil
}

// packetConn fails as its server says.
type packetConn struct {
	net.Conn
	refuse syncError
}

func (c *packetConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if e := c.refuse.Load(); e != nil && err == io.EOF {
		err = e
	}
	return n, err
}

type syncError struct {
	mu  sync.Mutex
	err error
}

func (s *syncError) Store(err error) { s.mu.Lock(); s.err = err; s.mu.Unlock() }
func (s *syncError) Load() error     { s.mu.Lock(); defer s.mu.Unlock(); return s.err }

// udpRun is a UDPProxy at work in a bubble.
type udpRun struct {
	*packetNet
	p       *UDPProxy
	served  chan error
	records chan string // server, tries, termination, bytes
}

func startUDP(t *testing.T, p *UDPProxy, servers ...string) *udpRun {
	r := newUDP(t, p, servers...)
	r.serve()
	return r
}

func (r *udpRun) serve() { go func() { r.served <- r.p.Serve(r) }() }

// newUDP is startUDP that does not start.
func newUDP(t *testing.T, p *UDPProxy, servers ...string) *udpRun {
	r := &udpRun{packetNet: newPacketNet(), p: p, served: make(chan error, 1), records: make(chan string, 100)}
	for _, s := range servers {
		r.servers[s] = func(b []byte) ([]string, error) { return []string{s + " " + string(b)}, nil }
	}
	p.Dial = r.dial
	p.Logger = slog.New(slog.DiscardHandler)
	if p.Pool == nil {
		p.Pool = poolOf(t, servers...)
	}
	p.OnDone = func(rec *Record) {
		if rec.Tries > 0 && rec.Assigned == 0 || rec.BytesOut > 0 && (rec.Connected < rec.Assigned || rec.FirstByte < rec.Connected) {
			t.Errorf("phases %v, %v, %v of %d tries and %d bytes", rec.Assigned, rec.Connected, rec.FirstByte, rec.Tries, rec.BytesOut)
		}
		r.records <- fmt.Sprintf("%s %d %s %d/%d", rec.Server, rec.Tries, rec.Termination, rec.BytesIn, rec.BytesOut)
	}
	return r
}

func (r *udpRun) send(client, data string) {
	r.in <- packet{netip.MustParseAddrPort(client), data}
	synctest.Wait()
}

func (r *udpRun) want(t *testing.T, client, data string) {
	t.Helper()
	synctest.Wait()
	select {
	case p := <-r.out:
		require.Equal(t, client+" "+data, p.addr.String()+" "+p.data)
	default:
		require.Fail(t, "no reply", "%s %s", client, data)
	}
}

func (r *udpRun) stop(t *testing.T) {
	require.NoError(t, r.p.Close())
	require.ErrorIs(t, <-r.served, ErrServerClosed)
	require.Zero(t, r.p.Flows())
}
