// SPDX-License-Identifier: Apache-2.0

// Package ratelimit answers one question: may it happen now?
//
// A [Law] is a pure function over one word of state: [GCRA] (a token bucket
// that may also pace), [Window] (counts), [InFlight] (at once). [Limiter] holds
// a single such word, [Keyed] one for each address, tenant or token, in bounded
// memory and without a sweeper. Both return a [Decision]: yes or no, for how
// long, and what is left; Refund gives back what was not used.
//
//	perClient := &ratelimit.Keyed[netip.Addr]{
//		Law: ratelimit.GCRA{Rate: ratelimit.PerSecond(10), Burst: 20},
//	}
//	if d := perClient.Take(addr, 1); !d.OK {
//		// refuse: d.RetryAfter() seconds
//	}
//
// What does not fit in a word has types of its own: [Concurrency] lets
// callers queue for a fixed number of places, [Adaptive] finds that number by
// measuring, [Bandwidth] paces bytes, [Bucket] is golang.org/x/time/rate with
// a Decision.
//
// Three patterns of overload, by the names that they have elsewhere. A circuit breaker
// ([Breaker]) refuses work for what fails as a whole, and lets it on again by and by. A
// bulkhead keeps one part of a program from taking what others need: a [Concurrency] for
// each part, or [InFlight] in a [Keyed] for each tenant. Load shedding ([Shedder]) refuses
// a share of the work while this machine has too much.
//
// Several gateways share limits through a [Store]: [Shared] asks it, and
// falls back to limits of its own when it is away for several questions in a
// row. [Leased] decides at once and tells the store afterwards, within 2 % of the law. Package
// ratelimit/redisstore, a module of its own, is a Store for Redis.
//
// But for Leased.Run, which the host calls, nothing here starts a goroutine, and there is nothing to close. Time is
// package time's and monotonic, so a test of a limit by the hour runs in a
// bubble of testing/synctest in no time. Laws need not even that: they take the
// time as an argument. [MemoryStore] stands for a shared store in tests.
package ratelimit

// The wings of the package, the lowest first. A file that no other has is in core. A file
// uses what is declared in files of its own wing and of those below it; TestWings of the
// module's root checks that.
//
// core: the laws, the Decision, and the table that keeps the states of keys
//
// limits: what keeps a law for everybody or by key, and what fits no law
//
//	adaptive bandwidth breaker bucket concurrency evict keyed limiter load shedder
//
// shared: limits that several gateways keep, and what checks the literals of the package
//
//	check lease leased leased_run memorystore outage store
