// SPDX-License-Identifier: Apache-2.0

// Package balance decides which server serves the next piece of work.
//
// A host describes its servers as [Endpoint] values and gives them to a [Pool]. A
// caller with work to do (a TCP proxy, an HTTP proxy, a dialer, a job runner) acquires
// a [Lease], uses its server, and reports the outcome:
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
// Set compares the endpoints with the present servers: those that stay keep their
// state, new ones are added, and removed ones drain. Every change of the set or of a
// server's state makes a new immutable snapshot of the servers that are usable now, and
// the [Policy] builds a [Picker] for it. A pick loads the snapshot and asks the picker:
// it takes no lock, allocates nothing, and reads no clock, but for that of [Scored], which
// wants to know how old a report is. Only a request that finds every server full takes a
// lock, to wait in a bounded queue.
//
// A server is usable unless the operator ([Server.SetAdmin]) or one of any number of
// independent observers ([Server.Report]), each with its own [Reporter], says that it
// is not. [Pool.Explain] says in words why each server is or is not in use.
//
// # When there is too much work
//
// MaxConns of an [Endpoint] is a bulkhead for each server: work beyond it waits in the
// bounded [Queue], which is a fair queue for requests with a Tenant. [Budget] bounds
// retries. Package health takes out single servers (Outlier), and package ratelimit has
// a circuit breaker for a pool that fails as a whole, and load shedding.
//
// # What callbacks may do
//
// OnEvent, OnOutcome, Watch, sources and [Attached] are called without a lock, and may
// call any method of any pool or server. Code that takes part in a change or a pick is
// called while locks of the pool are held: [Policy], the methods of a [Picker], and the
// func given to [Pool.Subset]. It must not block, and it may call only the methods of
// this package that read without a lock: the methods of [View], [Filter], [Rand] and
// [Cursor], those of a [Server] that do not change it (InFlight, Limit, Endpoint and so on),
// and [Pool.All], [Pool.Server] and [Pool.Usable].
//
// # More than the number of requests
//
// What a server reports of its own load, the length of its queue or how full a cache is,
// goes to [Server.ReportLoad] from whatever code hears of it. [Scored] picks by these numbers
// and the requests together, and [Pool.Explain] shows them.
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
// core: the Pool and its servers, the Policy interface, and TwoChoices, which is the
// default
//
// policies: the other algorithms, one per file
//
//	bounded check_policies first leastconn leasttree maglev peakewma random rendezvous ring roundrobin scored turns
//
// sources: sources of endpoints
//
//	discovery discovery_* portion
