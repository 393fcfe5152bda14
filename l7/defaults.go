// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"context"
	"time"

	"github.com/penstock-lb/penstock/l7/internal/h2"
)

// Default limits and timeouts of a Server. They follow the limits of other
// proxies.
const (
	defaultHeaderTimeout    = 10 * time.Second
	defaultIdleTimeout      = 60 * time.Second
	defaultBodyTimeout      = 30 * time.Second
	defaultSendTimeout      = 30 * time.Second
	defaultStreamTimeout    = time.Hour
	defaultHandshakeTimeout = 10 * time.Second
	defaultMaxHeader        = 32 << 10
	defaultMaxFields        = 128

	shortBuffer = 2 << 10                     // for what is held while a server works on its reply
	headBuffer  = 16 << 10                    // for most heads, and for short bodies
	bulkBuffer  = 4 * (16<<10 - h2.HeaderLen) // for long bodies: with HTTP/2, four frames that fill a TLS record each
	maxUnread   = 64 << 10                    // of a request body that is read and discarded to keep the connection

	// After an early reply a client that is still sending is read for so long, and so
	// much: by then it has had the time to read the reply. The bytes must be more than a
	// fast client sends before it looks.
	lingerTime  = time.Second
	lingerBytes = 32 << 20

	firstRequestTime = time.Second // from Shutdown on
)

var past = time.Unix(1, 0)

// bg is for calls that take a context and never wait.
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
