// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"io"
	"math"
	"net/http"
	"os"
	"time"

	"github.com/penstock-lb/penstock/l4"
)

// LimitBody bounds the request body while it streams, without buffering. A request that
// announces a body longer than MaxBytes is answered 413 before anything is forwarded. A
// body of unknown length is cut when it becomes too long, and any body when it is too
// slow: the client is answered 413 or 408 if the reply has not begun, the server gets an
// incomplete request, and Record.Err names the limit.
//
// [Server.MaxBodyBytes] bounds all requests; the smaller of the two applies.
// [BufferBody] protects servers from slow bodies by buffering them.
type LimitBody struct {
	MaxBytes int64 // of the body; 0 means 1 MiB, negative means none

	// MinRate is the least number of bytes per second, averaged over the time spent
	// waiting for the client, not for the server. A client that falls silent is cut when
	// its average has fallen below that, but is given a second at least. 0 or negative
	// means none: then only Proxy.BodyTimeout ends a silent client.
	MinRate int

	Grace time.Duration // of waiting before MinRate applies; 0 means 5s, negative means none

	Next http.Handler

	checked
}

// ServeExchange implements [Handler].
func (h *LimitBody) ServeExchange(x *Exchange) {
	limit := orDefault(h.MaxBytes, 1<<20)
	known := x.ContentLength
	if x.buffered != nil {
		known = int64(len(x.buffered))
	}
	if limit > 0 && known > limit {
		x.Record.Err = &http.MaxBytesError{Limit: limit}
		x.Error(http.StatusRequestEntityTooLarge, endOf(l4.Denied, l4.PhaseRequest))
		return
	}
	if x.buffered == nil && (known < 0 && limit > 0 || known != 0 && h.MinRate > 0) {
		x.SetBody(&limitedBody{x: x, body: x.Body(), h: h, limit: limit}, x.ContentLength)
	}
	Serve(h.Next, x)
}

// limitedBody applies the limits to a body.
type limitedBody struct {
	x      *Exchange
	body   io.Reader
	h      *LimitBody
	limit  int64 // 0 means none
	n      int64
	waited time.Duration
	err    error
}

func (b *limitedBody) Read(p []byte) (n int, err error) {
	if b.err != nil {
		return 0, b.err
	}
	if b.h.MinRate > 0 {
		n, err = b.readInTime(p)
	} else {
		n, err = b.body.Read(p)
		b.n += int64(n)
	}
	if b.limit > 0 && b.n > b.limit {
		b.err = &http.MaxBytesError{Limit: b.limit}
		return max(0, n-int(b.n-b.limit)), b.err
	}
	return n, err
}

// readInTime reads for as long as the rate allows.
func (b *limitedBody) readInTime(p []byte) (n int, err error) {
	start := time.Now()
	stop := b.x.stopBodyAfter(max(b.allowed()-b.waited, time.Second))
	n, err = b.body.Read(p)
	late := stop()
	b.n += int64(n)
	if err == io.EOF {
		return n, err
	}
	if b.waited += time.Since(start); late || err == nil && b.waited > b.allowed() {
		b.err = &TimeoutError{"LimitBody.MinRate", b.waited, os.ErrDeadlineExceeded}
		return n, b.err
	}
	return n, err
}

// allowed returns how long may have been waited for what has come.
func (b *limitedBody) allowed() time.Duration {
	byRate := float64(b.n) / float64(b.h.MinRate) * float64(time.Second)
	if byRate >= math.MaxInt64 { // a conversion of more than that has no defined value
		return math.MaxInt64
	}
	return max(time.Duration(byRate), orDefault(b.h.Grace, 5*time.Second))
}

// ServeHTTP implements [http.Handler].
func (h *LimitBody) ServeHTTP(w http.ResponseWriter, r *http.Request) { ServeHTTP(h, w, r) }
