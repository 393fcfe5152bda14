// SPDX-License-Identifier: Apache-2.0

// Package balance decides which server serves the next piece of work.
//
// A host describes its servers as [Endpoint] values and gives them to a [Pool]. Whoever
// has work to do (a TCP proxy, an HTTP proxy, a dialer, a job runner) acquires a
// [Lease], uses the server it names, and says how it went:
//
//	pool := &balance.Pool{Policy: balance.RoundRobin{}}
//	if err := pool.Set(
//		balance.Endpoint{Name: "a", Addr: "10.0.0.1:80", Weight: 3},
//		balance.Endpoint{Name: "b", Addr: "10.0.0.2:80"},
//	); err != nil {
//		return err
//	}
//	lease, err := pool.Acquire(ctx, balance.Request{})
//	if err != nil {
//		return err // ErrNoServer, ErrQueueFull, ErrQueueTimeout or ctx's error
//	}
//	... talk to lease.Server().Addr() ...
//	lease.Done(balance.Outcome{Class: balance.OK, Latency: d})
//
// # How it fits together
//
//	Endpoint --Set--> Server --state--> snapshot --Policy--> Picker
//	 (a value)        (live)            (immutable)           |
//	                    ^                                     | Pick
//	                    +---- Lease.Done <---- Lease <--------+-- Acquire
//
// Set compares the endpoints with the servers at hand: what stays keeps its state, what
// is new is added, what is gone drains. Every change of the set or of a server's state
// makes a new immutable snapshot of the servers which are usable now, and the [Policy]
// builds a [Picker] over it. A pick loads the snapshot and asks the picker: it takes no
// lock, reads no clock and allocates nothing. Only a request which finds every server
// full takes a lock, to wait in a bounded queue.
//
// A server is usable while nobody says it is not: the operator ([Server.SetAdmin]) and
// any number of independent observers ([Server.Report]), each with its own [Reporter].
// [Pool.Explain] says in words why each server is or is not in use.
//
// # What callbacks may do
//
// OnEvent, OnOutcome, Watch, sources and [Attached] are called without a lock, and may
// call any method of any pool or server. What takes part in a change or a pick is called
// while locks of the pool are held: [Policy], the methods of a [Picker], and the func
// given to [Pool.Subset]. They must not block, and of this package they may call only
// what reads without a lock: the methods of [View], [Filter], [Rand] and [Cursor], those
// of a [Server] but the ones that change it, and [Pool.All], [Pool.Server] and
// [Pool.Usable].
//
// # Policies of your own
//
// A [Policy] is one method, and its [Picker] another. The example of [Policy] learns from
// outcomes (Observe), keeps state for each server ([PerServer]), and carries it from one
// set to the next (Next).
//
// # Testing
//
// Package balancetest checks any policy: shares by weight, limits, keys that stay, no
// allocation. A pool reads the time from package time only, so its tests run in a bubble
// of testing/synctest: a day of servers that come and go takes milliseconds.
//
// # Where to read next
//
// pool.go (what can be configured), policy.go (how to write an algorithm),
// roundrobin.go (the simplest of them), acquire.go (the hot path), queue.go.
package balance

// The wings of the package, the lowest first. A file that no other has is in core. A file
// uses what is declared in files of its own wing and of those below it; TestWings of the
// module's root checks that.
//
// core: the Pool and its servers, what a Policy is, and TwoChoices, which is the default
//
// policies: the other algorithms, a file each
//
//	bounded check_policies first leastconn leasttree maglev peakewma random rendezvous ring roundrobin turns
//
// sources: what brings endpoints to a pool
//
//	discovery portion
