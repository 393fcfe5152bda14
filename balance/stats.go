// SPDX-License-Identifier: Apache-2.0

package balance

import "sync/atomic"

// count notes an outcome.
func (s *Server) count(o Outcome) {
	if int(o.Class) < classes {
		s.outcomes[o.Class].Add(1)
	}
	if o.Latency > 0 {
		s.histogram().add(o.Latency)
	}
}

// peakCell is the state of [PeakEWMA] for one server.
type peakCell struct{ bits atomic.Uint64 }
