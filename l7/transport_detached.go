// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"io"
	"log/slog"
	"net/http"
	"reflect"
	"sync"
)

// A detachedBody is a request body that a server has received, and that a Transport passes
// on. Close of such a body waits for a Read in progress, which lasts until the client sends
// more, or reads the rest by itself, or does nothing, as in an httputil.ReverseProxy. Close
// of a detachedBody leaves that behind, as an [http.Transport] does.
type detachedBody struct {
	src    io.ReadCloser
	buf    []byte          // of the read in progress
	came   chan readResult // from it; has room for one
	closed chan struct{}

	mu      sync.Mutex
	reading bool
	ended   bool // by an error, or the end of the body
	over    bool
}

type readResult struct {
	n      int
	err    error
	thrown any // a panic
}

// detached returns body, detached if it is a server's.
func detached(body io.ReadCloser) io.ReadCloser {
	switch body.(type) {
	case nil:
		return nil
	case *carriedBody, *lentBody:
	default:
		t := reflect.TypeOf(body)
		if t.Kind() != reflect.Pointer {
			return body
		}
		switch t.Elem().PkgPath() + "." + t.Elem().Name() {
		case "net/http.body", "net/http.maxBytesReader", "net/http/httputil.noopCloseReader":
		default:
			return body
		}
	}
	return &detachedBody{src: body, came: make(chan readResult, 1), closed: make(chan struct{})}
}

// Read implements [io.Reader].
func (b *detachedBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	if b.over {
		b.mu.Unlock()
		return 0, http.ErrBodyReadAfterClose
	}
	b.reading = true
	b.mu.Unlock()
	if len(b.buf) < len(p) {
		b.buf = make([]byte, len(p))
	}
	go b.read(b.buf[:len(p)])
	select {
	case r := <-b.came:
		if r.thrown != nil {
			panic(r.thrown)
		}
		return copy(p, b.buf[:r.n]), r.err
	case <-b.closed:
		return 0, errStopped
	}
}

func (b *detachedBody) read(p []byte) {
	var r readResult
	defer func() {
		r.thrown = recover()
		b.mu.Lock()
		b.reading = false
		b.ended = b.ended || r.err != nil
		over := b.over
		b.mu.Unlock()
		b.came <- r
		if over {
			_ = quietly(slog.Default(), func() { _ = b.src.Close() })
		}
	}()
	r.n, r.err = b.src.Read(p)
}

// Close implements [io.Closer].
func (b *detachedBody) Close() error {
	b.mu.Lock()
	if b.over {
		b.mu.Unlock()
		return nil
	}
	b.over = true
	reading, ended := b.reading, b.ended
	b.mu.Unlock()
	close(b.closed)
	switch {
	case reading:
		return nil
	case !ended && isBodyOfNetHTTP(b.src):
		go func() { _ = quietly(slog.Default(), func() { _ = b.src.Close() }) }()
		return nil
	}
	return b.src.Close()
}
