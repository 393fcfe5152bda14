// SPDX-License-Identifier: Apache-2.0

package balance_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
)

// FuzzPool runs bytes as a program on a pool, two bytes for each step: what to do, and
// with what. After each step everything that must always hold is checked.
func FuzzPool(f *testing.F) {
	f.Add([]byte{0, 3, 0x10, 7, 0x31, 2, 0x42, 1, 0x31, 2, 0x50, 0, 0x60, 1, 0x43, 0})
	f.Add([]byte{2, 5, 0x10, 15, 0x34, 0, 0x34, 0, 0x34, 0, 0x34, 0, 0x70, 0, 0x10, 3, 0x40, 0, 0x40, 0})
	f.Add([]byte{5, 9, 0x10, 255, 0x21, 1, 0x22, 2, 0x30, 9, 0x30, 9, 0x23, 0, 0x40, 0, 0x10, 0})
	f.Add([]byte{7, 1, 0x10, 240, 0x35, 1, 0x35, 1, 0x35, 1, 0x20, 5, 0x60, 0, 0x20, 5, 0x80, 200})
	f.Fuzz(func(t *testing.T, program []byte) {
		if len(program) > 400 {
			t.Skip("long enough")
		}
		synctest.Test(t, func(t *testing.T) { newMachine(t, program).run(program) })
	})
}

// machine is a pool and what ought to be true of it.
type machine struct {
	t       *testing.T
	pool    *balance.Pool
	servers []*balance.Server // ever seen
	leases  []balance.Lease
	results chan result
	cancels map[int]context.CancelFunc // of those who wait
	waiting map[int]bool               // of them, those who would take any server
	next    int
}

type result struct {
	id    int
	lease balance.Lease
	err   error
}

func newMachine(t *testing.T, program []byte) *machine {
	policies := []balance.Policy{balance.RoundRobin{}, balance.LeastConn{}, nil, balance.First{}, balance.PeakEWMA{},
		balance.Ring{Points: 5}, balance.Maglev{Size: 101, Bound: 1.5}, balance.Rendezvous{Bound: 1.25}}
	var conf byte
	if len(program) > 1 {
		conf = program[1]
	}
	p := &balance.Pool{
		Policy:   policies[int(append(program, 0)[0])%len(policies)],
		WhenFull: balance.WhenFull(conf % 3),
		Queue:    balance.Queue{Size: 3, PerServer: 2, Timeout: -1},
		Tiers:    balance.Tiers{Overflow: conf&4 != 0, Overprovision: float64(conf>>3&1) * 1.4},
		Panic:    float64(conf>>4&1) * 0.5,
		Seed:     1,
	}
	return &machine{t: t, pool: p, results: make(chan result, 1000), cancels: make(map[int]context.CancelFunc), waiting: make(map[int]bool)}
}

func (m *machine) run(program []byte) {
	for i := 2; i+1 < len(program); i += 2 {
		m.step(program[i], program[i+1])
		synctest.Wait()
		m.collect()
		m.check()
	}
	m.end()
}

// step does one thing: the upper half of op says what, the rest and arg with what.
func (m *machine) step(op, arg byte) {
	var s *balance.Server
	if len(m.servers) > 0 {
		s = m.servers[int(op&15)%len(m.servers)]
	}
	switch op >> 4 {
	case 1:
		m.set(arg)
	case 2:
		if s != nil {
			s.Report(balance.Reporter(arg>>4&1), balance.Health(arg%3), "fuzz")
		}
	case 3:
		m.acquire(op, arg)
	case 4:
		if len(m.leases) > 0 {
			i := int(arg) % len(m.leases)
			m.leases[i].Done(balance.Outcome{Class: balance.Class(op & 15 % 11), Latency: 1})
			m.leases = slices.Delete(m.leases, i, i+1)
		}
	case 5:
		if c := m.cancels[int(arg)]; c != nil {
			c()
		}
	case 6:
		if s != nil {
			s.SetAdmin(balance.Admin(arg%3), "fuzz")
		}
	case 7:
		if s != nil {
			require.NoError(m.t, s.SetWeight(int(arg)%4))
		}
	case 8:
		if s != nil {
			require.NoError(m.t, s.SetMaxConns(int(arg)%3))
		}
	}
}

// set makes the members of the bits of mask.
func (m *machine) set(mask byte) {
	var eps []balance.Endpoint
	for i := range 8 {
		if mask>>i&1 != 0 {
			eps = append(eps, balance.Endpoint{Name: fmt.Sprint(i), Addr: "h:1", Weight: 1 + i%3, MaxConns: 1 + i%2, Tier: i / 4})
		}
	}
	require.NoError(m.t, m.pool.Set(eps...))
	for s := range m.pool.All() {
		if !slices.Contains(m.servers, s) {
			m.servers = append(m.servers, s)
		}
	}
}

func (m *machine) acquire(op, arg byte) {
	m.next++
	id := m.next
	ctx, cancel := context.WithCancel(context.Background())
	m.cancels[id] = cancel
	req := balance.Request{Key: uint64(arg), Priority: int(arg >> 6), Tenant: uint64(arg >> 4 & 3), TenantWeight: int(arg >> 3 & 1)}
	if op&3 == 0 && arg == 0 {
		m.waiting[id] = true
	}
	if op&1 != 0 {
		req.Prefer = fmt.Sprint(arg % 8)
	}
	if op&2 != 0 && len(m.servers) > 0 {
		req.Avoid(m.servers[int(arg)%len(m.servers)])
	}
	go func() {
		l, err := m.pool.Acquire(ctx, req)
		m.results <- result{id, l, err}
	}()
}

// collect takes in what came of requests.
func (m *machine) collect() {
	for len(m.results) > 0 {
		r := <-m.results
		m.cancels[r.id]()
		delete(m.cancels, r.id)
		delete(m.waiting, r.id)
		if r.err == nil {
			m.leases = append(m.leases, r.lease)
		} else if !errors.Is(r.err, balance.ErrNoServer) && !errors.Is(r.err, balance.ErrQueueFull) && !errors.Is(r.err, context.Canceled) {
			m.t.Fatalf("Acquire: unexpected error %v", r.err)
		}
	}
}

// check is what must hold when nothing moves.
func (m *machine) check() {
	held := make(map[*balance.Server]int)
	for _, l := range m.leases {
		held[l.Server()]++
	}
	usable, queued := 0, 0
	for _, s := range m.servers {
		require.Equal(m.t, held[s], s.InFlight(), "%s in flight", s)
		if m.pool.Server(s.Name()) != s {
			require.Equal(m.t, balance.StateLeft, s.State())
			require.Zero(m.t, s.Queued(), "%s left with waiters", s)
		} else if s.Usable() {
			usable++
		}
		queued += s.Queued()
	}
	st := m.pool.Stats()
	require.Equal(m.t, usable, st.Usable)
	require.Equal(m.t, len(m.cancels), st.Queued, "who has no answer waits")
	require.Equal(m.t, len(m.leases), st.InFlight)
	require.LessOrEqual(m.t, queued, st.Queued)
	for _, e := range m.pool.Explain() {
		require.NotEmpty(m.t, e.String())
		room := e.Limit == 0 || e.Server.InFlight() < e.Limit
		if room && e.Server.Queued() > 0 {
			m.t.Fatalf("%s has room, yet %d wait for it", e.Server, e.Server.Queued())
		}
		if room && e.Used && len(m.waiting) > 0 {
			m.t.Fatalf("%s has room, yet %d wait for any server", e.Server, len(m.waiting))
		}
	}
}

// end lets everybody go, and wants the pool empty.
func (m *machine) end() {
	for _, c := range m.cancels {
		c()
	}
	for len(m.cancels) > 0 || len(m.leases) > 0 {
		synctest.Wait()
		m.collect()
		for _, l := range m.leases {
			l.Done(balance.Outcome{})
		}
		m.leases = nil
	}
	st := m.pool.Stats()
	require.Zero(m.t, st.InFlight)
	require.Zero(m.t, st.Queued)
}
