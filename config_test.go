// SPDX-License-Identifier: Apache-2.0

package penstock_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock"
)

// gate is a literal of a host.
type gate struct {
	Delay time.Duration
	Name  string
	Next  any
	More  []any
}

func (g *gate) Check() error {
	var m penstock.Mistakes
	m.If(g.Delay < 0, "gate.Delay", g.Delay, "must not be negative")
	m.If(g.Name == "", "gate.Name", g.Name, "must not be empty")
	m.Need("gate.Next", g.Next, "must be what goes on")
	m.In("gate.Next", g.Next)
	for i, v := range g.More {
		m.In(fmt.Sprintf("gate.More[%d]", i), v)
	}
	return m.Err()
}

type plain struct{ err error }

func (p plain) Check() error { return p.err }

func TestMistakesTellThePath(t *testing.T) {
	require.NoError(t, (&gate{Name: "g", Next: 1}).Check())
	err := (&gate{Delay: -time.Second, Name: "outer", Next: &gate{Next: (*gate)(nil)}}).Check()
	require.EqualError(t, err, `penstock: gate.Delay: -1s must not be negative
penstock: gate.Next.gate.Name: "" must not be empty
penstock: gate.Next.gate.Next: <nil> must be what goes on`)
	var first *penstock.ConfigError
	require.ErrorAs(t, err, &first)
	require.Equal(t, &penstock.ConfigError{Field: "gate.Delay", Value: -time.Second, Reason: "must not be negative"}, first)
}

func TestMistakesKeepOtherErrors(t *testing.T) {
	cause := errors.New("no such file")
	err := (&gate{Name: "g", Next: plain{}, More: []any{plain{}, plain{cause}}}).Check()
	require.ErrorIs(t, err, cause)
	require.EqualError(t, err, "penstock: gate.More[1]: no such file")

	var m penstock.Mistakes
	m.Add("", err)
	m.Add("", nil)
	require.EqualError(t, m.Err(), err.Error())
}

func TestMistakesNameAFieldOnce(t *testing.T) {
	for _, test := range []struct{ path, field, want string }{
		{"Proxy.Pool", "Pool.Panic", "Proxy.Pool.Panic"},
		{"Checker.Pools[1]", "Pool.Panic", "Checker.Pools[1].Panic"},
		{"Server.Handler", "Router.Routes[2].Match", "Server.Handler.Router.Routes[2].Match"},
		{"Limit.Limiter", "Limit.Next", "Limit.Limiter.Limit.Next"},
		{"All[3]", "TCP.Port", "All[3].TCP.Port"},
		{"", "Pool.Panic", "Pool.Panic"},
		{"Rewrite.Method", "Method", "Rewrite.Method"},
	} {
		var m penstock.Mistakes
		m.Add(test.path, &penstock.ConfigError{Field: test.field})
		var e *penstock.ConfigError
		require.ErrorAs(t, m.Err(), &e)
		require.Equal(t, test.want, e.Field)
	}
}

func TestNeed(t *testing.T) {
	for _, v := range []any{nil, (*gate)(nil), (func())(nil), map[int]int(nil), []int(nil), (chan int)(nil)} {
		var m penstock.Mistakes
		m.Need("X", v, "is needed")
		require.Error(t, m.Err(), "%T", v)
	}
	for _, v := range []any{0, "", new(gate), func() {}, []int{}, plain{}} {
		var m penstock.Mistakes
		m.Need("X", v, "is needed")
		require.NoError(t, m.Err(), "%T", v)
	}
}

// room is a literal of a host that may lead back to itself.
type room struct {
	name  string
	doors []*room
}

func (r *room) Check() error {
	var m penstock.Mistakes
	m.Once("", r, r.check)
	return m.Err()
}

func (r *room) check(m *penstock.Mistakes) {
	m.If(r.name == "", "room.name", r.name, "must not be empty")
	for i, d := range r.doors {
		m.Once(fmt.Sprintf("room.doors[%d]", i), d, d.check)
	}
}

func TestMistakesAreFoundOnceInACircle(t *testing.T) {
	hall, cellar := &room{name: "hall"}, &room{}
	hall.doors = []*room{cellar, hall, nil, cellar}
	cellar.doors = []*room{hall}
	require.EqualError(t, hall.Check(), `penstock: room.doors[0].room.name: "" must not be empty`)
	require.EqualError(t, cellar.Check(), `penstock: room.name: "" must not be empty`)
	var m penstock.Mistakes
	times := 0
	for range 2 {
		m.Once("list", []int{1}, func(*penstock.Mistakes) { times++ })
	}
	require.Equal(t, 2, times, "a slice has no identity")
}
