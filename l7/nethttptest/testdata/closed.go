// SPDX-License-Identifier: Apache-2.0

package httptest

import "net/http"

// Close ends the server that stands in for s.Config too.
func (s *Server) Close() {
	s.realClose()
	if f := http.StandIns.Hooks.Closed; f != nil {
		f(s.Config)
	}
}
