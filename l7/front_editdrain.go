// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"net/http"
	"time"
)

// sentAbove is after how many bytes of a body net/http sends the head.
const sentAbove = 2 << 10

// drains bounds what is written next: before it sends the head, net/http drains the
// request body, for as long as the client takes to send it.
func (w *editingWriter) drains() {
	s := w.s.root()
	b := &s.body
	if w.out || w.duplex || !s.unread() || b.own.stands() || b.stopped.Load() {
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
	if w.out || !flushed && w.s.x.Record.BytesOut <= sentAbove {
		return
	}
	w.out = true
	s := w.s.root()
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
