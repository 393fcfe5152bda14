// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"
)

// A udpListener is one socket that clients send to, and its flows. One
// goroutine reads it.
type udpListener struct {
	p   *UDPProxy
	st  *udpState
	pc  net.PacketConn
	udp udpConn // pc if it is one, which needs no allocation for an address; else nil

	mu    sync.Mutex
	flows map[netip.AddrPort]*udpFlow
	over  bool // end was called
}

// A udpConn is a [net.UDPConn], or one that can be handed over.
type udpConn interface {
	ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error)
	WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error)
}

// read hands each datagram to its flow until the socket is closed, or fails
// ten times in a row for no reason that may pass; see AcceptPause.
func (l *udpListener) read() error {
	b := make([]byte, maxDatagram)
	var pause time.Duration
	for failures := 0; ; {
		n, client, err := l.readFrom(b)
		switch {
		case err == nil:
			failures, pause = 0, 0
			if client.IsValid() {
				if l.st.quic != nil {
					l.deliverQUIC(client, b[:n])
				} else {
					l.deliver(client, b[:n])
				}
			}
		case strayReset(err):
		case errors.Is(err, net.ErrClosed), failures == 10:
			return fmt.Errorf("l4: udp: %w", err)
		default:
			var passes bool
			if pause, passes = AcceptPause(err, pause); !passes {
				failures++
				pause = 5 * time.Millisecond << failures
			}
			select {
			case <-time.After(pause):
			case <-l.st.ctx.Done():
			}
		}
	}
}

func (l *udpListener) readFrom(b []byte) (int, netip.AddrPort, error) {
	if l.udp != nil {
		n, client, err := l.udp.ReadFromUDPAddrPort(b)
		return n, client, err
	}
	n, addr, err := l.pc.ReadFrom(b)
	client, _ := addrPort(addr)
	return n, client, err
}

// writeTo replies to a client. A datagram that cannot be sent is lost, as they are.
func (l *udpListener) writeTo(b []byte, client netip.AddrPort) error {
	if l.udp != nil {
		_, err := l.udp.WriteToUDPAddrPort(b, client)
		return err
	}
	_, err := l.pc.WriteTo(b, net.UDPAddrFromAddrPort(client))
	return err
}

// deliver gives a datagram to the flow of its client, a new one if need be.
func (l *udpListener) deliver(client netip.AddrPort, b []byte) {
	l.mu.Lock()
	f := l.flows[client]
	l.mu.Unlock()
	if f != nil && f.send(b) {
		return
	}
	// No flow, or one that is just ending.
	f = l.newFlow(client, false)
	if f == nil {
		return
	}
	f.pool = l.p.Pool
	f.send(b)
	l.mu.Lock()
	l.flows[client] = f
	l.mu.Unlock()
	l.start(f)
}

// newFlow returns a flow that has not begun; nil if there may be none. One that joins
// continues what another has begun.
func (l *udpListener) newFlow(client netip.AddrPort, joins bool) *udpFlow {
	plain := netip.AddrPortFrom(client.Addr().Unmap().WithZone(""), client.Port())
	if !l.p.begin(plain, joins) {
		l.p.dropped.Add(1)
		return nil
	}
	key, err := l.p.key(plain)
	if err != nil {
		l.p.dropped.Add(1)
		l.p.ended()
		return nil
	}
	return newUDPFlow(l, client, plain, key)
}

// start has a flow run that can be found by its datagrams.
func (l *udpListener) start(f *udpFlow) {
	l.mu.Lock()
	over := l.over
	l.mu.Unlock()
	if over {
		f.end(Termination{Killed, PhaseData}, ErrServerClosed)
	}
	go f.run()
}

// remove forgets f, unless another has taken its place.
func (l *udpListener) remove(f *udpFlow) {
	if f.quic != nil {
		l.st.quic.remove(f)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.flows[f.client] == f {
		delete(l.flows, f.client)
	}
}

// end ends all flows.
func (l *udpListener) end(err error) {
	l.mu.Lock()
	l.over = true
	all := make([]*udpFlow, 0, len(l.flows))
	for _, f := range l.flows {
		all = append(all, f)
	}
	l.mu.Unlock()
	if l.st.quic != nil {
		all = l.st.quic.all(l)
	}
	for _, f := range all {
		f.end(Termination{Killed, PhaseData}, err)
	}
}
