// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"context"
	"sync"
	"sync/atomic"
)

// doubts wakes sources that would look again when servers fail.
type doubts struct {
	heard atomic.Bool // a source listens
	mu    sync.Mutex
	next  chan struct{}
}

// listen returns a channel that is closed at the next failure.
func (d *doubts) listen() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.next == nil {
		d.next = make(chan struct{})
	}
	d.heard.Store(true)
	return d.next
}

// raise tells of a failure.
func (d *doubts) raise() {
	if !d.heard.Load() {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.next != nil {
		close(d.next)
		d.next = nil
	}
	d.heard.Store(false)
}

// followed is the key of the core in the context of Watch.
type followed struct{}

// Doubts returns a channel that is closed when a connect to a server of the pool fails,
// or a server is reported down: a reason for a [Source] to check whether the server
// still exists. It covers failures after the call; call it again for the next. Many
// failures come together, so a source should limit how often it checks.
//
// ctx is that of Watch. For any other the channel is nil.
func Doubts(ctx context.Context) <-chan struct{} {
	c, _ := ctx.Value(followed{}).(*core)
	if c == nil {
		return nil
	}
	return c.doubts.listen()
}

// doubted reports whether an outcome says that nothing may listen at the address.
func (c Class) doubted() bool { return c >= ConnectFailed && c <= TLSFailed }
