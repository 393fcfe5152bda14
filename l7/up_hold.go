// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"bytes"
	"errors"
	"io"
	"os"
	"slices"
	"time"

	"github.com/penstock-lb/penstock/l4"
)

// holds reports whether the reply is to be held back.
func (t *attempt) holds(src source) bool {
	h, r := t.x.holding, src.reply()
	return h != nil && r.ContentLength <= int64(h.max) && !src.ended() && !t.x.bodiless(r.Status) &&
		!isStream(&r.Header) && !equalFold(r.Header.Get("X-Accel-Buffering"), "no")
}

// ahead is the beginning of a reply that has been held back and is to stream now.
type ahead struct {
	held
	piece []byte // that comes next; it is the source's
}

// holdReply reads the body of a reply that is held back. If all of it has come it is
// delivered, and if it breaks off the client is told: then nothing is returned.
func (t *attempt) holdReply(src source) *ahead {
	h, w, start := held{of: t.x.holding}, t.bodyWait(), time.Now()
	if limit := h.of.timeout; limit > 0 {
		if end := start.Add(limit); w.end.IsZero() || end.Before(w.end) {
			w.end = end
		}
	}
	src.expectBody(nil, w)
	for {
		p, err := src.next()
		if err == io.EOF {
			h.grown()
			t.deliverHeld(src, &h)
			return nil
		}
		if err != nil {
			h.give()
			t.failHeld(src, err, start)
			return nil
		}
		if !h.add(p, src.reply().ContentLength) {
			h.grown()
			src.expectBody(t.x, t.bodyWait())
			return &ahead{h, p}
		}
	}
}

// relayAhead is relayBody for a reply of which something has been held back.
func (t *attempt) relayAhead(src source, a *ahead) error {
	if len(src.reply().filters) > 0 {
		return t.relayFiltered(src, &aheadBody{a, a.body, sourceBody{src, a.piece}})
	}
	for _, p := range [...][]byte{a.body, a.piece} {
		if err := t.x.writeHeld(p); err != nil {
			return &clientError{err}
		}
	}
	a.give()
	return t.relayBody(src)
}

// aheadBody is the body of a reply of which something has been held back, as a Reader.
type aheadBody struct {
	a    *ahead
	body []byte // of a, not read yet
	rest sourceBody
}

func (b *aheadBody) Read(p []byte) (int, error) {
	if len(b.body) > 0 {
		n := copy(p, b.body)
		b.body = b.body[n:]
		return n, nil
	}
	b.body = nil
	b.a.give()
	return b.rest.Read(p)
}

// failHeld answers in the place of a reply that has not come to its end.
func (t *attempt) failHeld(src source, err error, start time.Time) {
	f := src.end().failure(t.x, err)
	if f.by == l4.ServerTimeout {
		if h := t.x.holding; h.timeout > 0 && time.Since(start) >= h.timeout {
			f.err = timedOut(h.field, h.timeout, err)
		} else {
			f.err = t.lateBody(time.Time{}, false, err)
		}
	}
	f.phase = l4.PhaseData
	t.letGo(&t.try, src)
	t.try.outcome.Class, t.try.outcome.Err = f.class, f.err
	t.failed(f)
}

// deliverHeld sends a reply that is here as a whole. The server is done before.
func (t *attempt) deliverHeld(src source, h *held) {
	defer h.give() // also if a filter of the host's panics
	x, r, body := t.x, *src.reply(), h.body
	r.Header, r.unread = r.Header.Clone(), true
	trailer := x.behind(r.Server, src.trailers())
	if trailer != nil {
		f := trailer.Clone()
		trailer = &f
	}
	if r.ContentLength < 0 && (trailer == nil || trailer.Len() == 0) {
		r.ContentLength = int64(len(body))
	}
	sent := src.stopSending(t, false)
	untouched := x.down.detach()
	src.judge(&t.try.outcome)
	src.release(untouched && sent && src.ended())
	t.try.src = nil
	t.try.done(t.try.outcome)

	x.now = time.Time{}
	err := x.writeHead(&r)
	switch {
	case isReplaced(err): // and answered
		return
	case err == nil && len(r.filters) > 0:
		var lost bool
		if lost, err = x.copyBody(r.filter(bytes.NewReader(body))); err != nil && !lost { // as in relayFiltered
			x.down.abort()
			x.Record.Termination, x.Record.Err = endOf(l4.ServerAborted, l4.PhaseData), err
			return
		}
	case err == nil:
		err = x.writeHeld(body)
	}
	if err == nil {
		err = x.down.finish(trailer)
	}
	if err != nil {
		t.clientLost(err)
	}
}

// writeHeld is writeBody for what may be much: what a client does not take is not counted
// as sent, but for the last piece.
func (x *Exchange) writeHeld(p []byte) error {
	for piece := range slices.Chunk(p, 64<<10) {
		if err := x.writeBody(piece); err != nil {
			return err
		}
	}
	return nil
}

// clientLost notes that a reply could not be written whose server is done.
func (t *attempt) clientLost(err error) {
	x, cause := t.x, l4.ClientAborted
	x.down.abort()
	if errors.Is(err, os.ErrDeadlineExceeded) || x.down.replyLate() {
		cause, err = l4.ClientTimeout, t.lateWrite(err)
	}
	x.Record.Termination, x.Record.Err = endOf(cause, l4.PhaseLast), err
}
