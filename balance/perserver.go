// SPDX-License-Identifier: Apache-2.0

package balance

import "sync/atomic"

// A PerServer keeps a T for each server, such as what a policy has learned about it. It
// is for policies of your own: state in a picker ends with the picker, at the next
// change of the set, while a T lives as long as the server and the PerServer. See the
// example of [Policy].
//
//	var slow balance.PerServer[atomic.Int64] // a field of the policy, which is a pointer
//	slow.Of(server).Add(1)                   // in Observe
//	slow.Of(server).Load()                   // in Pick
//
// Each PerServer has its own T for a server, so that two policies over the same servers
// (see [Pool.WithPolicy]) do not interfere. A server keeps its values: make one
// PerServer per policy, not per picker or pick. The zero value is ready to use and must
// not be copied after first use.
type PerServer[T any] struct {
	_ [1]byte // two of them have two addresses
}

// perServer is one entry of a server.
type perServer struct {
	key   any // a *PerServer
	value any // a *T
}

// Of returns the T of s, which is zero the first time. It takes no lock and allocates
// only that first time, so it may be called in Pick, and by many goroutines at once;
// access to the T must be synchronized, usually by atomics.
func (p *PerServer[T]) Of(s *Server) *T {
	for {
		old := s.values.Load()
		if old != nil {
			for i := range *old {
				if e := &(*old)[i]; e.key == p {
					return e.value.(*T)
				}
			}
		}
		if t := p.add(s, old); t != nil {
			return t
		}
	}
}

// add gives s a T, unless its values are not old any more.
func (p *PerServer[T]) add(s *Server, old *[]perServer) *T {
	var list []perServer
	if old != nil {
		list = (*old)[:len(*old):len(*old)]
	}
	t := new(T)
	list = append(list, perServer{p, t})
	if !s.values.CompareAndSwap(old, &list) {
		return nil
	}
	return t
}

// values is the list of a server; it is replaced, never changed.
type values = atomic.Pointer[[]perServer]
