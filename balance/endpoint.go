// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"maps"
	"reflect"
)

// MaxWeight is the largest weight an [Endpoint] may have.
const MaxWeight = 65535

// An Endpoint is the host's description of one server: a plain value.
type Endpoint struct {
	Name     string // identity within the pool; empty means Addr
	Addr     string // "host:port" or "unix:/path"; names are resolved at dial. May be empty if Name and Value are set
	Weight   int    // share of the work, relative to the others; 0 means 1, negative means none: persistent traffic only
	MaxConns int    // leases at once; 0 or negative means no limit
	MinConns int    // floor of a dynamic limit, see [Pool.FullConns]; 0 means that MaxConns is static
	MaxQueue int    // waiters for this one server; 0 means [Queue.PerServer], negative means none
	Tier     int    // 0 serves first, 1 is its backup, and so on
	Zone     string // where it is, for [Locality]
	Labels   map[string]string
	Value    any // data of the host; a change of it is a change of the endpoint
}

// name returns the identity of e.
func (e *Endpoint) name() string {
	if e.Name != "" {
		return e.Name
	}
	return e.Addr
}

// weight returns the weight of e with its default applied; 0 means none.
func (e *Endpoint) weight() int {
	switch {
	case e.Weight == 0:
		return 1
	case e.Weight < 0:
		return 0
	}
	return e.Weight
}

// equal reports whether e and o are equal.
func (e *Endpoint) equal(o *Endpoint) bool {
	return e.Name == o.Name && e.Addr == o.Addr && e.Weight == o.Weight &&
		e.MaxConns == o.MaxConns && e.MinConns == o.MinConns && e.MaxQueue == o.MaxQueue &&
		e.Tier == o.Tier && e.Zone == o.Zone && maps.Equal(e.Labels, o.Labels) && sameValue(e.Value, o.Value)
}

// sameValue compares without the panic of == for values that are not comparable, such
// as a func: those count as changed.
func sameValue(a, b any) bool {
	if a == nil || b == nil {
		return a == b
	}
	return reflect.TypeOf(a).Comparable() && reflect.ValueOf(a).Comparable() && reflect.ValueOf(b).Comparable() && a == b
}
