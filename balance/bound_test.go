// SPDX-License-Identifier: Apache-2.0

package balance_test

import (
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
)

// inOrder is a policy with a Bound that its Pick knows nothing of: the first server that the
// filter allows.
type inOrder struct {
	bound int
	keyed bool
}

type inOrderPicker struct {
	inOrder
	v balance.View
}

func (o inOrder) Picker(v balance.View) balance.Picker { return inOrderPicker{o, v} }

func (p inOrderPicker) Keyed() bool { return p.keyed }

func (p inOrderPicker) Bound(*balance.Server) int { return p.bound }

func (p inOrderPicker) Pick(_ uint64, f balance.Filter) *balance.Server {
	for _, s := range p.v.Servers {
		if f.Allows(s) {
			return s
		}
	}
	return nil
}

// TestBoundOfAnyPicker has the pool keep the bounds of a picker that does not: they hold as
// long as one server is within its own, and then count no more.
func TestBoundOfAnyPicker(t *testing.T) {
	for _, tt := range []struct {
		name    string
		servers int
		change  func(*balance.Pool)
		edit    func(int, *balance.Endpoint)
		req     balance.Request
	}{
		{name: "without limits", servers: 2},
		{name: "with limits", servers: 3, edit: func(_ int, e *balance.Endpoint) { e.MaxConns = 3 }},
		{name: "more servers than a pick tries", servers: 40},
		{name: "with a key", servers: 4, req: balance.Request{Key: 7}, edit: func(_ int, e *balance.Endpoint) { e.MaxConns = 3 }, change: func(p *balance.Pool) {
			p.Policy, p.WhenFull = inOrder{2, true}, balance.WaitOrGoOn
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := &balance.Pool{Policy: inOrder{bound: 2}}
			if tt.change != nil {
				tt.change(p)
			}
			var eps []balance.Endpoint
			for i := range tt.servers {
				e := balance.Endpoint{Name: fmt.Sprint("s", i), Addr: "h:1"}
				if tt.edit != nil {
					tt.edit(i, &e)
				}
				eps = append(eps, e)
			}
			require.NoError(t, p.Set(eps...))
			for i := range 2 * tt.servers {
				l, err := p.Acquire(t.Context(), tt.req)
				require.NoError(t, err)
				require.Equal(t, fmt.Sprint("s", i/2), l.Server().Name())
				require.False(t, l.Queued())
			}
			l, err := p.Acquire(t.Context(), tt.req)
			require.NoError(t, err, "all are at their bounds")
			require.Equal(t, "s0", l.Server().Name())
			require.Equal(t, 3, l.Server().InFlight())
			l.Done(balance.Outcome{})
			require.Zero(t, testing.AllocsPerRun(100, func() {
				l, err := p.Acquire(t.Context(), tt.req)
				if err != nil {
					t.Error(err)
				}
				l.Done(balance.Outcome{})
			}))
		})
	}
}

// TestBoundOfAnyPickerAfterAWait has a request wait until there is room at two servers at
// once: it gets the one that is within its bound.
func TestBoundOfAnyPickerAfterAWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &balance.Pool{Policy: inOrder{bound: 2}}
		require.NoError(t, p.Set(balance.Endpoint{Name: "a", Addr: "h:1", MaxConns: 3}, balance.Endpoint{Name: "b", Addr: "h:1", MaxConns: 3}))
		var at [2][]balance.Lease
		for range 6 {
			l, err := p.Acquire(t.Context(), balance.Request{})
			require.NoError(t, err)
			i := l.Server().Name()[0] - 'a'
			at[i] = append(at[i], l)
		}
		got := make(chan *balance.Server)
		go func() {
			l, err := p.Acquire(t.Context(), balance.Request{})
			if err != nil {
				t.Error(err)
				return
			}
			got <- l.Server()
		}()
		synctest.Wait()
		at[1][0].Done(balance.Outcome{})
		require.Equal(t, "b", (<-got).Name(), "the only one with room")
		at[1][1].Done(balance.Outcome{})
		at[1][2].Done(balance.Outcome{})
		at[0][0].Done(balance.Outcome{})
		l, err := p.Acquire(t.Context(), balance.Request{})
		require.NoError(t, err)
		require.Equal(t, "b", l.Server().Name(), "a has room, but is at its bound")
	})
}
