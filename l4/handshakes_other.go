// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package l4

import "time"

var turns handshakes

type handshakes struct{}

func (*handshakes) await(*handshakeTurn) {}

func (*handshakes) took(time.Duration) {}
