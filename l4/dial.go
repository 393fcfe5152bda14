// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"context"
	"net"
	"net/netip"
	"strings"
)

// A DialFunc connects to an address, as net.Dialer.DialContext does.
type DialFunc func(ctx context.Context, network, addr string) (net.Conn, error)

// SplitAddr splits the address of a balance.Endpoint into what DialFuncs and
// net.Listen take: "unix:/path" is network "unix" and address "/path",
// anything else is network "tcp".
func SplitAddr(addr string) (network, address string) {
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		return "unix", path
	}
	return "tcp", addr
}

// dialTCP is DialContext of d, by a shorter way for an address without a name.
func dialTCP(ctx context.Context, d *net.Dialer, network, addr string) (net.Conn, error) {
	if network == "tcp" && d.LocalAddr == nil {
		if to, err := netip.ParseAddrPort(addr); err == nil {
			c, err := d.DialTCP(ctx, network, netip.AddrPort{}, to)
			if err != nil {
				return nil, err // not a nil *net.TCPConn
			}
			return c, nil
		}
	}
	return d.DialContext(ctx, network, addr)
}
