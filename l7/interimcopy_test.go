// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"net/http"
	"testing"
	"testing/synctest"

	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7/l7test"
)

// interimWriter reports whether net/http would send a copy of the header of an interim
// reply, which it does if there is a Content-Length.
type interimWriter struct {
	header http.Header
	copied []bool
}

func (w *interimWriter) Header() http.Header         { return w.header }
func (w *interimWriter) Write(p []byte) (int, error) { return len(p), nil }
func (w *interimWriter) WriteHeader(status int) {
	if status < 200 {
		_, ok := w.header["Content-Length"]
		w.copied = append(w.copied, ok)
	}
}

// The HTTP/2 of net/http reads the header of an interim reply behind WriteHeader, if the
// stream is reset meanwhile, and another use of that map then ends the process.
func TestInterimHeaderIsCopied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := l4test.NewNetwork()
		origin(t, n, one, l7test.Script{l7test.Interim(103, "Link", "<a>"), l7test.Reply(200, "ok")})
		p := newProxy(n, one)
		defer p.Upstream.CloseIdle()
		r, _ := http.NewRequest("GET", "http://a.test/", nil)
		r.Proto, r.ProtoMajor, r.ProtoMinor, r.RequestURI = "HTTP/2.0", 2, 0, "/"
		w := &interimWriter{header: make(http.Header)}
		p.ServeHTTP(w, r)
		if len(w.copied) != 1 || !w.copied[0] {
			t.Errorf("copied: %v", w.copied)
		}
		if _, ok := w.header["Content-Length"]; !ok || w.header.Get("Content-Length") != "2" {
			t.Errorf("the reply has %v", w.header)
		}
	})
}
