// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"context"
	"net"
	"net/netip"
	"strings"
)

// A DialFunc connects to an address, as net.Dialer.DialContext does. Neither a connection nor
// an error (a nil pointer is no connection) is an error, and a connection beside an error is
// closed. [DialingFor] says for which client.
type DialFunc func(ctx context.Context, network, addr string) (net.Conn, error)

// A Client is what a [DialFunc] can know of the client that it connects for.
type Client struct {
	Conn   net.Conn // nil for datagrams
	Remote netip.AddrPort
	Local  netip.AddrPort // that the client has connected to, as its socket here has it; see [OriginalDst]
}

type dialingFor struct{}

// DialingFor returns the client for which ctx, that of a [DialFunc], asks for a
// connection: in a [Proxy] and a [UDPProxy]. There is none in a [Dialer], nor in an
// l7.Upstream, whose connections serve one client after another.
func DialingFor(ctx context.Context) (c Client, ok bool) {
	c, ok = ctx.Value(dialingFor{}).(Client)
	return c, ok
}

// dialFor returns a context for a DialFunc.
func dialFor(ctx context.Context, c Client) context.Context {
	return context.WithValue(ctx, dialingFor{}, c)
}

// SplitAddr splits the address of a balance.Endpoint into what DialFuncs and
// net.Listen take: "unix:/path" is network "unix" and address "/path",
// anything else is network "tcp".
func SplitAddr(addr string) (network, address string) {
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		return "unix", path
	}
	return "tcp", addr
}
