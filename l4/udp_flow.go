// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/penstock-lb/penstock/balance"
)

// A udpFlow is the datagrams of one client and the replies to them.
//
//	begins    first datagram: a goroutine, a lease, a socket
//	waits     until the server is known: datagrams are kept
//	in doubt  datagrams go straight to the server, and are kept, too, for another server should this one refuse
//	settled   by the first reply, or after udpDoubt: nothing is kept
//	over      all replies are there, idle, refused, cut: it takes no datagram, the next begins another flow
type udpFlow struct {
	l      *udpListener
	client netip.AddrPort // as the socket has it
	start  time.Time
	last   atomic.Int64 // when the last datagram passed, since start

	mu      sync.Mutex // not held while waiting: sending a datagram does not
	server  net.Conn   // nil while there is none
	since   time.Duration
	settled bool // server takes the datagrams
	udpKept
	sent    int // by the client
	replies int
	over    bool
	ended   bool  // the record says why
	refused error // told by a write to server

	record Record
	req    balance.Request
	pool   *balance.Pool
	quic   *quicFlow // nil if it is not QUIC
}

// udpDoubt is how long a server that is silent may still turn out not to be
// there: ICMP errors come within a round trip, if they come.
const udpDoubt = time.Second

var errFlowOver = errors.New("l4: flow over")

func newUDPFlow(l *udpListener, client, plain netip.AddrPort, key uint64) *udpFlow {
	f := &udpFlow{l: l, client: client, start: time.Now()}
	f.req = balance.Request{Key: key}
	f.record = Record{
		Remote: net.UDPAddrFromAddrPort(plain), Local: l.pc.LocalAddr(),
		Start: f.start, mu: new(sync.Mutex),
	}
	return f
}

// send takes a datagram of the client; false means that the flow is over.
func (f *udpFlow) send(b []byte) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.over {
		return false
	}
	now := time.Since(f.start)
	if f.server != nil && now-f.since >= udpDoubt {
		f.dropKept()
	}
	written := f.server != nil && f.write(b)
	if f.refused != nil && f.settled {
		f.over = true
		return false // b was not sent, but the server told of before: another flow may do better
	}
	f.last.Store(int64(now))
	f.sent++
	f.record.BytesIn += int64(len(b))
	kept := !f.settled && f.keep(b, &f.l.p.kept)
	if !kept && !written {
		f.l.p.dropped.Add(1)
	}
	if f.quic != nil && f.quic.more != nil && f.server == nil {
		f.quic.full = f.quic.full || !kept
		f.quic.wake()
	}
	return true
}

// dropKept gives up what was kept for another server; f.mu is held.
func (f *udpFlow) dropKept() {
	f.settled = true
	f.forget(&f.l.p.kept)
}

// write sends to the server, and is false if that did not take b; f.mu is held.
// The system reports an ICMP error to the first call, which may be this one;
// then it ends the read.
func (f *udpFlow) write(b []byte) (ok bool) {
	defer func() {
		if err := f.l.p.recovered(recover(), "Write"); err != nil {
			ok, f.refused = false, err
			f.server.SetReadDeadline(time.Unix(1, 0))
		}
	}()
	_, err := f.server.Write(b)
	if err != nil && !lostDatagram(err) && f.refused == nil {
		f.refused = err
		f.server.SetReadDeadline(time.Unix(1, 0))
	}
	return err == nil
}

// lostDatagram reports whether err is about one datagram only.
func lostDatagram(err error) bool {
	return errors.Is(err, syscall.EMSGSIZE) || errors.Is(err, syscall.ENOBUFS)
}

// end ends the flow, for the first reason given. What no server took is lost.
func (f *udpFlow) end(t Termination, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.over = true; f.ended {
		return
	}
	f.ended = true
	f.record.Termination, f.record.Err = t, err
	if f.server != nil {
		f.server.Close()
	} else {
		f.l.p.dropped.Add(uint64(len(f.kept)))
	}
	f.forget(&f.l.p.kept)
	if f.quic != nil && f.quic.more != nil {
		f.quic.wake()
	}
}

// Cut is told by the pool that the server is in trouble; see [balance.Attached].
func (f *udpFlow) Cut(_ bool, reason string) {
	f.end(Termination{ServerDown, PhaseData}, errors.New("l4: "+reason))
}

// run finds a server and relays its replies until the flow is over.
func (f *udpFlow) run() {
	p := f.l.p
	defer p.ended()
	goesOn := true
	if f.quic != nil && f.quic.more != nil {
		var handedOver bool
		var end Termination
		var err error
		if goesOn, handedOver, end, err = f.route(); handedOver {
			return
		}
		if !goesOn {
			f.end(end, err)
		}
	}
	for try := 1; goesOn; try++ {
		again, end, err := f.try(try)
		if again && try < max(cmp.Or(p.Tries, defaultTries), 1) {
			if retry, ok := f.pool.TryRetry(); ok {
				defer retry.Done()
				continue
			}
		}
		f.end(end, err)
		break
	}
	f.l.remove(f)
	if p.OnDone != nil {
		f.record.Total = time.Since(f.start)
		guard(p.Logger, "OnDone", func() { p.OnDone(&f.record) })
		return
	}
	if f.record.Termination.Cause == ServerAborted || f.record.Termination.Cause == Resource {
		p.failures.add(p.Logger, time.Now(), "l4: flow not served", "client", f.record.Remote, "server", f.record.Server, "err", f.record.Err)
	}
}

// try serves the flow by one server; again means that another may do better.
func (f *udpFlow) try(try int) (again bool, end Termination, err error) {
	p := f.l.p
	lease, err := f.pool.Acquire(f.l.st.ctx, f.req)
	if err != nil {
		if errors.Is(err, balance.ErrNoServer) {
			return false, Termination{ServerAborted, PhaseConnect}, noLease(f.pool, err)
		}
		return false, Termination{Resource, PhaseQueue}, noLease(f.pool, err)
	}
	server := lease.Server()
	f.record.Server, f.record.Tries = server.Name(), try
	f.record.Assigned, f.record.Connected = reached(time.Since(f.start)), 0
	c, err := p.dial(f.dialContext(), server.Addr())
	if err != nil {
		class, end := whyNot(f.l.st.ctx, err)
		lease.Done(balance.Outcome{Class: class, Err: err})
		f.req.Avoid(server)
		return class.ServerFault(), end, err
	}
	f.record.Connected = reached(time.Since(f.start))
	if f.quic != nil {
		f.l.st.quic.assigned(f, server.Name())
	}
	err = f.serve(c, lease)
	return f.finish(lease, err)
}

func (f *udpFlow) dialContext() context.Context {
	if f.l.p.Dial == nil {
		return f.l.st.ctx
	}
	of := Client{}
	of.Remote, _ = addrPort(f.record.Remote)
	of.Local, _ = addrPort(f.record.Local)
	return dialFor(f.l.st.ctx, of)
}

// serve relays between the client and c until that ends, by a panic even if c
// is the host's.
func (f *udpFlow) serve(c net.Conn, lease balance.Lease) (err error) {
	defer func() {
		if p := f.l.p.recovered(recover(), "connection"); p != nil {
			err = p
		}
	}()
	defer c.Close()
	if !f.connected(c) {
		return errFlowOver
	}
	lease.Server().Attach(f)
	defer lease.Server().Detach(f)
	return f.relay(c, lease)
}

// connected sends what was kept to c, in order.
func (f *udpFlow) connected(c net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.over {
		return false
	}
	f.server, f.refused = c, nil
	f.since = time.Since(f.start)
	c.SetReadDeadline(time.Now().Add(udpDoubt))
	for _, b := range f.kept {
		f.write(b)
	}
	return true
}

// finish tells the pool how it went, and says how the flow ends.
func (f *udpFlow) finish(lease balance.Lease, err error) (again bool, end Termination, _ error) {
	o, again, end := f.outcome(err)
	if again {
		f.req.Avoid(lease.Server())
	}
	lease.Done(o)
	return again, end, o.Err
}

// complete reports whether all replies have come that there are to be, as far as that is
// known.
func (f *udpFlow) complete() bool {
	n := f.l.p.Replies
	return n <= 0 || f.replies/n >= f.sent
}

func (f *udpFlow) outcome(err error) (o balance.Outcome, again bool, end Termination) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.server = nil
	defer func() {
		if !again {
			f.over = true // what comes from now on is another flow's
			f.forget(&f.l.p.kept)
		}
	}()
	answered := f.replies > 0
	if answered {
		o.Latency = f.record.FirstByte
	}
	switch {
	case f.ended || err == errFlowOver: // cut, or done
		return o, false, end
	case errors.Is(err, os.ErrDeadlineExceeded):
		if !f.complete() {
			o.Class, o.Err = balance.Timeout, os.ErrDeadlineExceeded
			end = Termination{ServerTimeout, PhaseData}
		}
		return o, false, end
	}
	switch o.Err = err; {
	case panicked(err):
		o.Class, end = balance.Canceled, Termination{Internal, PhaseData}
	case answered:
		o.Class, end = balance.Reset, Termination{ServerAborted, PhaseData}
	case f.settled:
		o.Class, end = balance.ConnectFailed, Termination{ServerAborted, PhaseData}
	default:
		o.Class, end, again = balance.ConnectFailed, Termination{ServerAborted, PhaseConnect}, true
	}
	return o, again, end
}

// relay sends replies to the client until the flow is over or the server
// fails. The error is os.ErrDeadlineExceeded when it was idle.
func (f *udpFlow) relay(c net.Conn, lease balance.Lease) error {
	r := newDatagramReader(c, &f.l.st.buffers)
	for {
		b, err := r.read()
		switch {
		case err == nil:
			lease.Works(0)
			if f.quic != nil {
				f.quic.reply(f, b.B)
			}
			over := f.reply(b.B)
			f.l.st.buffers.Put(b)
			if over {
				return errFlowOver
			}
		case isTimeout(err):
			if err := f.timedOut(c); err != nil {
				return err
			}
		case lostDatagram(err):
		default:
			return err
		}
	}
}

// idle is after how long without a datagram the flow is over; f.mu is held.
func (f *udpFlow) idle() time.Duration {
	idle := cmp.Or(f.l.p.IdleTimeout, defaultUDPIdle)
	if f.quic != nil && (f.replies == 0 || !f.quic.heard.Load()) && (idle <= 0 || idle > quicUnheardIdle) {
		return quicUnheardIdle
	}
	return idle
}

// timedOut says why a read was woken by its deadline; nil means that it was for
// nothing: the deadline is not moved for each datagram, but when it has passed.
// The first is the end of the doubt.
func (f *udpFlow) timedOut(c net.Conn) error {
	f.mu.Lock() // or the deadline of a write that was refused could be lost
	defer f.mu.Unlock()
	if f.refused != nil {
		return f.refused
	}
	now, idle := time.Since(f.start), f.idle()
	quiet := now - time.Duration(f.last.Load())
	if idle > 0 && quiet >= idle {
		f.over = true // at once, or a datagram that comes now would be lost
		return os.ErrDeadlineExceeded
	}
	doubt := f.since + udpDoubt - now
	if doubt <= 0 {
		f.dropKept()
	}
	switch {
	case !f.settled && (idle <= 0 || doubt < idle-quiet):
		return c.SetReadDeadline(time.Now().Add(doubt))
	case idle <= 0:
		return c.SetReadDeadline(time.Time{})
	}
	return c.SetReadDeadline(time.Now().Add(idle - quiet))
}

// reply sends a datagram to the client and says whether that was the last.
func (f *udpFlow) reply(b []byte) (over bool) {
	f.l.writeTo(b, f.client)
	f.mu.Lock()
	defer f.mu.Unlock()
	since := time.Since(f.start)
	f.last.Store(int64(since))
	if f.replies == 0 {
		f.record.FirstByte = reached(since)
		f.dropKept()
	}
	f.replies++
	f.record.BytesOut += int64(len(b))
	if f.l.p.Replies > 0 && f.complete() {
		f.over = true
		return true
	}
	return false
}

// readDatagram reads from a connection that cannot say whether it is readable.
func readDatagram(c net.Conn, pool *BufferPool) (*Buffer, error) {
	b := pool.Get()
	n, err := c.Read(b.B[:cap(b.B)])
	if err != nil {
		pool.Put(b)
		return nil, err
	}
	b.B = b.B[:n]
	return b, nil
}
