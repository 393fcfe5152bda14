// SPDX-License-Identifier: Apache-2.0

package balance

// A Policy is an algorithm. It runs once for each new set of usable servers, off the
// hot path, and returns the Picker that serves until the next one. It runs under the
// lock of the pool: the package comment says what it and its Picker may call.
//
// [Pool.Explain] says which servers are used and why, and not which of them the Picker
// prefers. To explain that as well, keep what Pick compares in a func of the server, and
// call it for each of [Pool.All].
//
// The policies of this package are plain values: RoundRobin{}, LeastConn{},
// TwoChoices{}, and so on. They may be shared by pools.
//
// A policy that learns keeps what it has learned of each server in a [PerServer], which
// outlives the pickers. Its [Picker] has two more methods: Observe is told how each lease
// ended, and Next returns the picker for another set. The example of this type is such a
// policy.
type Policy interface {
	Picker(View) Picker
}

// PolicyFunc makes a func a Policy.
type PolicyFunc func(View) Picker

// Picker calls f(v).
func (f PolicyFunc) Picker(v View) Picker { return f(v) }

// A View is what a Policy sees: the servers that are usable now, of one tier. It is
// never empty. Its slices must not be changed.
type View struct {
	Servers []*Server // in the order of [Pool.Set]
	Weights []int     // greater than 0, slow start applied, in parts of Unit
	Unit    int       // a weight of 1; it is more than 1 while servers are in slow start
	Warming []bool    // those in slow start; nil means none
	Cursor  *Cursor   // belongs to the pool: it is kept when the servers change
	Rand    Rand      // follows [Pool.Seed]
}

// Uniform reports whether all weights are the same.
func (v *View) Uniform() bool {
	for _, w := range v.Weights {
		if w != v.Weights[0] {
			return false
		}
	}
	return true
}

// A Picker picks from the servers of one View. It is called by many goroutines at once
// and must neither block nor allocate.
//
// It may have any of these methods as well, which the pool then calls:
//
//	Changed(*Server)          // after each change of a server's InFlight or Queued, any server of the pool
//	Observe(*Server, Outcome) // after each Lease.Done, any server of the pool
//	Bound(*Server) int        // limit of the server's leases now, including one more; 0 if it is not in the View
//	Keyed() bool              // whether the pick follows from the key; see [Pool.WhenFull]
//	Next(View) Picker         // the picker for another set, instead of Policy.Picker; nil means call that
//
// The pool keeps the bounds: if Pick returns a server at its own, it is asked again with a
// filter that allows no such server, and only if it then returns nil do bounds not count, see
// [Filter.Loose]. So Pick need not look at them, but it is called once if it does. It must
// hold no lock that Bound takes when it calls [Filter.Allows].
//
// A picker that asks others passes these calls on to them: a [LeastConn] of more than 256
// servers needs Changed.
type Picker interface {
	// Pick returns the best server of the View that f allows, or nil if it allows none.
	// A key of 0 is no key. A server of another pool makes Acquire fail.
	Pick(key uint64, f Filter) *Server
}

type (
	changer  interface{ Changed(*Server) }
	observer interface{ Observe(*Server, Outcome) }
	bounder  interface{ Bound(*Server) int }
	keyed    interface{ Keyed() bool }
	nexter   interface{ Next(View) Picker }
)

// A Filter says which servers a pick may return. The zero value allows all of them. It
// is passed by value and compares pointers, so that a pick with a filter allocates
// nothing.
type Filter struct {
	a, b, c *Server   // tried already
	more    []*Server // further ones
	bounded *group    // whose bounds count; nil on the first try, as most pickers see to that. With it a Filter has 64 bytes, which are copied faster than 56
	full    fullRule
	loose   bool
}

// fullRule says which servers count as having no room.
type fullRule uint8

const (
	anyRoom   fullRule = iota // do not ask
	needSlot                  // a slot must be free
	needPlace                 // a slot or a place in the server's own queue must be free
)

// Allows reports whether s may be picked. It calls Bound of the [Picker], if that has one and
// has returned a server at its bound before.
func (f Filter) Allows(s *Server) bool {
	if s == f.a || s == f.b || s == f.c || f.more != nil && f.tried(s) {
		return false
	}
	if f.bounded != nil && s.inflight.Load() >= f.bounded.boundOf(s, f) {
		return false
	}
	return f.full == anyRoom || s.roomy(f.full)
}

// Loose reports whether bounds do not count (see Bound in [Picker]), because no server
// within its bound could be had.
func (f Filter) Loose() bool { return f.loose }

// tried looks s up among the servers that did not fit in the struct.
func (f Filter) tried(s *Server) bool {
	for _, t := range f.more {
		if t == s {
			return true
		}
	}
	return false
}

// avoid adds s to the servers that f does not allow.
func (f *Filter) avoid(s *Server) {
	switch {
	case s == nil || s == f.a || s == f.b || s == f.c || f.tried(s):
	case f.a == nil:
		f.a = s
	case f.b == nil:
		f.b = s
	case f.c == nil:
		f.c = s
	default:
		// The slice may be shared with a copy of f: never append in place.
		f.more = append(f.more[:len(f.more):len(f.more)], s)
	}
}

// has reports whether s was tried.
func (f Filter) has(s *Server) bool {
	return s == f.a || s == f.b || s == f.c || f.tried(s)
}
