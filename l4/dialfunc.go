// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"context"
	"net"
	"strings"
)

// A DialFunc connects to a server, as DialContext of [net.Dialer] does.
type DialFunc func(ctx context.Context, network, addr string) (net.Conn, error)

// SplitAddr returns the network and the address to dial for the Addr of a
// server: "unix" and the path for "unix:/path", else "tcp" and addr.
func SplitAddr(addr string) (network, address string) {
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		return "unix", path
	}
	return "tcp", addr
}
