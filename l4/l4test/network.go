// SPDX-License-Identifier: Apache-2.0

package l4test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// A Network is a set of listeners that can be dialed. Networks are islands:
// the same address may be listened to on each. Its methods may be called at
// once by many goroutines.
//
// Addresses are "host:port" for "tcp", "tcp4" and "tcp6", and a path for
// "unix". A host may be an IP address, empty (all of them), or a name; a name
// exists once it was listened to, as does "localhost", which is 127.0.0.1.
type Network struct {
	// Dialed, if not nil, is called with the client's end of each connection
	// before it is used: set faults here. An error fails the dial with it. Must
	// not change once the network is in use.
	Dialed func(c *Conn) error

	mu        sync.Mutex
	listeners map[key]*Listener
	names     map[string]netip.Addr
	dropped   map[key]chan struct{} // closed by Restore
	port      uint16                // last ephemeral one
}

// key is what a listener is found by: addr has port 0 and path is set for
// Unix sockets.
type key struct {
	addr netip.AddrPort
	path string
}

// clientIP is where connections come from that are not made by DialFrom.
var clientIP = netip.AddrFrom4([4]byte{192, 0, 2, 1})

// backlog is how many connections wait for Accept; further dials wait.
const backlog = 128

// NewNetwork returns a network without listeners.
func NewNetwork() *Network {
	return &Network{
		listeners: make(map[key]*Listener),
		names:     map[string]netip.Addr{"localhost": netip.AddrFrom4([4]byte{127, 0, 0, 1})},
		dropped:   make(map[key]chan struct{}),
		port:      49151,
	}
}

// Listen listens at addr; the listener is a *Listener. Port 0 picks a free one.
// The error is a *net.OpError as of package net, with syscall.EADDRINUSE if the
// address is in use.
func (n *Network) Listen(network, addr string) (net.Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	k, err := n.resolve(network, addr, true)
	if err == nil && n.listeners[k] != nil {
		err = syscall.EADDRINUSE
	}
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: network, Err: err}
	}
	l := &Listener{n: n, key: k, queue: make(chan *Conn, backlog), closed: make(chan struct{})}
	n.listeners[k] = l
	return l, nil
}

// DialContext connects to a listener, as net.Dialer does. The connection is a
// *Conn, made at once and not when the listener accepts it. Errors are
// *net.OpError: syscall.ECONNREFUSED without a listener, the error of ctx if it
// ends first, *net.DNSError for an unknown name.
func (n *Network) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	return n.dial(ctx, network, addr, netip.AddrPortFrom(clientIP, 0))
}

// DialFrom returns a DialContext whose connections come from src. Port 0
// picks a new one each time.
func (n *Network) DialFrom(src netip.AddrPort) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		return n.dial(ctx, network, addr, src)
	}
}

// Drop makes dials to addr wait for as long as their context allows, as if
// packets to it were lost, until Restore. Existing connections are not
// affected.
func (n *Network) Drop(network, addr string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	k, err := n.resolve(network, addr, true)
	if err != nil {
		panic(err)
	}
	if n.dropped[k] == nil {
		n.dropped[k] = make(chan struct{})
	}
}

// Restore undoes Drop; waiting dials continue.
func (n *Network) Restore(network, addr string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	k, err := n.resolve(network, addr, true)
	if err != nil {
		panic(err)
	}
	if ch := n.dropped[k]; ch != nil {
		close(ch)
		delete(n.dropped, k)
	}
}

func (n *Network) dial(ctx context.Context, network, addr string, src netip.AddrPort) (net.Conn, error) {
	client, l, err := n.connect(ctx, network, addr, src)
	if err == nil && n.Dialed != nil {
		err = n.Dialed(client)
	}
	if err == nil {
		select { // a dead context does not stop what need not wait
		case <-l.closed:
			err = syscall.ECONNREFUSED
		case l.queue <- client.peer:
		default:
			select {
			case l.queue <- client.peer:
			case <-l.closed:
				err = syscall.ECONNREFUSED
			case <-ctx.Done():
				err = ctx.Err()
			}
		}
	}
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Addr: n.place(network, addr), Err: err}
	}
	l.sweep()
	return client, nil
}

// place returns the address that addr stands for, or nil.
func (n *Network) place(network, addr string) net.Addr {
	n.mu.Lock()
	defer n.mu.Unlock()
	k, err := n.resolve(network, addr, false)
	if err != nil {
		return nil
	}
	return k.netAddr()
}

// connect waits while addr is dropped, then makes the two ends.
func (n *Network) connect(ctx context.Context, network, addr string, src netip.AddrPort) (*Conn, *Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	k, err := n.resolve(network, addr, false)
	if err != nil {
		return nil, nil, err
	}
	for n.dropped[k] != nil {
		restored := n.dropped[k]
		n.mu.Unlock()
		select {
		case <-restored:
		case <-ctx.Done():
		}
		n.mu.Lock()
		if ctx.Err() != nil {
			break
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	l := n.listeners[k]
	if l == nil && k.path == "" { // one that listens to all addresses?
		for _, all := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
			if l == nil {
				l = n.listeners[key{addr: netip.AddrPortFrom(all, k.addr.Port())}]
			}
		}
	}
	if l == nil {
		return nil, nil, syscall.ECONNREFUSED
	}
	if k.path != "" {
		return newPair(&net.UnixAddr{Name: "@", Net: "unix"}, &net.UnixAddr{Name: k.path, Net: "unix"}), l, nil
	}
	if src.Port() == 0 {
		src = netip.AddrPortFrom(src.Addr(), n.ephemeral())
	}
	return newPair(net.TCPAddrFromAddrPort(src), net.TCPAddrFromAddrPort(k.addr)), l, nil
}

// resolve finds what addr means. With add a name is made if it is new, and a
// port is chosen if it is 0.
func (n *Network) resolve(network, addr string, add bool) (key, error) {
	switch network {
	case "unix":
		return key{path: addr}, nil
	case "tcp", "tcp4", "tcp6":
	default:
		return key{}, net.UnknownNetworkError(network)
	}
	host, service, err := net.SplitHostPort(addr)
	if err != nil {
		return key{}, err
	}
	port, err := strconv.ParseUint(service, 10, 16)
	if err != nil {
		return key{}, &net.AddrError{Err: "invalid port", Addr: addr}
	}
	ip, err := n.lookup(host, add)
	if err != nil {
		return key{}, err
	}
	if port == 0 && add {
		port = uint64(n.ephemeral())
	}
	return key{addr: netip.AddrPortFrom(ip, uint16(port))}, nil
}

func (n *Network) lookup(host string, add bool) (netip.Addr, error) {
	if host == "" {
		return netip.IPv4Unspecified(), nil
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap(), nil
	}
	ip, ok := n.names[host]
	if !ok && !add {
		return ip, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	if !ok {
		i := len(n.names)
		ip = netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}) // RFC 2544: for tests
		n.names[host] = ip
	}
	return ip, nil
}

func (n *Network) ephemeral() uint16 {
	if n.port++; n.port == 0 {
		n.port = 49152
	}
	return n.port
}

// A Listener is a place of a Network where connections arrive.
type Listener struct {
	n      *Network
	key    key
	queue  chan *Conn
	once   sync.Once
	closed chan struct{}

	mu       sync.Mutex
	failures []error
}

// Accept waits for a connection; it is a *Conn. After Close the error wraps
// net.ErrClosed.
func (l *Listener) Accept() (net.Conn, error) {
	if err := l.failure(); err != nil {
		return nil, l.opError(err)
	}
	select {
	case <-l.closed:
		return nil, l.opError(net.ErrClosed)
	default:
	}
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.closed:
		return nil, l.opError(net.ErrClosed)
	}
}

// FailAccept makes the next n calls of Accept fail with err, for example
// syscall.EMFILE. A call that waits already is not affected.
func (l *Listener) FailAccept(n int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for range n {
		l.failures = append(l.failures, err)
	}
}

func (l *Listener) failure() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.failures) == 0 {
		return nil
	}
	err := l.failures[0]
	l.failures = l.failures[1:]
	return err
}

func (l *Listener) opError(err error) error {
	return &net.OpError{Op: "accept", Net: l.Addr().Network(), Addr: l.Addr(), Err: err}
}

// Close frees the address and resets connections that were not accepted.
func (l *Listener) Close() error {
	first := false
	l.once.Do(func() {
		l.n.mu.Lock()
		delete(l.n.listeners, l.key)
		l.n.mu.Unlock()
		close(l.closed)
		first = true
	})
	if !first {
		return l.opError(net.ErrClosed)
	}
	l.sweep()
	return nil
}

// sweep resets what is queued if the listener is closed.
func (l *Listener) sweep() {
	select {
	case <-l.closed:
	default:
		return
	}
	for {
		select {
		case c := <-l.queue:
			c.Reset()
		default:
			return
		}
	}
}

// Addr returns where the listener listens, a *net.TCPAddr or *net.UnixAddr.
func (l *Listener) Addr() net.Addr { return l.key.netAddr() }

func (k key) netAddr() net.Addr {
	if k.path != "" {
		return &net.UnixAddr{Name: k.path, Net: "unix"}
	}
	return net.TCPAddrFromAddrPort(k.addr)
}

// String names the listener for messages of tests.
func (l *Listener) String() string { return fmt.Sprintf("l4test %s", l.Addr()) }

// Pipe returns two ends of a connection that no listener was needed for.
func Pipe() (client, server *Conn) {
	c := newPair(
		net.TCPAddrFromAddrPort(netip.AddrPortFrom(clientIP, 49152)),
		&net.TCPAddr{IP: net.IPv4(192, 0, 2, 2).To4(), Port: 80})
	return c, c.peer
}

// newPair returns the client's end.
func newPair(client, server net.Addr) *Conn {
	up, down := newStream(), newStream()
	c := &Conn{r: down, w: up, local: client, remote: server}
	c.peer = &Conn{r: up, w: down, local: server, remote: client, peer: c}
	return c
}

var _ net.Conn = (*Conn)(nil)

// now is the clock of faults and deadlines, the bubble's in a bubble.
func now() time.Time { return time.Now() }
