// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"context"
	"sync"
)

func (s *h2Exchange) context() context.Context {
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	if s.ctx == nil {
		s.ctx = &streamContext{Context: s.f.conn.ctx}
		if s.err != nil {
			s.ctx.end(context.Canceled)
		}
	}
	return s.ctx
}

// streamContext is the context of a stream. It makes a channel only if Done is
// called.
type streamContext struct {
	context.Context // of the connection, for its values

	mu    sync.Mutex
	done  chan struct{}
	err   error
	after map[*func()]struct{}
}

// Done implements [context.Context].
func (c *streamContext) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done == nil {
		c.done = make(chan struct{})
		if c.err != nil {
			close(c.done)
		}
	}
	return c.done
}

// Err implements [context.Context].
func (c *streamContext) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// AfterFunc saves package context a goroutine for each context below this one.
func (c *streamContext) AfterFunc(f func()) (stop func() bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		go f()
		return func() bool { return false }
	}
	if c.after == nil {
		c.after = make(map[*func()]struct{})
	}
	key := &f
	c.after[key] = struct{}{}
	return func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		_, ok := c.after[key]
		delete(c.after, key)
		return ok
	}
}

func (c *streamContext) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.err = err
	if c.done != nil {
		close(c.done)
	}
	for f := range c.after {
		go (*f)()
	}
	c.after = nil
}
