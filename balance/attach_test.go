// SPDX-License-Identifier: Apache-2.0

package balance_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
)

// What is opened to a server that a panic uses, although it is down, is as good as any
// other connection, until the panic ends.
func TestCutDuringPanic(t *testing.T) {
	p := &balance.Pool{Panic: 0.5}
	require.NoError(t, p.Set(endpoints(2)...))
	a, b := p.Server("a"), p.Server("b")
	early := new(conn)
	a.Attach(early)
	a.Report(balance.Check, balance.Down, "refused")
	require.Len(t, early.cuts, 1, "it went down")
	b.Report(balance.Check, balance.Down, "refused")

	during := new(conn)
	a.Attach(during)
	require.Empty(t, during.cuts, "the pool uses it")
	b.Report(balance.Check, balance.Up, "")
	require.Equal(t, []string{"false check says down: refused"}, during.cuts, "the pool uses it no more")
}

// A server that is down already is told of what comes after that.
func TestCutOfServersInTrouble(t *testing.T) {
	for name, step := range map[string]func(p *balance.Pool, s *balance.Server){
		"false maint: repair":          func(_ *balance.Pool, s *balance.Server) { s.SetAdmin(balance.Maint, "repair") },
		"false left the set":           func(p *balance.Pool, _ *balance.Server) { _ = p.Set() },
		"false address changed to b:1": func(p *balance.Pool, _ *balance.Server) { _ = p.Set(balance.Endpoint{Name: "a", Addr: "b:1"}) },
	} {
		p := new(balance.Pool)
		require.NoError(t, p.Set(balance.Endpoint{Name: "a", Addr: "a:1"}))
		s, c := p.Server("a"), new(conn)
		s.Attach(c)
		s.Report(balance.Check, balance.Down, "refused")
		step(p, s)
		require.Len(t, c.cuts, 2)
		require.Equal(t, name, c.cuts[1])
	}
}

// The host may do what it likes when it is told of a new set: make another one known,
// say.
func TestMergeToldFromWithinUpdate(t *testing.T) {
	var say [2]func([]balance.Endpoint, error)
	ready := make(chan struct{}, 2)
	source := func(i int) balance.Source {
		return balance.SourceFunc(func(ctx context.Context, update func([]balance.Endpoint, error)) error {
			say[i] = update
			ready <- struct{}{}
			<-ctx.Done()
			return context.Cause(ctx)
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	var got []int
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = balance.Merge{Sources: []balance.Source{source(0), source(1)}}.Watch(ctx, func(all []balance.Endpoint, _ error) {
			got = append(got, len(all))
			if len(got) == 1 {
				say[1](endpoints(3)[1:], nil)
			}
		})
	}()
	<-ready
	<-ready
	done := make(chan struct{})
	go func() { defer close(done); say[0](endpoints(1), nil) }()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("hangs")
	}
	cancel()
	<-ended
	require.Equal(t, []int{1, 3}, got)
}
