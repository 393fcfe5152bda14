// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/http"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l7"
)

// policies are what may choose a server. "scored" looks at everything: requests on their
// way, queue and cache as the servers report them, and which has the beginning of the prompt
// in its cache. "ring" looks at the prompt alone, and bounds the load of a server.
var policies = map[string]balance.Policy{
	"scored": balance.Scored{
		Scorers: []balance.Scorer{
			{Metric: waiting},                // one that waits there counts as one request
			{Metric: cacheUsage, Weight: 10}, // a full cache counts as ten
		},
		Affinity: 8, // a prefix in the cache is worth a detour of eight
		MaxAge:   5 * time.Second,
	},
	"ring":      balance.Ring{Bound: 1.25},
	"leastconn": balance.LeastConn{},
}

// newPool returns a pool of the servers at those addresses.
func newPool(policy string, addrs ...string) (*balance.Pool, error) {
	p, ok := policies[policy]
	if !ok {
		return nil, fmt.Errorf("no policy %q: there are scored, ring and leastconn", policy)
	}
	pool := &balance.Pool{Name: "models", Policy: p, Queue: balance.Queue{Size: 1000, Timeout: time.Minute}}
	var eps []balance.Endpoint
	for _, a := range addrs {
		eps = append(eps, balance.Endpoint{Addr: a, MaxConns: 128})
	}
	return pool, pool.Set(eps...)
}

// gateway serves the API of OpenAI from the servers of a pool.
func gateway(pool *balance.Pool, upstream *l7.Upstream) http.Handler {
	proxy := &l7.Proxy{
		Pool: pool, Upstream: upstream,
		// A server that queues sends no head until the first token is there. Tokens
		// then stream as they come.
		HeaderTimeout: 5 * time.Minute,
		StreamTimeout: time.Minute,
		// To ask another server is safe until an answer has begun, and never later: what
		// was generated is lost, but no client has seen any of it.
		Retry: l7.Retry{
			Tries: 3, Statuses: []int{http.StatusServiceUnavailable, http.StatusTooManyRequests},
			Repeatable: func(*l7.Exchange) bool { return true }, BodyBytes: 1 << 20,
		},
	}
	const prefix = 8 << 10
	return l7.NewRouter(
		l7.Route{Name: "models", Match: l7.PathPrefix("/v1"), Handler: &l7.LimitBody{MaxBytes: 8 << 20,
			Next: &l7.BufferBody{MaxBytes: prefix, AtLeast: prefix, // the rest streams
				Next: &ByPrompt{Bytes: prefix, Next: proxy},
			},
		}},
	)
}
