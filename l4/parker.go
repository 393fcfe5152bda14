// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"runtime"
	"sync"
)

// parking is the Parkers of a Server, one for each processor, among which its connections
// are distributed. The first connection that can use one starts it: in-memory ones never
// can, and a Parker waits in the kernel, which would stop the clock of a synctest bubble.
type parking struct {
	mu      sync.Mutex
	parkers []*Parker
	next    int
	closed  bool
	run     sync.WaitGroup
}

// get returns nil where there is no Parker, or no more.
func (p *parking) get() *Parker {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	if len(p.parkers) < runtime.GOMAXPROCS(0) {
		parker, err := NewParker()
		if err == nil {
			p.parkers = append(p.parkers, parker)
			p.run.Go(func() { parker.Run() })
			return parker
		}
	}
	if len(p.parkers) == 0 {
		return nil
	}
	p.next = (p.next + 1) % len(p.parkers)
	return p.parkers[p.next]
}

// close ends the Parkers, and waits for them and for what they have started.
func (p *parking) close() {
	p.mu.Lock()
	parkers := p.parkers
	p.parkers, p.closed = nil, true
	p.mu.Unlock()
	for _, parker := range parkers {
		parker.Close()
	}
	p.run.Wait()
}

// parkerOf returns the Parker that can move the data of a: the one that a has already, or
// one of the Server that accepted it. It returns nil if there is none.
func parkerOf(a *Conn) *Parker {
	if a.raw == nil {
		return nil
	}
	if p := a.parker.Load(); p != nil {
		return p
	}
	if c := underlying(a); c != nil {
		return c.member.server.parker()
	}
	return nil
}
