// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"io"
	"net/http"
	"sync"
)

// A lent is the state shared by the bodies of an exchange's http.Requests. A
// body may be read after the handler has returned, for example by the goroutine
// of an http.Transport that sends it. By then the Exchange may be in use for
// another request, so the read must not touch it.
type lent struct {
	mu      sync.Mutex
	reading int
	over    bool
	left    chan struct{} // closed when the last read has ended; nil while no goroutine waits for that
}

// begin reports whether a read may begin; then end must follow.
func (l *lent) begin() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return false
	}
	l.reading++
	return true
}

func (l *lent) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.reading--; l.reading == 0 && l.left != nil {
		close(l.left)
	}
}

// takeBack ends the loan. Stop interrupts reads in progress, and takeBack waits
// for them; if it is nil, it does not wait.
func (l *lent) takeBack(stop func()) {
	if l == nil {
		return
	}
	l.mu.Lock()
	wait := l.reading > 0 && !l.over && stop != nil
	if l.over = true; wait {
		l.left = make(chan struct{})
	}
	l.mu.Unlock()
	if wait {
		stop()
		<-l.left
	}
}

// lend guards the body of a request made from the exchange.
func (x *Exchange) lend(r *http.Request) {
	if r.Body == nil || r.Body == http.NoBody {
		return
	}
	if x.lent == nil {
		x.lent = new(lent)
	}
	r.Body = &lentBody{r.Body, x.lent}
}

// lentBody is a body that can be read until the loan ends.
type lentBody struct {
	io.ReadCloser
	*lent
}

// Read implements [io.Reader].
func (b *lentBody) Read(p []byte) (int, error) {
	if !b.begin() {
		return 0, http.ErrBodyReadAfterClose
	}
	defer b.end()
	return b.ReadCloser.Read(p)
}

// Close implements [io.Closer].
func (b *lentBody) Close() error {
	if !b.begin() {
		return nil
	}
	defer b.end()
	return b.ReadCloser.Close()
}
