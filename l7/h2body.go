// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"io"
	"net/http"
	"sync/atomic"
	"time"
)

// An h2Body is a request body on its way into a stream. net/http reads it in a
// goroutine of its own; stop makes sure that it does not any more.
type h2Body struct {
	s       *h2Stream
	t       *attempt
	src     io.Reader // nil if there is no body
	whole   bool      // src is memory: reading it never waits
	trailer http.Header

	limit    time.Duration // of the head, from the end of the body
	deadline time.Time     // of the head in any case; zero means none

	turn       chan struct{} // held by who reads
	closed     atomic.Bool
	sent       atomic.Bool // all of it has been read
	fromClient atomic.Pointer[error]
}

// Read implements [io.Reader].
func (b *h2Body) Read(p []byte) (int, error) {
	<-b.turn
	defer func() { b.turn <- struct{}{} }()
	if b.closed.Load() {
		return 0, errStopped
	}
	if err := b.s.mayRead(b.t.x); err != nil {
		return 0, err
	}
	n, err := b.src.Read(p)
	switch {
	case err == io.EOF:
		if b.trailer != nil {
			b.fillTrailer()
		}
		if !b.sent.Swap(true) && !b.whole {
			b.s.armHead(until(time.Now(), b.limit, b.deadline))
		}
	case err != nil && !b.closed.Load():
		b.fromClient.CompareAndSwap(nil, &err)
	}
	return n, err
}

// mayRead tells a client that waits to go on: the server did not say so in
// time, or net/http would not read.
func (s *h2Stream) mayRead(x *Exchange) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !x.expect {
		return nil
	}
	x.expect = false
	return guard(x, "interim reply", func() error { return x.down.writeInterim(&Reply{Status: http.StatusContinue}) })
}

// fillTrailer gives the announced fields their values.
func (b *h2Body) fillTrailer() {
	f := b.t.x.down.trailer()
	if f == nil {
		return
	}
	for name, v := range f.All() {
		key := http.CanonicalHeaderKey(name)
		if _, ok := b.trailer[key]; ok {
			b.trailer[key] = append(b.trailer[key], v)
		}
	}
}

// Close implements [io.Closer], for net/http. It does not wait for a Read.
func (b *h2Body) Close() error {
	b.closed.Store(true)
	return nil
}

// stop ends the reading of the body and reports whether all of it was read.
func (b *h2Body) stop(t *attempt, keep bool) bool {
	b.closed.Store(true)
	select {
	case <-b.turn:
	default:
		if b.whole || keep {
			<-b.turn
			break
		}
		t.x.down.stopBody()
		<-b.turn
		t.x.down.resumeBody()
		t.stuck = true
	}
	b.turn <- struct{}{}
	return b.sent.Load()
}
