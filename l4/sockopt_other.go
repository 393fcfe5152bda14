// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package l4

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
)

func setReusePort(uintptr) error { return errors.ErrUnsupported }

// setDeferAccept leaves it: that only saves work.
func setDeferAccept(uintptr, time.Duration) error { return nil }

// ackNow leaves it to the kernel.
func ackNow(syscall.RawConn) {}

// apply leaves keep-alive and delay to package net.
func (o *SocketOptions) apply(fd uintptr, network string, listen bool) error {
	if o.UserTimeout != 0 || o.FastOpen || o.Mark != 0 || o.Interface != "" || o.Transparent {
		return errors.ErrUnsupported
	}
	return nil
}

// OriginalDst returns the address that a client has connected to, if a firewall has
// redirected the connection to c. Only Linux tells.
func OriginalDst(c net.Conn) (netip.AddrPort, error) {
	return netip.AddrPort{}, errors.ErrUnsupported
}

// lighten has nothing better to offer.
func lighten(ln net.Listener) (net.Listener, error) { return ln, nil }

// FileListener is net.FileListener.
func (lc *ListenConfig) FileListener(f *os.File) (net.Listener, error) { return net.FileListener(f) }
