// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package l4

import (
	"context"
	"errors"
	"net"
)

// take finds nothing: sockets are passed on Linux only.
func (r *Restart) take() { r.taken = true }

// HandOver returns [errors.ErrUnsupported]: sockets are passed on Linux only.
func (r *Restart) HandOver(ctx context.Context) error { return errors.ErrUnsupported }

func keepPath(net.Listener) {}
