// SPDX-License-Identifier: Apache-2.0

// Package chaostest plays disorder against a gateway in virtual time, and finds out
// whether anybody got what was not theirs.
//
// A test wires its gateway as main does, with servers and a network that the kit
// provides, and says how many seeds to play:
//
//	func TestGatewayInDisorder(t *testing.T) {
//		chaostest.Run(t, chaostest.Plan{Seeds: 200}, func(w *chaostest.World) chaostest.Gateway {
//			pool := &balance.Pool{Queue: balance.Queue{Size: 10}}
//			_ = pool.Set(w.Endpoints()...)
//			w.Pool(pool)
//			up := &l7.Upstream{Dial: w.Dial}
//			w.Cleanup(up.CloseIdle)
//			return &l7.Server{Handler: &l7.Proxy{Pool: pool, Upstream: up}}
//		})
//	}
//
// Each seed is a story of some minutes that takes milliseconds, as it runs inside
// [testing/synctest]: clients of HTTP/1 and HTTP/2 that send, wait, give up; servers that
// go down, stall, reset, are slow, refuse, lose packets, break off in the middle of a
// reply; endpoints that leave the pool and come back, drain, and are in maintenance; and
// the gateway's Shutdown at the end, with requests under way.
//
// After each step, and at the end, these must hold:
//
//   - a reply is the one to that client's request, and its body is whole, or the client
//     sees that it was cut;
//   - a request body that a server takes for whole is what the client sent;
//   - a request that may not be repeated (POST) reaches servers whole at most once;
//   - every request ends, within [Plan.Patience];
//   - no server of a pool has more in flight than its MaxConns;
//   - at the end no lease is held and no goroutine is left. The latter is found by
//     synctest, which panics; the name of the subtest has the seed.
//   - With [Plan.NoLoss]: a request that may be repeated is answered by a server as long as
//     there is one that has been well all the time.
//
// A seed that fails is played again with fewer and fewer steps, and the shortest story
// that still fails is printed. PENSTOCK_SEED=17 plays that seed alone. The steps of a seed
// are always the same; the order in which goroutines run within an instant is Go's. Give
// the Seed of pools, proxies and upstreams a value, or they choose by chance.
package chaostest
