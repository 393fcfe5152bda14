// SPDX-License-Identifier: Apache-2.0

package h3

import (
	"crypto/tls"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/quicvarint"

	"github.com/penstock-lb/penstock/l7"
)

// A conn is a client's connection. Its life is: it serves, has been warned (a GOAWAY that
// refuses no stream yet), drains (a GOAWAY that does), and is closed.
type conn struct {
	f     *Front
	qc    *quic.Conn
	seat  *l7.FrontConn
	local net.Addr
	state atomic.Pointer[tls.ConnectionState] // after the handshake
	calm  calm
	peer  atomic.Pointer[peer]

	abused atomic.Bool // the level of calm was exceeded

	// The first of each kind of the client's streams.
	control, encoder, decoder atomic.Bool

	streams sync.WaitGroup

	mu       sync.Mutex
	ctrl     *quic.SendStream // our control stream; nil before it is open
	active   int              // requests being served
	served   int              // requests accepted
	next     quic.StreamID    // of the first stream that has not been accepted
	warned   bool
	draining bool
	timer    *time.Timer // IdleTimeout; once draining, until the connection is closed
}

// peer is the address of the client, which may change (RFC 9000, section 9).
type peer struct {
	addr net.Addr
	text string
}

// goAwayLater is the id of a GOAWAY that refuses no stream (RFC 9114, section 5.2).
const goAwayLater = 1<<62 - 4

// lingering is how long a drained connection at least stays open, so that the last reply
// and the GOAWAY reach the client, unless the client closes it: to close it at once would
// lose what is still on its way.
const lingering = time.Second

// run serves the connection until it is closed.
func (c *conn) run() {
	defer c.streams.Wait()
	if !c.open() {
		return
	}
	c.streams.Go(c.acceptUni)
	for {
		str, err := c.qc.AcceptStream(c.qc.Context())
		if err != nil {
			return
		}
		if !c.begin(str.StreamID()) {
			str.CancelRead(quic.StreamErrorCode(codeRejected))
			str.CancelWrite(quic.StreamErrorCode(codeRejected))
			str.ReleaseStreamCredit()
			continue
		}
		c.streams.Go(func() {
			defer c.done()
			c.serve(str)
		})
	}
}

// open sends SETTINGS.
func (c *conn) open() bool {
	str, err := c.qc.OpenUniStream()
	if err != nil { // the client allows none (RFC 9114, section 6.2)
		_ = c.qc.CloseWithError(quic.ApplicationErrorCode(codeStreamCreation), "no stream for SETTINGS")
		return false
	}
	if _, err := str.Write(settings(c.f.limits.MaxHeaderBytes)); err != nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ctrl = str
	c.awaitRequest()
	if c.warned || c.draining { // Shutdown was quicker
		c.goAway()
	}
	return true
}

// begin accepts a stream, unless the connection drains.
func (c *conn) begin(id quic.StreamID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.draining {
		return false
	}
	c.next = id + 4
	c.active++
	c.served++
	if c.timer != nil {
		c.timer.Stop()
	}
	if most := c.f.limits.MaxRequests; most > 0 && c.served >= most {
		c.drainLocked()
	}
	return true
}

// done ends a request.
func (c *conn) done() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.active--; c.active == 0 {
		c.awaitRequest()
	}
}

// awaitRequest closes the connection later, if nothing happens. C.mu is held, and no
// request is being served.
func (c *conn) awaitRequest() {
	if c.active > 0 {
		return
	}
	d, f := c.f.limits.IdleTimeout, c.drain
	if c.draining {
		d = max(lingering, 6*c.qc.ConnectionStats().SmoothedRTT)
		f = func() { c.close(codeNoError, "") }
	}
	if c.timer != nil {
		c.timer.Stop()
	}
	if d > 0 {
		c.timer = time.AfterFunc(d, f)
	}
}

// warn tells the client to leave.
func (c *conn) warn() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.warned {
		c.warned = true
		c.goAway()
	}
}

// drain refuses new requests, and closes the connection when those in progress have been
// served.
func (c *conn) drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drainLocked()
}

func (c *conn) drainLocked() {
	if c.draining {
		return
	}
	c.draining = true
	c.goAway()
	c.awaitRequest()
}

// goAway sends a GOAWAY, unless the client gives us no room for it. C.mu is held.
func (c *conn) goAway() {
	if c.ctrl == nil {
		return
	}
	id := uint64(goAwayLater)
	if c.draining {
		id = uint64(c.next)
	}
	b := appendFrame(nil, frameGoAway, uint64(quicvarint.Len(id)))
	if c.ctrl.TryWriteAll(quicvarint.Append(b, id)) == nil {
		c.f.goAways.Add(1)
	}
}

// close closes the connection. What is on its way is lost.
func (c *conn) close(code code, reason string) {
	_ = c.qc.CloseWithError(quic.ApplicationErrorCode(code), reason)
}

// fail closes the connection because of the client.
func (c *conn) fail(f *fault) {
	c.f.logger().Debug("h3: connection closed", "remote", c.qc.RemoteAddr().String(), "error", f)
	c.close(f.code, f.reason)
}

// glitch counts what the client has done. An error ends the connection.
func (c *conn) glitch(g glitch) error {
	if !c.calm.add(g, time.Now()) {
		return nil
	}
	f := ofConn(codeExcessiveLoad, "too much needless work")
	if !c.abused.Swap(true) {
		c.fail(f)
		c.f.abused(c.addrPort(), f)
	}
	return f
}

// early reports whether the handshake has not completed: what has come until now may be a
// replay (RFC 9001, section 9.2).
func (c *conn) early() bool {
	if c.state.Load() != nil {
		return false
	}
	select {
	case <-c.qc.HandshakeComplete():
		return false
	default:
		return c.qc.ConnectionState().Used0RTT
	}
}

func (c *conn) tlsState() *tls.ConnectionState {
	if s := c.state.Load(); s != nil {
		return s
	}
	s := c.qc.ConnectionState().TLS
	if s.HandshakeComplete {
		c.state.Store(&s)
	}
	return &s
}

// remoteAddr returns the client's address as it is now.
func (c *conn) remoteAddr() string {
	addr := c.qc.RemoteAddr()
	p := c.peer.Load()
	if p == nil || p.addr != addr {
		was := p
		p = &peer{addr, addr.String()}
		if c.peer.Swap(p); was != nil && was.text != p.text {
			c.f.migrations.Add(1)
		}
	}
	return p.text
}

func (c *conn) addrPort() netip.AddrPort {
	a, _ := netip.ParseAddrPort(c.remoteAddr())
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
