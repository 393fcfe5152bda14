// SPDX-License-Identifier: Apache-2.0

package l4

import "sync"

// lingering is how long a goroutine waits for more before it leaves an idle
// connection to the Parker: long enough that a busy connection never does.
// A goroutine that served a deep call keeps the stack it grew; the one that
// comes when the connection wakes is new.

// parking is the Parker of a Server, started by the first connection that
// can be parked: in-memory connections never can, and a Parker waits in the
// kernel, which would hold up the time of a synctest bubble.
type parking struct {
	mu     sync.Mutex
	parker *Parker
	tried  bool
	run    sync.WaitGroup
}

// get returns nil where there is no Parker, or no more.
func (p *parking) get() *Parker {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.tried {
		p.tried = true
		if parker, err := NewParker(); err == nil {
			p.parker = parker
			p.run.Go(func() { parker.Run() })
		}
	}
	return p.parker
}

// close ends the Parker, and waits for it and for what it has started.
func (p *parking) close() {
	p.mu.Lock()
	parker := p.parker
	p.parker, p.tried = nil, true
	p.mu.Unlock()
	if parker != nil {
		parker.Close()
		p.run.Wait()
	}
}
