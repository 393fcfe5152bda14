// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package l4

import (
	"context"
	"time"
)

// Elsewhere no relay is wired: goroutines move the data.

type (
	flow    struct{}
	dialing struct{}
)

func (r *relay) wire(*Parker) bool { return false }

func (r *relay) cutWire() bool { return false }

func (r *relay) unwire() {}

func (r *relay) tickAt(time.Duration) {}

func (r *relay) tickNoMore() {}

func (r *relay) dial(context.Context, *Parker, *Conn, string, string, time.Duration) (*Conn, bool, error) {
	return nil, false, nil
}

func probePeer(*Conn) {}
