// SPDX-License-Identifier: Apache-2.0

// Package health finds out whether servers are well.
//
//	        asks                     counts                 reports
//	Probe <------- Checker.Run ---> rise and fall ---> Server.Report(Check)
//	                   ^
//	Lease.Done ---> Observed       (live traffic speeds up or counts)
//	           \
//	            --> Outlier -------------------------> Server.Report(Outlier)
//
//	Agent <------- AgentChecker.Run ------------------> Server.Report(Agent), weight, limit
//
// A [Probe] asks one server once; it is a small value that works without a pool.
// There are [TCP], [TLS], [HTTP], [GRPC], [Redis], [PostgreSQL], [MySQL], [SMTP],
// [LDAP], a [Script] of what to send and to expect for any other protocol, [Exec] for
// a command, and [Func] for whatever Go can find out. [All] and [Any] combine them, and
// [Divided] has each gateway of a fleet do a part of the probes.
//
// A [Checker] decides when to ask, counts, and reports:
//
//	checker := &health.Checker{
//		Pools: []*balance.Pool{pool},
//		Probe: health.HTTP{Path: "/healthz"},
//	}
//	err := checker.Run(ctx) // until ctx is done
//
// An [Outlier] asks nothing: it listens to how work goes, and ejects the servers
// that do worse than the others. An [AgentChecker] lets a server speak for itself.
// All of them may watch the same pool, since each is a reporter of its
// own: what one of them says, no other takes back.
//
// Probes, OnResult and the other funcs of the host are called without a lock, and
// may use the pools and the checkers.
//
// # Testing
//
// Package healthtest has small servers for each protocol, which are well, ill or silent
// as a test says. A probe takes a dialer ([Connect.Dial]), so that it reaches them
// through the network in memory of package l4/l4test; then a Checker with its intervals
// runs in a bubble of testing/synctest in no time.
//
// # Where to read next
//
// machine.go (rise and fall), checker.go (what can be configured), round.go
// (the schedule), redis.go (the shortest probe of a protocol).
package health

// The wings of the package, the lowest first. A file that no other has is in core. A file
// uses what is declared in files of its own wing and of those below it; TestWings of the
// module's root checks that.
//
// core: connections, sessions and errors, of which probes are made
//
// probes: the Probe, and one file for each protocol
//
//	agent check_http check_probe divided exec exec_* grpc http http_request http2 ldap mysql postgresql probe redis script smtp tcp
//
// observers: what runs probes, or listens to live traffic, and reports
//
//	agentchecker check checker ejection machine membership observe outlier outlier_run round target
