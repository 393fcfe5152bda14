// SPDX-License-Identifier: Apache-2.0

package balance

import "time"

// SetTrial, with on, lets s have one lease at a time, whatever its limit, until
// SetTrial without. It is for an observer that took s out of use and wants to see how
// one piece of work goes before it gives s all of its share again; such an observer
// calls it before it reports s Up.
func (s *Server) SetTrial(on bool) {
	s.core.change(s, func(time.Time) { s.trial = on })
}
