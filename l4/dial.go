// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"context"
	"net"
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
