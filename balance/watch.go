// SPDX-License-Identifier: Apache-2.0

package balance

import "slices"

// Watch calls changed after each Set that changed a member of p's set, until stop is
// called; a call that has begun may then still go on. It is for observers that must
// look at new servers at once. changed must not block; it may be called from several
// goroutines at once, and may itself use the pool.
func (p *Pool) Watch(changed func()) (stop func()) {
	p.init()
	c := p.core
	w := &changed // its identity
	c.mu.Lock()
	c.watchers = append(slices.Clip(c.watchers), w)
	c.mu.Unlock()
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.watchers = slices.DeleteFunc(slices.Clone(c.watchers), func(x *func()) bool { return x == w })
	}
}

// tellWatchers calls those who watch. c.mu is not held.
func (c *core) tellWatchers() {
	c.mu.Lock()
	watchers := c.watchers // never changed in place
	c.mu.Unlock()
	for _, w := range watchers {
		tellWatcher(*w)
	}
}
