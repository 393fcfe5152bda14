// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"io"
	"net/http"
	"sync"
)

// A lent is what the bodies of an exchange's http.Requests share. Whoever has
// one may read it when the handler is done already, as the goroutine of an
// http.Transport may that sends it: it must not see anything of the exchange
// then, which has become another request's.
type lent struct {
	mu      sync.Mutex
	reading int
	over    bool
	left    chan struct{} // closed when the last read has ended; nil as long as nobody waits for that
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

// takeBack ends the loan. Stop has reads under way return, which are waited
// for; if it is nil they are not.
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

// lend guards the body of a request that is made of the exchange.
func (x *Exchange) lend(r *http.Request) {
	if r.Body == nil || r.Body == http.NoBody {
		return
	}
	if x.lent == nil {
		x.lent = new(lent)
	}
	r.Body = &lentBody{r.Body, x.lent}
}

// lentBody is a body that is read as long as its loan lasts.
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
