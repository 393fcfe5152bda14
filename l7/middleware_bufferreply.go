// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"net/http"
	"sync"
	"time"
)

// BufferReply holds the reply of a server back until all of it has arrived, so that a
// server that stalls or breaks off is a 504 or a 502 and not half a reply, and a slow
// client holds no server: connection and lease are given back before the client is
// written to. Such a request is not tried again, see [Retry].
//
// What is longer than MaxBytes streams by: at once if its length is known, otherwise as
// soon as MaxBytes have arrived. So do event streams, gRPC, what was upgraded, replies
// with X-Accel-Buffering: no, and all that there is no room for in TotalBytes. Handlers
// of this process are not held back.
//
// Room in TotalBytes goes to the replies that come first. Beyond 64 KiB it is taken for all of a
// reply at once: for its length or, if that is not known, for MaxBytes. So what is held
// beyond that becomes whole, however many replies grow at the same time, and one that finds
// no room streams from there on and waits for no other. What a reply did not need is given back as
// soon as it is whole.
type BufferReply struct {
	MaxBytes   int   // of a reply; 0 means 1 MiB
	TotalBytes int64 // room for all replies at once; 0 means 64 MiB, negative means no limit

	Timeout time.Duration // for the bytes waited for, within those of the Proxy; 0 means 30s, negative means none

	Next http.Handler

	checked
	once    sync.Once
	holding holding
}

// ServeExchange implements [Handler].
func (h *BufferReply) ServeExchange(x *Exchange) {
	h.once.Do(h.init)
	x.holding = &h.holding
	Serve(h.Next, x)
}

func (h *BufferReply) init() {
	h.holding.field, h.holding.timeout = "BufferReply.Timeout", orDefault(h.Timeout, 30*time.Second)
	h.holding.all = orDefault(h.TotalBytes, 64<<20)
	if h.holding.max = h.MaxBytes; h.MaxBytes <= 0 {
		h.holding.max = 1 << 20
	}
	if h.holding.all = max(0, h.holding.all); h.holding.all > 0 {
		h.holding.max = int(min(int64(h.holding.max), h.holding.all))
	}
}

// Held returns how many bytes of TotalBytes are taken at the moment.
func (h *BufferReply) Held() int64 { return h.holding.held.Load() }

// ServeHTTP implements [http.Handler].
func (h *BufferReply) ServeHTTP(w http.ResponseWriter, r *http.Request) { ServeHTTP(h, w, r) }

// Check returns what is wrong with h and its handler.
func (h *BufferReply) Check() error { return checkAll(h) }

func (h *BufferReply) check(c *checks) {
	c.If(h.MaxBytes < 0, "BufferReply.MaxBytes", h.MaxBytes, notNegative)
	c.next("BufferReply.Next", h.Next)
}
