// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/penstock-lb/penstock/l4"
)

// BufferBody reads the request body before it passes the exchange on, so that
// a slow client holds no server, and what is inside can look at the body or
// send it again. A body that does not come in time is answered 408, one that
// is too long 413, for [Server.MaxBodyBytes] as for MaxBytes. A body that is
// there as a whole can be tried again on another server whatever
// [Retry.BodyBytes] says, and costs no more memory than has come of it.
type BufferBody struct {
	// MaxBytes is the longest body; 0 means 1 MiB. With AtLeast it bounds only what is waited for.
	MaxBytes int

	// AtLeast passes the exchange on when that many bytes are there, and has
	// the rest stream; 0 waits for the whole body.
	AtLeast int

	Timeout time.Duration // for the bytes waited for; 0 means 10s, negative means none

	Next http.Handler

	checked
}

// ServeExchange implements [Handler].
func (h *BufferBody) ServeExchange(x *Exchange) {
	if x.ContentLength == 0 {
		Serve(h.Next, x)
		return
	}
	limit := h.MaxBytes
	if limit <= 0 {
		limit = 1 << 20
	}
	stream := h.AtLeast > 0
	if stream {
		limit = min(limit, h.AtLeast)
	} else if x.ContentLength > int64(limit) {
		x.Error(http.StatusRequestEntityTooLarge, endOf(l4.Denied, l4.PhaseRequest))
		return
	}
	body := x.Body()
	buf, ended, late, err := h.read(x, body, limit)
	switch {
	case late && !ended:
		x.Record.Err = &TimeoutError{"BufferBody.Timeout", h.timeout(), err}
		x.down.mustClose() // the rest of the body may still come
		x.Error(http.StatusRequestTimeout, endOf(l4.ClientTimeout, l4.PhaseRequest))
		return
	case err != nil:
		x.down.mustClose()
		x.Record.Err = err
		h.refuse(x, err)
		return
	case ended && len(buf) <= limit:
		x.setBuffered(buf)
	case stream:
		x.SetBody(io.MultiReader(bytes.NewReader(buf), body), x.ContentLength)
	default:
		x.Error(http.StatusRequestEntityTooLarge, endOf(l4.Denied, l4.PhaseRequest))
		return
	}
	Serve(h.Next, x)
}

const firstBuffered = 4 << 10

// refuse answers a body that could not be read: one that is too long for the
// server, not framed as HTTP is, or broken off.
func (h *BufferBody) refuse(x *Exchange, err error) {
	var he *headError
	var tooLong *http.MaxBytesError
	switch {
	case errors.As(err, &he):
		x.Error(he.status, endOf(l4.Denied, l4.PhaseRequest))
	case errors.As(err, &tooLong):
		x.Error(http.StatusRequestEntityTooLarge, endOf(l4.Denied, l4.PhaseRequest))
	default:
		x.Error(http.StatusBadRequest, endOf(l4.ClientAborted, l4.PhaseRequest))
	}
}

// read reads up to limit bytes, and one more to see whether the body ends
// there unless the rest is to stream.
func (h *BufferBody) read(x *Exchange, body io.Reader, limit int) (buf []byte, ended, late bool, err error) {
	timeout := h.timeout()
	if timeout > 0 {
		stop := x.stopBodyAfter(timeout)
		defer func() { late = stop() }()
	}
	want := limit + 1
	if h.AtLeast > 0 {
		want = limit
	}
	// What a client announces costs nothing before it comes.
	buf = make([]byte, 0, min(int64(want), firstBuffered, max(512, x.ContentLength+1)))
	for len(buf) < want {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := body.Read(buf[len(buf):min(cap(buf), want)])
		buf = buf[:len(buf)+n]
		if errors.Is(err, io.EOF) {
			return buf, true, false, nil
		}
		if err != nil {
			return buf, false, false, err
		}
	}
	return buf, false, false, nil
}

func (h *BufferBody) timeout() time.Duration { return orDefault(h.Timeout, 10*time.Second) }

// stopBodyAfter has reads of the body fail after d. Stop ends that and
// reports whether it came to it.
func (x *Exchange) stopBodyAfter(d time.Duration) (stop func() bool) {
	var mu sync.Mutex
	stopped, fired := false, false
	log := x.down.logger()
	t := time.AfterFunc(d, func() {
		_ = quietly(log, func() {
			mu.Lock()
			defer mu.Unlock()
			if !stopped {
				fired = true
				x.down.stopBody()
			}
		})
	})
	return func() bool {
		t.Stop()
		mu.Lock()
		defer mu.Unlock()
		stopped = true
		if fired {
			x.down.resumeBody()
		}
		return fired
	}
}

// ServeHTTP implements [http.Handler].
func (h *BufferBody) ServeHTTP(w http.ResponseWriter, r *http.Request) { ServeHTTP(h, w, r) }
