// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"errors"
	"math"
	"net/netip"

	"github.com/penstock-lb/penstock/l7/internal/h2"
)

const defaultBusyStreams = 10_000

// maxStreams returns MaxStreams, which has 31 bits on the wire.
func (s *Server) maxStreams() int {
	return min(orDefault(s.MaxStreams, defaultMaxStreams), math.MaxInt32)
}

// grant returns how many streams a connection may have while all connections
// together have so many.
func (s *Server) grant(all int64) int {
	most, busy := int64(s.maxStreams()), int64(orDefault(s.BusyStreams, defaultBusyStreams))
	if busy == 0 || all <= busy {
		return int(most)
	}
	return int(max(most*busy/all, (most+9)/10))
}

// regrant tells the client how many streams it may have, if the number has changed
// by half or is back at MaxStreams, and the client has acknowledged the last
// change. F.mu is held.
func (f *h2Front) regrant() {
	n := f.srv.grant(f.srv.serving.Load())
	most := f.srv.maxStreams()
	if n == f.granted || n > f.granted/2 && n < 2*f.granted && n < most || !f.h2.Acked() {
		return
	}
	f.granted = n
	f.h2.SetMaxStreams(n)
}

// abused calls OnAbuse with the reason if a connection was closed for abuse.
func (s *Server) abused(client netip.AddrPort, err error) {
	ce, ok := errors.AsType[*h2.ConnError](err)
	if !ok || ce.Code != h2.EnhanceYourCalm || s.OnAbuse == nil {
		return
	}
	defer func() {
		if p := recover(); p != nil {
			recovered(s.logger(), p, "OnAbuse")
		}
	}()
	s.OnAbuse(client, err)
}
