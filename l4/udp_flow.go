// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"bytes"
	"cmp"
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
//	begins   first datagram: a goroutine, a lease, a socket
//	waits    until the server is known: datagrams are kept, up to udpKeep
//	flows    datagrams go straight to the server; those before its first reply are kept, too, for another server
//	ends     all replies are there, idle, refused, cut: the next datagram begins another
type udpFlow struct {
	l      *udpListener
	client netip.AddrPort // as the socket has it
	start  time.Time
	last   atomic.Int64 // when the last datagram passed, since start

	mu      sync.Mutex // not held while waiting: sending a datagram does not
	server  net.Conn   // nil while there is none
	kept    [][]byte   // sent by the client and not yet replied to
	room    int        // for more of those, in bytes
	sent    int        // by the client
	replies int
	over    bool
	refused error // told by a write to server

	record Record
	req    balance.Request
}

// udpKeep bounds the bytes kept of a flow that has no reply yet.
const udpKeep = 64 << 10

var errFlowOver = errors.New("l4: flow over")

func newUDPFlow(l *udpListener, client, plain netip.AddrPort) *udpFlow {
	f := &udpFlow{l: l, client: client, start: time.Now(), room: udpKeep}
	f.req = balance.Request{Key: l.p.key(plain)}
	f.record = Record{
		RemoteAddr: net.UDPAddrFromAddrPort(plain), LocalAddr: l.pc.LocalAddr(),
		Start: f.start, Queue: -1, Connect: -1, FirstByte: -1,
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
	f.last.Store(int64(time.Since(f.start)))
	f.sent++
	f.record.BytesIn += int64(len(b))
	if f.replies == 0 && len(b) <= f.room {
		f.kept = append(f.kept, bytes.Clone(b))
		f.room -= len(b) + 64 // an empty one takes room, too
	}
	if f.server != nil {
		f.write(b)
	}
	return true
}

// write sends to the server; f.mu is held. The system tells an ICMP error to
// whoever asks first, and that may be us: it ends the read.
func (f *udpFlow) write(b []byte) {
	_, err := f.server.Write(b)
	if err != nil && !lostDatagram(err) && f.refused == nil {
		f.refused = err
		f.server.SetReadDeadline(time.Unix(1, 0))
	}
}

// lostDatagram reports whether err is about one datagram only.
func lostDatagram(err error) bool {
	return errors.Is(err, syscall.EMSGSIZE) || errors.Is(err, syscall.ENOBUFS)
}

// end ends the flow, for the first reason given.
func (f *udpFlow) end(t Termination, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.over {
		return
	}
	f.over = true
	f.record.Termination, f.record.Err = t, err
	if f.server != nil {
		f.server.Close()
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
	for try := 1; ; try++ {
		again, end, err := f.try(try)
		if again && try < max(cmp.Or(p.Tries, defaultTries), 1) {
			if retry, ok := p.Pool.TryRetry(); ok {
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
		p.OnDone(&f.record)
	}
	if f.record.Termination.Cause == ServerAborted || f.record.Termination.Cause == Resource {
		p.logger().Info("l4: flow not served", "client", f.record.RemoteAddr, "server", f.record.Server, "err", f.record.Err)
	}
}

// try serves the flow by one server; again means that another may do better.
func (f *udpFlow) try(try int) (again bool, end Termination, err error) {
	p := f.l.p
	began := time.Now()
	lease, err := p.Pool.Acquire(f.l.st.ctx, f.req)
	f.record.Queue = max(f.record.Queue, 0) + time.Since(began)
	if err != nil {
		if errors.Is(err, balance.ErrNoServer) {
			return false, Termination{ServerAborted, PhaseConnect}, err
		}
		return false, Termination{Resource, PhaseQueue}, err
	}
	server := lease.Server()
	f.record.Server, f.record.Tries = server.Name(), try
	c, err := p.dial(f.l.st.ctx, server.Addr())
	if err != nil {
		class, end := whyNot(f.l.st.ctx, err)
		lease.Done(balance.Outcome{Class: class, Err: err})
		f.req.Avoid(server)
		return class.ServerFault(), end, err
	}
	if idle := f.idle(); idle > 0 {
		c.SetReadDeadline(time.Now().Add(idle))
	}
	if f.connected(c) {
		server.Attach(f)
		err = f.relay(c)
		server.Detach(f)
	}
	c.Close()
	return f.finish(lease, err)
}

// connected sends what was kept to c, in order.
func (f *udpFlow) connected(c net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.over {
		return false
	}
	f.server, f.refused = c, nil
	for _, b := range f.kept {
		f.write(b)
	}
	return true
}

// finish tells the pool how it went, and says how the flow ends.
func (f *udpFlow) finish(lease balance.Lease, err error) (again bool, end Termination, _ error) {
	var o balance.Outcome
	o, again, end, err = f.judge(lease.Server(), err)
	lease.Done(o) // which tells observers: without the lock
	return again, end, err
}

// judge says what the end of the connection to s means.
func (f *udpFlow) judge(s *balance.Server, err error) (o balance.Outcome, again bool, end Termination, _ error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.server = nil
	answered := f.replies > 0
	o = balance.Outcome{Err: err}
	if answered {
		o.Latency = f.record.FirstByte
	}
	switch {
	case f.over || err == errFlowOver: // cut, or done
		o.Err = nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		o.Err, err = nil, nil
		if f.replies < f.sent*f.l.p.Replies {
			o.Class = balance.Timeout
			end, err = Termination{ServerTimeout, PhaseData}, os.ErrDeadlineExceeded
			o.Err = err
		}
	case answered:
		o.Class, end = balance.Reset, Termination{ServerAborted, PhaseData}
	default:
		o.Class, end, again = balance.ConnectFailed, Termination{ServerAborted, PhaseConnect}, true
		f.req.Avoid(s)
	}
	if err == errFlowOver {
		err = nil
	}
	return o, again, end, err
}

// relay sends replies to the client until the flow is over or the server
// fails. The error is os.ErrDeadlineExceeded when it was idle.
func (f *udpFlow) relay(c net.Conn) error {
	r := newDatagramReader(c, &f.l.st.buffers)
	for {
		b, err := r.read()
		switch {
		case err == nil:
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

func (f *udpFlow) idle() time.Duration { return cmp.Or(f.l.p.IdleTimeout, defaultUDPIdle) }

// timedOut says why a read was woken by its deadline; nil means that it was for
// nothing: the deadline is not moved for each datagram, but when it has passed.
func (f *udpFlow) timedOut(c net.Conn) error {
	f.mu.Lock() // or the deadline of a write that was refused could be lost
	defer f.mu.Unlock()
	if f.refused != nil {
		return f.refused
	}
	quiet := time.Since(f.start) - time.Duration(f.last.Load())
	if quiet >= f.idle() {
		return os.ErrDeadlineExceeded
	}
	return c.SetReadDeadline(time.Now().Add(f.idle() - quiet))
}

// reply sends a datagram to the client and says whether that was the last.
func (f *udpFlow) reply(b []byte) (over bool) {
	f.l.writeTo(b, f.client)
	f.mu.Lock()
	defer f.mu.Unlock()
	since := time.Since(f.start)
	f.last.Store(int64(since))
	if f.replies == 0 {
		f.record.FirstByte = since
		f.kept = nil
	}
	f.replies++
	f.record.BytesOut += int64(len(b))
	if n := f.l.p.Replies; n > 0 && f.replies >= f.sent*n {
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
