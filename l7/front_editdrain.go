// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"net/http"
	"time"
)

// sentAbove is after how many bytes of a body net/http sends the head.
const sentAbove = 2 << 10

// drains bounds what is written next: before it sends the head, net/http drains the
// request body, for as long as the client takes to send it. A handler further inside may
// write when the exchange has ended, so only the outermost writer, which it writes to then,
// looks at that.
func (w *editingWriter) drains() {
	s := w.s
	b := &s.body
	if s.lent != nil || w.out || w.duplex || !s.unread() || b.own.stands() || b.stopped.Load() {
		return
	}
	if limit, _ := s.bodyLimit(); limit > 0 {
		_ = s.setReadDeadline(deadlineIn(time.Now(), limit))
		b.moved.Store(true)
	}
}

// sent is called behind that. Once the head is out, whatever net/http reads on is not the
// body that this bounds: it waits for the end of the connection, however long the reply is.
func (w *editingWriter) sent(flushed bool) {
	s := w.s
	if s.lent != nil || w.out || !flushed && s.x.Record.BytesOut <= sentAbove {
		return
	}
	w.out = true
	if b := &s.body; b.moved.Load() && !b.own.stands() && !b.stopped.Load() {
		_ = s.setReadDeadline(time.Time{})
	}
}

// EnableFullDuplex is for http.ResponseController.
func (w *editingWriter) EnableFullDuplex() error {
	err := http.NewResponseController(w.ResponseWriter).EnableFullDuplex()
	w.duplex = w.duplex || err == nil
	return err
}
