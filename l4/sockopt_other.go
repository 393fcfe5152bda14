// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package l4

import (
	"errors"
	"net"
	"os"
	"time"
)

func setReusePort(uintptr) error { return errors.ErrUnsupported }

// setDeferAccept leaves it: that only saves work.
func setDeferAccept(uintptr, time.Duration) error { return nil }

// apply leaves keep-alive and delay to package net.
func (o *SocketOptions) apply(fd uintptr, network string, listen bool) error {
	if o.UserTimeout != 0 || o.FastOpen || o.Mark != 0 || o.Interface != "" {
		return errors.ErrUnsupported
	}
	return nil
}

// lighten has nothing better to offer.
func lighten(ln net.Listener) (net.Listener, error) { return ln, nil }

// FileListener is net.FileListener.
func (lc *ListenConfig) FileListener(f *os.File) (net.Listener, error) { return net.FileListener(f) }
