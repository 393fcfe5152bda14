// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// TestChaos has clients and operators do what they like to one pool, with every policy,
// and then looks at what is left. It is meant for the race detector. PENSTOCK_CHAOS=20s
// makes it take that long.
func TestChaos(t *testing.T) {
	total := time.Second
	if d := os.Getenv("PENSTOCK_CHAOS"); d != "" {
		var err error
		total, err = time.ParseDuration(d)
		require.NoError(t, err)
	}
	policies := map[string]Policy{
		"default": nil, "RoundRobin": RoundRobin{}, "Random": Random{}, "TwoChoices5": TwoChoices{N: 5}, "LeastConn": LeastConn{},
		"LeastConn tree": PolicyFunc(func(v View) Picker { return newLeastTree(v) }), "PeakEWMA": PeakEWMA{}, "First": First{},
		"Ring": Ring{}, "Ring bounded": Ring{Bound: 1.25}, "Maglev": Maglev{Size: 251}, "Maglev bounded": Maglev{Size: 251, Bound: 1.25},
		"Rendezvous": Rendezvous{}, "Rendezvous bounded": Rendezvous{Bound: 1.25},
		"Scored": Scored{Scorers: []Scorer{{Metric: "queue"}}}, "Scored affine": Scored{Affinity: 2},
	}
	for name, policy := range policies {
		t.Run(name, func(t *testing.T) {
			seed := rand.Uint64()
			for end := time.Now().Add(total / time.Duration(len(policies))); ; seed++ {
				synctest.Test(t, func(t *testing.T) { newChaos(t, policy, seed).run() })
				if t.Failed() {
					t.Fatalf("seed %d", seed)
				}
				if time.Now().After(end) {
					return
				}
			}
		})
	}
}

const (
	chaosServers   = 6
	chaosClients   = 8
	chaosOperators = 4
	chaosLimit     = 3 // the most that any server ever has
)

// chaos is one round.
type chaos struct {
	t       *testing.T
	seed    uint64
	pools   []*Pool // one, and what was derived of it
	held    map[string]*atomic.Int64
	frozen  atomic.Bool
	thaw    chan struct{}
	clients sync.WaitGroup
}

func newChaos(t *testing.T, policy Policy, seed uint64) *chaos {
	rng := rand.New(rand.NewPCG(seed, 0))
	p := &Pool{
		Policy: policy, WhenFull: WhenFull(rng.IntN(3)), Panic: float64(rng.IntN(2)) * 0.5,
		SlowStart: SlowStart{Window: time.Duration(rng.IntN(2)) * time.Minute}, Unproven: rng.IntN(4) == 0,
		Tiers:    Tiers{Overflow: rng.IntN(2) == 0, Overprovision: float64(rng.IntN(2)) * 1.4},
		Locality: Locality{Zone: []string{"", "z0"}[rng.IntN(2)], MinServers: -1}, FullConns: rng.IntN(3) * 5,
		Queue: Queue{Timeout: time.Duration(rng.IntN(2)) * time.Second},
		Seed:  seed | 1,
	}
	p.OnOutcome = []func(*Server, Outcome){func(s *Server, o Outcome) { _ = s.State() }}
	c := &chaos{t: t, seed: seed, thaw: make(chan struct{}), held: make(map[string]*atomic.Int64)}
	for i := range chaosServers {
		c.held[fmt.Sprint("s", i)] = new(atomic.Int64)
	}
	c.pools = []*Pool{p, p.Subset(func(e Endpoint) bool { return e.Weight != 1 }), p.WithPolicy(RoundRobin{})}
	require.NoError(t, p.Set(c.endpoints(rng, true)...))
	return c
}

// endpoints returns some servers, or all of them.
func (c *chaos) endpoints(rng *rand.Rand, all bool) []Endpoint {
	var eps []Endpoint
	for i := range chaosServers {
		if all || rng.IntN(4) > 0 {
			e := Endpoint{Name: fmt.Sprint("s", i), Addr: "h:1", Weight: 1 + rng.IntN(3), MaxConns: 1 + rng.IntN(chaosLimit), Tier: i / 4, MaxQueue: rng.IntN(3), Zone: fmt.Sprint("z", i%2)}
			if rng.IntN(3) == 0 {
				e.MinConns = 1
			}
			eps = append(eps, e)
		}
	}
	return eps
}

func (c *chaos) run() {
	var operators sync.WaitGroup
	for i := range chaosClients {
		c.clients.Go(func() { c.client(rand.New(rand.NewPCG(c.seed, uint64(i)+1))) })
	}
	for i := range chaosOperators {
		operators.Go(func() { c.operator(rand.New(rand.NewPCG(c.seed, uint64(i)+100))) })
	}
	operators.Wait()
	c.frozen.Store(true)
	synctest.Wait()
	c.noWaiterBesideASlot()
	close(c.thaw)
	c.clients.Wait()
	c.nothingLeft()
}

// client takes leases until the freeze, and keeps the last one until the thaw.
func (c *chaos) client(rng *rand.Rand) {
	for !c.frozen.Load() {
		ctx, cancel := c.t.Context(), context.CancelFunc(func() {})
		if rng.IntN(4) == 0 {
			ctx, cancel = context.WithTimeout(ctx, time.Duration(rng.IntN(3000))*time.Millisecond)
		}
		req := Request{Key: uint64(rng.IntN(20)), Priority: rng.IntN(3), Tenant: uint64(rng.IntN(3)), TenantWeight: rng.IntN(3)}
		if rng.IntN(3) == 0 {
			req.Prefer = fmt.Sprint("s", rng.IntN(chaosServers))
		}
		p := c.pools[rng.IntN(len(c.pools))]
		if rng.IntN(8) == 0 {
			req.Avoid(p.Server(fmt.Sprint("s", rng.IntN(chaosServers))))
		}
		l, err := p.Acquire(ctx, req)
		cancel()
		if err != nil {
			runtime.Gosched()
			continue
		}
		held := c.held[l.Server().Name()]
		if n := held.Add(1); n > chaosLimit {
			c.t.Errorf("%s has %d leases; its limit never was above %d", l.Server(), n, chaosLimit)
		}
		for range rng.IntN(3) {
			runtime.Gosched()
		}
		if rng.IntN(4) == 0 {
			l.Works(0)
		}
		if c.frozen.Load() {
			<-c.thaw
		}
		held.Add(-1)
		l.Done(Outcome{Class: Class(rng.IntN(classes)), Latency: time.Duration(rng.IntN(1e7)), At: time.Now()})
	}
}

// operator changes things.
func (c *chaos) operator(rng *rand.Rand) {
	p := c.pools[0]
	for range 60 {
		s := p.Server(fmt.Sprint("s", rng.IntN(chaosServers)))
		if s == nil {
			s = p.core.set.Load().first()
		}
		switch op := rng.IntN(21); {
		case s == nil || op < 2:
			if err := p.Set(c.endpoints(rng, false)...); err != nil {
				c.t.Error(err)
			}
		case op < 8:
			s.Report(Reporter(rng.IntN(4)), Health(max(0, rng.IntN(5)-2)), "chaos")
		case op < 12:
			s.SetAdmin(Admin(max(0, rng.IntN(5)-2)), "chaos")
		case op < 15:
			s.SetTrial(rng.IntN(2) == 0)
		case op < 17:
			_ = s.SetWeight(rng.IntN(4))
		case op < 19:
			_ = s.SetMaxConns(1 + rng.IntN(chaosLimit))
		case op < 20:
			s.ReportLoad(Load{Name: "queue", Value: rng.Float64() * 5})
		default:
			ctx, cancel := context.WithTimeout(c.t.Context(), time.Millisecond)
			_ = s.Drain(ctx)
			cancel()
			s.SetAdmin(Ready, "")
		}
		runtime.Gosched()
	}
}

// first returns a member, or nil.
func (s *set) first() *Server {
	if len(s.members) == 0 {
		return nil
	}
	return s.members[0]
}

// noWaiterBesideASlot looks for requests that wait although they could go on. Nothing
// moves meanwhile.
func (c *chaos) noWaiterBesideASlot() {
	core := c.pools[0].core
	q := &core.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	for w := q.pool.front(); w != nil; w = w.after() {
		if s := w.view.snap.Load().pick(w.key, w.filter); s != nil && admission(s.open.Load()) >= balanced {
			c.t.Errorf("a request for any server waits beside a slot of %s", s)
		}
	}
	core.mu.Lock()
	defer core.mu.Unlock()
	for _, s := range core.slots {
		if s == nil || s.queue.front() == nil {
			continue
		}
		if admission(s.open.Load()) < persistent {
			c.t.Errorf("a request waits for %s, which is %v", s, s.State())
		}
		if limit := s.capacity(); (limit == 0 || s.inflight.Load() < limit) && (!s.onTrial() || s.trialRoom()) {
			c.t.Errorf("a request for %s waits beside a slot: %d of %d", s, s.inflight.Load(), limit)
		}
	}
}

// nothingLeft looks for what was not given back.
func (c *chaos) nothingLeft() {
	core := c.pools[0].core
	require.Zero(c.t, core.queue.waiting.Load())
	require.Zero(c.t, core.queue.pooled.Load())
	require.Zero(c.t, core.active.sum())
	st := c.pools[0].Stats()
	require.Zero(c.t, st.InFlight)
	require.Equal(c.t, st.Picks, st.Outcomes.Total())
	for _, s := range core.slots {
		if s == nil {
			continue
		}
		require.Zero(c.t, s.inflight.Load(), s)
		require.Zero(c.t, s.queued.Load(), s)
		if tr := s.trial.Load(); tr != nil {
			require.Zero(c.t, tr.holder.Load(), s)
		}
	}
	for _, p := range c.pools {
		for i := range p.snap.Load().groups {
			if b, ok := p.snap.Load().groups[i].picker.(*boundedPicker); ok {
				require.Zero(c.t, b.total.Load(), "what the bounds count")
			}
		}
	}
}
