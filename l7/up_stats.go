// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"iter"
	"slices"
	"sync/atomic"

	"github.com/penstock-lb/penstock/balance"
)

// UpstreamStats are figures of the connections that an [Upstream] has to one server.
type UpstreamStats struct {
	Open    int // connections
	Idle    int // connections without a request, part of Open
	Streams int // HTTP/2 streams open now

	// Totals since the server joined its pool.
	Dials      uint64 // connections attempted
	DialErrors uint64 // failed ones, including failures of TLS and of the PROXY header
	Reuses     uint64 // requests that used an existing connection
}

// upCounts are the totals of a server.
type upCounts struct{ dials, dialErrors, reuses atomic.Uint64 }

// Stats yields the figures of each server that is in its pool and to which u has
// connected, in no particular order.
func (u *Upstream) Stats() iter.Seq2[*balance.Server, UpstreamStats] {
	return func(yield func(*balance.Server, UpstreamStats) bool) {
		u.init() // the first request may come meanwhile
		u.mu.RLock()
		hosts := make([]*upHost, 0, len(u.hosts))
		for _, h := range u.hosts {
			hosts = append(hosts, h)
		}
		u.mu.RUnlock()
		for _, h := range hosts {
			if !yield(h.key.server, h.stats()) {
				return
			}
		}
	}
}

func (h *upHost) stats() UpstreamStats {
	h.mu.Lock()
	st := UpstreamStats{Open: len(h.conns) + len(h.twos), Idle: len(h.idle)}
	for _, list := range h.owned {
		st.Idle += len(list)
	}
	twos := slices.Clone(h.twos)
	h.mu.Unlock()
	for _, c := range twos {
		c.mu.Lock()
		st.Streams += c.h2.Open()
		if c.idle() {
			st.Idle++
		}
		c.mu.Unlock()
	}
	st.Dials, st.DialErrors, st.Reuses = h.counts.dials.Load(), h.counts.dialErrors.Load(), h.counts.reuses.Load()
	return st
}
