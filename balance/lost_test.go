// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

// TestSlotTakenAtAShutDoorIsPassedOn replays a pick that takes the last slot of a server
// just before it drains and looks at its door just after. A request that prefers the
// server has come in between, and waits for the slot.
func TestSlotTakenAtAShutDoorIsPassedOn(t *testing.T) {
	for _, trial := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			p := &Pool{WhenFull: Wait, Queue: Queue{Timeout: -1}}
			require.NoError(t, p.Set(Endpoint{Name: "a", Addr: "a:1", MaxConns: 1}))
			s, ticket := p.Server("a"), uint32(0)
			if trial {
				s.SetTrial(true)
				ticket, _ = s.takeTicket()
			}
			require.True(t, s.takeBelow(1))
			s.SetAdmin(Drain, "")
			got := make(chan Lease)
			go func() {
				l, err := p.Acquire(t.Context(), Request{Prefer: "a"})
				require.NoError(t, err)
				got <- l
			}()
			synctest.Wait()
			require.Equal(t, 1, s.Queued())
			s.turnAway(ticket, false)
			synctest.Wait()
			require.Zero(t, s.Queued(), "it waits beside a free slot")
			(<-got).Done(Outcome{})
		})
	}
}

// TestPlaceOfATrialWithoutASlotIsPassedOn replays a pick that takes the place of a trial
// and finds the server at its limit, while the slot gets free and is offered.
func TestPlaceOfATrialWithoutASlotIsPassedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &Pool{Queue: Queue{Timeout: -1}}
		require.NoError(t, p.Set(Endpoint{Name: "a", Addr: "a:1", MaxConns: 1}))
		s := p.Server("a")
		old, err := p.Acquire(t.Context(), Request{})
		require.NoError(t, err)
		s.SetTrial(true)
		ticket, _ := s.takeTicket()
		got := make(chan Lease)
		go func() {
			l, err := p.Acquire(t.Context(), Request{})
			require.NoError(t, err)
			got <- l
		}()
		synctest.Wait()
		require.False(t, s.takeBelow(1))
		old.Done(Outcome{}) // is offered to the one that waits, who cannot have the place
		require.Equal(t, 1, p.Stats().Queued)
		s.freeTicket(ticket, false)
		(<-got).Done(Outcome{})
	})
}

// dying is a context that ends, and calls then when it is asked why.
type dying struct {
	context.Context
	done chan struct{}
	then func()
}

func (d *dying) Done() <-chan struct{} { return d.done }
func (d *dying) Err() error            { d.then(); return context.Canceled }

// TestSlotGrantedAsTheWaitEnds gives a slot to a request that has stopped to wait and has
// not left the queue yet.
func TestSlotGrantedAsTheWaitEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &Pool{Queue: Queue{Timeout: -1}}
		require.NoError(t, p.Set(Endpoint{Name: "a", Addr: "a:1", MaxConns: 1}))
		first, err := p.Acquire(t.Context(), Request{})
		require.NoError(t, err)
		ends := &dying{t.Context(), make(chan struct{}), func() { first.Done(Outcome{}) }}
		got := make(chan Lease)
		go func() {
			l, err := p.Acquire(ends, Request{})
			require.NoError(t, err, "there is a slot")
			got <- l
		}()
		synctest.Wait()
		close(ends.done)
		l := <-got
		require.True(t, l.Queued())
		l.Done(Outcome{})
		require.Zero(t, p.Stats().InFlight)
	})
}

// TestSameKeySameGroup has two tiers that share the picks.
func TestSameKeySameGroup(t *testing.T) {
	p := &Pool{Policy: Rendezvous{}, Tiers: Tiers{Overprovision: 1}}
	require.NoError(t, p.Set(tiered(4)...))
	p.Server("a0").Report(Check, Down, "")
	p.Server("a1").Report(Check, Down, "")
	seen := make(map[string]int)
	for key := range uint64(1000) {
		var first string
		for range 3 {
			l, err := p.Acquire(t.Context(), Request{Key: Hash(fmt.Sprint(key))})
			require.NoError(t, err)
			if first == "" {
				first = l.s.name
				seen[first[:1]]++
			}
			require.Equal(t, first, l.s.name)
			l.Done(Outcome{})
		}
	}
	require.InDelta(t, 500, seen["a"], 100)
	require.InDelta(t, 500, seen["b"], 100)
}

// TestCopiesOfARequestAvoidOnTheirOwn copies a request that avoids more servers than fit
// into the struct, with room left in the slice of the rest.
func TestCopiesOfARequestAvoidOnTheirOwn(t *testing.T) {
	servers := make([]*Server, 12)
	for i := range servers {
		servers[i] = new(Server)
	}
	var r Request
	for _, s := range servers[:10] {
		r.Avoid(s)
	}
	one, other := r, r
	one.Avoid(servers[10])
	other.Avoid(servers[11])
	require.True(t, one.tried.has(servers[10]))
	require.False(t, one.tried.has(servers[11]))
	require.True(t, other.tried.has(servers[11]))
	require.False(t, other.tried.has(servers[10]))
}

// follower is a picker that follows the load.
type follower struct {
	first
	loads map[*Server]int
}

func (f *follower) Changed(s *Server) { f.loads[s] = s.InFlight() }

// TestFreshPickerHearsOfTheLoad changes the load while a picker is built, before it is
// told of changes.
func TestFreshPickerHearsOfTheLoad(t *testing.T) {
	p := &Pool{}
	var latest *follower
	var lease Lease
	p.Policy = PolicyFunc(func(v View) Picker {
		latest = &follower{v.Servers, make(map[*Server]int)}
		for _, s := range v.Servers {
			latest.Changed(s)
		}
		if len(v.Servers) == 2 {
			lease, _ = p.Acquire(t.Context(), Request{}) // by the picker before
		}
		return latest
	})
	require.NoError(t, p.Set(Endpoint{Name: "a", Addr: "a:1"}))
	require.NoError(t, p.Set(Endpoint{Name: "a", Addr: "a:1"}, Endpoint{Name: "b", Addr: "b:1"}))
	require.Equal(t, 1, latest.loads[p.Server("a")])
	lease.Done(Outcome{})
	require.Zero(t, latest.loads[p.Server("a")])
}

// prefer asks for a server by name, in the background.
func prefer(t *testing.T, p *Pool, name string) chan Lease {
	got := make(chan Lease, 1)
	go func() {
		l, err := p.Acquire(t.Context(), Request{Prefer: name})
		require.NoError(t, err)
		got <- l
	}()
	synctest.Wait()
	return got
}

// TestWaiterGoesOnWhenPanicEnds has a request that waits for a server which is down, and
// in use only because too many are.
func TestWaiterGoesOnWhenPanicEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &Pool{WhenFull: Wait, Panic: 0.5, Queue: Queue{Timeout: -1}}
		require.NoError(t, p.Set(Endpoint{Name: "a", Addr: "a:1", MaxConns: 1}, Endpoint{Name: "b", Addr: "b:1", MaxConns: 1}))
		p.Server("a").Report(Check, Down, "")
		p.Server("b").Report(Check, Down, "")
		first := <-prefer(t, p, "a")
		got := prefer(t, p, "a")
		require.Equal(t, 1, p.Server("a").Queued())
		p.Server("b").Report(Check, Up, "")
		second := <-got
		require.Equal(t, "b", second.s.name)
		first.Done(Outcome{})
		second.Done(Outcome{})
	})
}

// TestWaiterGoesOnWhenALimitFollowsTheLoad raises the limit of one server by work on
// another, or by one more request that waits.
func TestWaiterGoesOnWhenALimitFollowsTheLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &Pool{WhenFull: Wait, FullConns: 100, Queue: Queue{Timeout: -1}}
		require.NoError(t, p.Set(Endpoint{Name: "a", Addr: "a:1", MaxConns: 10, MinConns: 1}, Endpoint{Name: "b", Addr: "b:1", MaxConns: 26}))
		leases := []Lease{<-prefer(t, p, "a")}
		second := prefer(t, p, "a")
		for range 18 {
			require.Equal(t, 1, p.Server("a").Queued(), "the limit is %d", p.Server("a").capacity())
			leases = append(leases, <-prefer(t, p, "b"))
		}
		require.Zero(t, p.Server("a").Queued(), "the limit is %d", p.Server("a").capacity())

		third := prefer(t, p, "a") // the load is 21
		for range 8 {
			require.Equal(t, 1, p.Server("a").Queued())
			leases = append(leases, <-prefer(t, p, "b"))
		}
		require.Equal(t, 1, p.Server("a").Queued())
		fourth := prefer(t, p, "b") // the load is 30
		require.Equal(t, 1, p.Server("b").Queued())
		require.Zero(t, p.Server("a").Queued())
		leases = append(leases, <-second, <-third)
		for _, l := range leases {
			l.Done(Outcome{})
		}
		(<-fourth).Done(Outcome{})
	})
}
