// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/penstock-lb/penstock/balance"
)

const (
	defaultUDPIdle  = time.Minute
	defaultMaxFlows = 1 << 14
	maxDatagram     = 1<<16 - 1
)

// A UDPProxy relays datagrams between clients and the servers of a pool. The datagrams
// from one address and port are a flow. It has a server, picked when it begins, and its
// own socket to that server, so that replies belong to one flow.
//
// A server that refuses (an ICMP error comes back) at first, before it has
// replied and within a second of the first datagram, is replaced by another, if
// the retry budget of the pool allows, which gets the datagrams again: up to
// 16 KiB of them are kept for that long, 16 MiB of all flows together. The flows
// of a server that goes down, or refuses later, end, and the next datagram of
// the client begins a new one.
//
// What it does not do: a client that continues from another address or port begins
// another flow, and gets the same server only by [QUIC] or a hash of its address; replies from another port than the one asked
// (TFTP) are not expected, PROXY headers are neither sent nor read, and bandwidth is not
// limited. A datagram is lost if a server refuses it after it has accepted earlier ones.
//
// A panic of the host's code ends the flow that it was called for.
//
// Its fields must not change once Serve is called. All methods may be called
// at once.
type UDPProxy struct {
	Pool *balance.Pool

	// QUIC, if not nil, says that clients speak QUIC: their connections are routed by
	// ClientHello, and stay at their server when their address changes.
	QUIC *QUIC

	// Dial connects to servers, network "udp"; nil means a net.Dialer. A write
	// to what it returns must not wait: all flows of a socket wait with it.
	Dial DialFunc

	// Key returns the hash key of a flow for policies that hash; nil means the
	// client's address, without the port.
	Key func(client netip.AddrPort) uint64

	// Accept says whether a client may begin a flow; nil means that all may.
	// It must not block.
	Accept func(client netip.AddrPort) bool

	// Replies is how many datagrams the server sends for each of the client's,
	// in protocols where that is known: 1 for DNS. A flow is over as soon as
	// they are there, and one that ends without counts as a timeout of the
	// server. 0 means not known: a flow ends by IdleTimeout alone.
	Replies int

	IdleTimeout time.Duration // of a flow, without a datagram either way; 0 means 1 min, negative means none
	MaxFlows    int           // at once; the datagrams of more are dropped; 0 means 16384, negative means no limit
	Tries       int           // how many servers are tried; 0 means 3, negative means none but the first

	// OnDone, if not nil, is called once for each flow when it is over, and must
	// not block. The record is valid only during the call.
	OnDone func(*Record)

	// Logger gets panics, with their stack, and, if there is no OnDone, a line for each
	// flow that failed because of a server or of this machine, at most ten a second: the next
	// one says how many were left out. Nil means slog.Default().
	Logger *slog.Logger

	mu        sync.Mutex
	state     *udpState // made by the first use
	listeners map[*udpListener]struct{}
	flows     int
	down      bool // Shutdown or Close was called

	dropped   atomic.Uint64
	kept      atomic.Int64 // bytes kept for another server, by all flows
	lastPanic atomic.Int64 // when one was logged, in ns since 1970
	failures  failureLog
}

// udpState is what exists once a UDPProxy is in use.
type udpState struct {
	ctx    context.Context // ends with Close
	cancel context.CancelCauseFunc
	idle   chan struct{} // closed when down and there is no flow
	flows  sync.WaitGroup

	buffers BufferPool // of maxDatagram
	quic    *quicTable // nil if the datagrams are not QUIC
}

// open returns the state, made on first use; p.mu is held.
func (p *UDPProxy) open() *udpState {
	if p.state == nil {
		st := &udpState{idle: make(chan struct{}), buffers: BufferPool{Size: maxDatagram}}
		st.ctx, st.cancel = context.WithCancelCause(context.Background())
		if p.QUIC != nil {
			st.quic = newQUICTable()
		}
		p.state = st
		p.listeners = make(map[*udpListener]struct{})
	}
	return p.state
}

// Serve relays what pc receives until Shutdown or Close, then returns
// ErrServerClosed. It closes pc. It may be called for many at once, sockets of
// one port with SO_REUSEPORT among them.
//
// If pc listens on all addresses of a host that has several, the system chooses
// the one that replies come from: listen on each instead.
func (p *UDPProxy) Serve(pc net.PacketConn) error {
	defer pc.Close()
	if err := p.Check(); err != nil {
		return err
	}
	l := &udpListener{p: p, pc: pc, flows: make(map[netip.AddrPort]*udpFlow)}
	l.udp, _ = pc.(udpConn)
	p.mu.Lock()
	l.st = p.open()
	if p.down {
		p.mu.Unlock()
		return ErrServerClosed
	}
	p.listeners[l] = struct{}{}
	p.mu.Unlock()

	err := l.read()
	p.mu.Lock()
	delete(p.listeners, l)
	down := p.down
	p.mu.Unlock()
	l.end(ErrServerClosed)
	if down {
		return ErrServerClosed
	}
	return err
}

// Shutdown begins no more flows, waits until those there are have ended, and
// closes all sockets. When ctx ends first it ends the flows that are left, and
// returns its error.
func (p *UDPProxy) Shutdown(ctx context.Context) error {
	st := p.stop()
	var err error
	select {
	case <-st.idle:
	default:
		select {
		case <-st.idle:
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
	}
	p.cut(st)
	return err
}

// Close ends all flows and closes all sockets. It returns when nothing is left
// running but Serve, which is about to return.
func (p *UDPProxy) Close() error {
	p.cut(p.stop())
	return nil
}

func (p *UDPProxy) stop() *udpState {
	p.mu.Lock()
	defer p.mu.Unlock()
	st := p.open()
	if !p.down {
		p.down = true
		if p.flows == 0 {
			close(st.idle)
		}
	}
	return st
}

func (p *UDPProxy) cut(st *udpState) {
	st.cancel(ErrServerClosed)
	p.mu.Lock()
	var all []*udpListener
	for l := range p.listeners {
		all = append(all, l)
	}
	p.mu.Unlock()
	for _, l := range all {
		l.end(ErrServerClosed)
		l.pc.Close()
	}
	st.flows.Wait()
}

// Flows returns how many flows there are.
func (p *UDPProxy) Flows() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.flows
}

// Dropped returns how many datagrams of clients were sent to no server: because Accept,
// MaxFlows or Shutdown allowed no new flow, because no server could be reached, because
// more arrived meanwhile than are kept, or because the system had no buffer.
func (p *UDPProxy) Dropped() uint64 { return p.dropped.Load() }

// begin counts a new flow, if there may be one: during Shutdown, only one that joins others.
func (p *UDPProxy) begin(client netip.AddrPort, joins bool) bool {
	if !p.accepts(client) {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	limit := cmp.Or(p.MaxFlows, defaultMaxFlows)
	if p.down && (!joins || p.flows == 0) || limit > 0 && p.flows >= limit {
		return false
	}
	p.flows++
	p.state.flows.Add(1)
	return true
}

func (p *UDPProxy) accepts(client netip.AddrPort) (ok bool) {
	if p.Accept == nil {
		return true
	}
	defer func() { ok = p.recovered(recover(), "Accept") == nil && ok }()
	return p.Accept(client)
}

// recovered is that for what a datagram can cause, which may be many times in a
// second: of those one is logged.
func (p *UDPProxy) recovered(v any, what string) error {
	if v == nil {
		return nil
	}
	now, last := time.Now().UnixNano(), p.lastPanic.Load()
	if now-last < int64(time.Second) || !p.lastPanic.CompareAndSwap(last, now) {
		return &panicError{v}
	}
	return recovered(v, p.Logger, what)
}

func (p *UDPProxy) ended() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.flows--
	p.state.flows.Done()
	if p.down && p.flows == 0 {
		close(p.state.idle)
	}
}

func (p *UDPProxy) dial(ctx context.Context, addr string) (c net.Conn, err error) {
	defer func() {
		if p := p.recovered(recover(), "Dial"); p != nil {
			err = p
		}
	}()
	if network, _ := SplitAddr(addr); network != "tcp" {
		return nil, errors.New("l4: no datagrams to " + addr)
	}
	ctx, cancel := context.WithTimeout(ctx, defaultConnectTimeout) // to look up a name
	defer cancel()
	if p.Dial != nil {
		c, err = p.Dial(ctx, "udp", addr)
		return balance.Dialed("l4: UDPProxy.Dial", c, err)
	}
	return new(net.Dialer).DialContext(ctx, "udp", addr)
}

func (p *UDPProxy) key(client netip.AddrPort) (key uint64, err error) {
	if p.Key == nil {
		return balance.HashAddr(client.Addr()), nil
	}
	defer func() { err = p.recovered(recover(), "Key") }()
	return p.Key(client), nil
}

// Check returns what is wrong with p and its pool. [UDPProxy.Serve] calls it.
func (p *UDPProxy) Check() error { return checkAll(p) }

func (p *UDPProxy) check(c *checks) {
	if p.QUIC == nil || len(p.QUIC.Routes) == 0 {
		c.Need("UDPProxy.Pool", p.Pool, "must be the pool of servers")
	}
	if p.Pool != nil {
		c.In("UDPProxy.Pool", p.Pool)
	}
	if p.QUIC != nil {
		c.in("UDPProxy.QUIC", p.QUIC)
		c.If(p.Replies > 0, "UDPProxy.Replies", p.Replies, "must be 0 with QUIC")
	}
	c.If(p.Replies < 0, "UDPProxy.Replies", p.Replies, notNegative)
}
