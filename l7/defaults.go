// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"context"
	"time"
)

// Limits and timeouts that hold where a Server says nothing else. Their
// sources are the limits of the other proxies.
const (
	defaultHeaderTimeout    = 10 * time.Second
	defaultIdleTimeout      = 60 * time.Second
	defaultBodyTimeout      = 30 * time.Second
	defaultSendTimeout      = 30 * time.Second
	defaultStreamTimeout    = time.Hour
	defaultHandshakeTimeout = 10 * time.Second
	defaultMaxHeader        = 32 << 10
	defaultMaxFields        = 128

	headBuffer = 16 << 10 // of most heads, and of bodies as long as they are short
	bulkBuffer = 64 << 10 // of bodies that turn out long
	maxUnread  = 64 << 10 // of a request body that is read to keep the connection
	lingerTime = time.Second
)

var past = time.Unix(1, 0)

// bg is for calls that want a context and never wait.
var bg = context.Background()

// orDefault implements "0 means def, negative means none", none being 0.
func orDefault[T int | int64 | time.Duration](v, def T) T {
	switch {
	case v == 0:
		return def
	case v < 0:
		return 0
	}
	return v
}
