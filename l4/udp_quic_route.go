// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/penstock-lb/penstock/balance"
)

const quicUnheardIdle = 10 * time.Second // of a flow whose client has not shown that it gets replies

// route finds the pool of a flow that begins a connection by its ClientHello. False means
// that the flow is over: another of the same address has taken its datagrams, or end says
// why.
func (f *udpFlow) route() (goesOn, handedOver bool, end Termination, err error) {
	pool, err := f.findPool()
	switch {
	case panicked(err):
		return false, false, Termination{Internal, PhaseRequest}, err
	case errors.Is(err, errFlowOver): // end has said why
		return false, false, end, nil
	case err != nil:
		return false, false, Termination{Denied, PhaseRequest}, err
	}
	if other := f.l.st.quic.routed(f, pool); other != nil {
		f.handOver(other)
		return false, true, end, nil
	}
	f.pool = pool
	return true, false, end, nil
}

// findPool waits until the routes can decide or must.
func (f *udpFlow) findPool() (pool *balance.Pool, err error) {
	defer func() {
		if p := f.l.p.recovered(recover(), "Match"); p != nil {
			err = p
		}
	}()
	peeked := &Peeked{Conn: NewConn(datagramAddrs{remote: f.record.Remote, local: f.record.Local})}
	timer := time.NewTimer(defaultPeekTimeout)
	defer timer.Stop()
	for {
		bad := f.peek(peeked)
		switch bad {
		case errQUICInitial, errQUICDiffers, errQUICLong, errQUICLate, errFlowOver:
			return nil, bad
		}
		pool, err := f.l.p.QUIC.decide(peeked, f.l.p.Pool)
		switch {
		case err == errUndecided:
		case pool == nil && peeked.Final && bad != nil:
			return nil, fmt.Errorf("%w: %w", ErrNoRoute, bad)
		case pool == nil:
			return nil, noRoute(peeked, ErrNoRoute)
		default:
			f.record.JA4 = JA4Of(peeked.Conn)
			return pool, nil
		}
		select {
		case <-f.quic.more:
		case <-timer.C:
			f.quic.late = true
		}
	}
}

// errQUICLong says that a datagram was not kept: there is no room for more.
var errQUICLong = fmt.Errorf("%w: too much before its end", ErrClientHello)

// errQUICLate says that the ClientHello is still not complete. The flow ends rather than go on
// without: a client that lost a datagram sends all of it again, and then gets to its server.
var errQUICLate = fmt.Errorf("%w: not complete: %w", ErrClientHello, os.ErrDeadlineExceeded)

// peek has p know what the datagrams so far say.
func (f *udpFlow) peek(p *Peeked) error {
	f.mu.Lock()
	datagrams, full, over := f.kept, f.quic.full, f.over
	f.mu.Unlock()
	if over {
		return errFlowOver
	}
	if p.Final {
		return p.helloErr
	}
	scratch := &f.l.st.quic.scratch
	q := scratch.Get().(*quicHello)
	defer scratch.Put(q)
	hello, err := q.read(datagrams)
	switch {
	case err == nil:
		p.hello, p.Final = hello, true
	case !errors.Is(err, io.ErrUnexpectedEOF):
		p.helloErr, p.Final = err, true
	case full:
		return errQUICLong
	case f.quic.late:
		return errQUICLate
	}
	return err
}

// handOver gives what was kept to another flow and ends f without a record.
func (f *udpFlow) handOver(other *udpFlow) {
	f.mu.Lock()
	kept := f.kept
	f.over, f.ended = true, true
	f.forget(&f.l.p.kept)
	f.mu.Unlock()
	for _, b := range kept {
		if !other.send(b) {
			f.l.p.dropped.Add(1)
		}
	}
}

// wake tells findPool that something has happened.
func (q *quicFlow) wake() {
	select {
	case q.more <- struct{}{}:
	default:
	}
}

// datagramAddrs is a connection as matchers see it, of which there is no more than the
// addresses.
type datagramAddrs struct {
	net.Conn
	remote, local net.Addr
}

func (d datagramAddrs) RemoteAddr() net.Addr { return d.remote }
func (d datagramAddrs) LocalAddr() net.Addr  { return d.local }
