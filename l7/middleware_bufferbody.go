// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"bytes"
	"errors"
	"io"
	"math"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/penstock-lb/penstock/l4"
)

// BufferBody reads the request body before it calls Next, so that a slow client
// does not occupy a server, and inner handlers can look at the body or send it
// again. A body that does not come in time is answered 408. One that is longer
// than MaxBytes or [Server.MaxBodyBytes] is answered 413. Record.Err names the limit.
// A completely buffered body can be sent again to another server, whatever
// [Retry.BodyBytes] is. Memory is used only for bytes that have come.
type BufferBody struct {
	// MaxBytes is the longest body; 0 means 1 MiB. With AtLeast it bounds only the buffered part.
	MaxBytes int

	// AtLeast calls Next when that many bytes have come, and streams the rest; 0
	// waits for the whole body.
	AtLeast int

	Timeout time.Duration // of the wait for these bytes; 0 means 10s, negative means none

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
		h.refuse(x, &http.MaxBytesError{Limit: int64(limit)})
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
		h.refuse(x, err)
		return
	case ended && len(buf) <= limit:
		x.setBuffered(buf)
	case stream:
		x.SetBody(io.MultiReader(bytes.NewReader(buf), body), x.ContentLength)
	default:
		h.refuse(x, &http.MaxBytesError{Limit: int64(limit)})
		return
	}
	Serve(h.Next, x)
}

const firstBuffered = 4 << 10

// refuse answers a request whose body could not be read: too long for the
// server, badly framed, too slow for another limit, or incomplete.
func (h *BufferBody) refuse(x *Exchange, err error) {
	x.Record.Err = err
	var he *headError
	var tooLong *http.MaxBytesError
	var be *BodyError
	switch {
	case errors.As(err, &he):
		x.Error(he.status, endOf(l4.Denied, l4.PhaseRequest))
	case errors.As(err, &be):
		x.Error(be.status(), endOf(l4.Denied, l4.PhaseRequest))
	case errors.As(err, &tooLong):
		x.Error(http.StatusRequestEntityTooLarge, endOf(l4.Denied, l4.PhaseRequest))
	case errors.Is(err, os.ErrDeadlineExceeded): // of Server.BodyTimeout or LimitBody.MinRate
		x.Error(http.StatusRequestTimeout, endOf(l4.ClientTimeout, l4.PhaseRequest))
	default:
		x.Error(http.StatusBadRequest, endOf(l4.ClientAborted, l4.PhaseRequest))
	}
}

// read reads up to limit bytes. Unless the rest is streamed, it reads one more
// to see whether the body ends there.
func (h *BufferBody) read(x *Exchange, body io.Reader, limit int) (buf []byte, ended, late bool, err error) {
	timeout := h.timeout()
	if timeout > 0 {
		stop := x.stopBodyAfter(timeout)
		defer func() { late = stop() }()
	}
	want := limit
	if h.AtLeast <= 0 && limit < math.MaxInt {
		want++
	}
	// Memory is allocated for received bytes, not for the announced length.
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

// stopBodyAfter makes reads of the body fail after d. Stop cancels that and
// reports whether it has happened.
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
