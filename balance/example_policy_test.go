// SPDX-License-Identifier: Apache-2.0

package balance_test

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/penstock-lb/penstock/balance"
)

// Fewest is a policy of your own: it picks the server with the fewest failures. It counts
// them in a PerServer, which outlives the pickers.
type Fewest struct {
	failures balance.PerServer[atomic.Int64]
}

// Picker implements [balance.Policy].
func (f *Fewest) Picker(v balance.View) balance.Picker {
	return &fewest{policy: f, servers: v.Servers}
}

type fewest struct {
	policy  *Fewest
	servers []*balance.Server
}

// Pick implements [balance.Picker].
func (p *fewest) Pick(_ uint64, f balance.Filter) *balance.Server {
	var best *balance.Server
	var least int64
	for _, s := range p.servers {
		if !f.Allows(s) {
			continue
		}
		if n := p.policy.failures.Of(s).Load(); best == nil || n < least {
			best, least = s, n
		}
	}
	return best
}

// Observe is called after each lease has ended, whichever picker picked its server.
func (p *fewest) Observe(s *balance.Server, o balance.Outcome) {
	if o.Class.ServerFault() {
		p.policy.failures.Of(s).Add(1)
	}
}

// Next is called instead of Policy.Picker when the set has changed. Fewest ignores weights,
// so this picker stays if the servers are the same. A picker that keeps an order would
// carry over what still holds.
func (p *fewest) Next(v balance.View) balance.Picker {
	if slices.Equal(v.Servers, p.servers) {
		return p
	}
	return nil // have the pool call Policy.Picker
}

func ExamplePolicy() {
	pool := &balance.Pool{Policy: new(Fewest)}
	work := func(class balance.Class) {
		lease, err := pool.Acquire(context.Background(), balance.Request{})
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(lease.Server(), class)
		lease.Done(balance.Outcome{Class: class})
	}
	_ = pool.Set(balance.Endpoint{Name: "a", Addr: "a:80"}, balance.Endpoint{Name: "b", Addr: "b:80"})
	work(balance.Reset)
	work(balance.Reset)
	work(balance.ConnectFailed)
	_ = pool.Set(balance.Endpoint{Name: "b", Addr: "b:80"}, balance.Endpoint{Name: "a", Addr: "a:80"}, balance.Endpoint{Name: "c", Addr: "c:80"})
	work(balance.Reset) // c is new
	work(balance.Reset) // then b, which has failed once: a did twice
	// Output:
	// a reset
	// b reset
	// a connect failed
	// c reset
	// b reset
}
