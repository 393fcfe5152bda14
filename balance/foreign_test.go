// SPDX-License-Identifier: Apache-2.0

package balance_test

import (
	"bytes"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
)

// stray is a policy whose picker returns one server, whatever the View; nil means the first
// of the View.
type stray struct {
	server atomic.Pointer[balance.Server]
	keyed  bool
}

func (s *stray) Picker(v balance.View) balance.Picker { return strayPicker{s, v} }

type strayPicker struct {
	s *stray
	v balance.View
}

func (p strayPicker) Keyed() bool { return p.s.keyed }

func (p strayPicker) Pick(_ uint64, f balance.Filter) *balance.Server {
	if s := p.s.server.Load(); s != nil {
		return s
	}
	if s := p.v.Servers[0]; f.Allows(s) {
		return s
	}
	return nil
}

// TestPickOfAnotherPool has a picker return a server of another pool: Acquire says so, no slot
// of that server is taken, and nothing panics where the picker is asked under a lock.
func TestPickOfAnotherPool(t *testing.T) {
	other := &balance.Pool{Name: "other"}
	require.NoError(t, other.Set(balance.Endpoint{Name: "z", Addr: "z:1", MaxConns: 1}))
	z := other.Server("z")
	const want = `balance: no usable server: the Picker of pool "web" returned server "z" of pool "other": it must return one of its View, or nil`
	for _, tt := range []struct {
		name  string
		keyed bool
		req   balance.Request
		set   []balance.Endpoint
	}{
		{"one tier", false, balance.Request{}, []balance.Endpoint{{Name: "a", Addr: "a:1"}, {Name: "b", Addr: "b:1"}}},
		{"limited", false, balance.Request{}, []balance.Endpoint{{Name: "a", Addr: "a:1", MaxConns: 1}}},
		{"two tiers", false, balance.Request{}, []balance.Endpoint{{Name: "a", Addr: "a:1"}, {Name: "b", Addr: "b:1", Tier: 1}}},
		{"by key", true, balance.Request{Key: 7}, []balance.Endpoint{{Name: "a", Addr: "a:1", MaxConns: 1}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			log := captureText(t)
			policy := &stray{keyed: tt.keyed}
			pool := &balance.Pool{Name: "web", Policy: policy, WhenFull: balance.Wait, Queue: balance.Queue{Timeout: time.Millisecond}}
			require.NoError(t, pool.Set(tt.set...))
			lease, err := pool.Acquire(t.Context(), tt.req)
			require.NoError(t, err)
			policy.server.Store(z)
			_, err = pool.Acquire(t.Context(), tt.req)
			require.ErrorIs(t, err, balance.ErrNoServer)
			require.EqualError(t, err, want)
			require.EqualValues(t, 1, pool.Stats().NoServer)
			require.Zero(t, z.InFlight())
			require.Zero(t, z.Queued())
			lease.Done(balance.Outcome{})
			if tt.keyed { // asked in a way that has no error to return
				require.Contains(t, log.String(), "returned server")
			} else {
				require.Empty(t, log.String())
			}

			policy.server.Store(nil)
			lease, err = pool.Acquire(t.Context(), tt.req)
			require.NoError(t, err)
			lease.Done(balance.Outcome{})
		})
	}

	t.Run("view of the same pool", func(t *testing.T) {
		pool := &balance.Pool{Name: "web"}
		require.NoError(t, pool.Set(balance.Endpoint{Name: "a", Addr: "a:1"}))
		policy := new(stray)
		policy.server.Store(pool.Server("a"))
		lease, err := pool.WithPolicy(policy).Acquire(t.Context(), balance.Request{})
		require.NoError(t, err)
		lease.Done(balance.Outcome{})
	})
}

// TestWaitingForAServerOfAnotherPool asks such a picker for a request that waits.
func TestWaitingForAServerOfAnotherPool(t *testing.T) {
	log := captureText(t)
	synctest.Test(t, func(t *testing.T) {
		other := &balance.Pool{Name: "other"}
		require.NoError(t, other.Set(balance.Endpoint{Name: "z", Addr: "z:1"}))
		policy := new(stray)
		pool := &balance.Pool{Name: "web", Policy: policy}
		require.NoError(t, pool.Set(balance.Endpoint{Name: "a", Addr: "a:1", MaxConns: 1}, balance.Endpoint{Name: "b", Addr: "b:1"}))
		lease, err := pool.Acquire(t.Context(), balance.Request{})
		require.NoError(t, err)
		got := make(chan error)
		go func() {
			_, err := pool.Acquire(t.Context(), balance.Request{})
			got <- err
		}()
		synctest.Wait()
		require.Equal(t, 1, pool.Stats().Queued)
		policy.server.Store(other.Server("z"))
		pool.Server("b").SetAdmin(balance.Drain, "test") // looks at what waits
		require.ErrorIs(t, <-got, balance.ErrNoServer)
		require.Contains(t, log.String(), `returned server \"z\" of pool \"other\"`)
		require.Zero(t, other.Server("z").InFlight())
		lease.Done(balance.Outcome{})
	})
}

// captureText has the default logger write to a buffer until the test ends.
func captureText(t *testing.T) *bytes.Buffer {
	var b bytes.Buffer
	was := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&b, nil)))
	t.Cleanup(func() { slog.SetDefault(was) })
	return &b
}
