// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"io"
	"strings"
	"testing"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l7/l7test"
)

// A reply that is moved inside the kernel and breaks off is blamed on the side that has
// broken it.
func TestBlameForSplicedReplyTCP(t *testing.T) {
	part := strings.Repeat("0123456789abcdef", 8<<10)
	head := "HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n"
	for name, test := range map[string]struct {
		script l7test.Script
		cause  l4.Cause
	}{
		"server": {l7test.Script{l7test.Send(head), l7test.Wait(time.Millisecond), l7test.Send(part), l7test.Wait(50 * time.Millisecond), l7test.Reset()}, l4.ServerAborted},
		"client": {l7test.Script{l7test.Send(head + strings.Repeat(part, 8)), l7test.Wait(50 * time.Millisecond), l7test.Send(strings.Repeat(part, 100)), l7test.Stall()}, l4.ClientAborted},
	} {
		t.Run(name, func(t *testing.T) {
			s := newTCPSite(t, balance.Endpoint{}, test.script)
			c := s.dial(getA)
			if _, err := io.CopyN(io.Discard, c, 100_000); err != nil {
				t.Fatal(err)
			}
			if name == "client" {
				c.SetLinger(0)
				c.Close()
			}
			s.eventually("a record", func() bool { _, n := s.last(); return n == 1 })
			if r, _ := s.last(); r.Termination != (l4.Termination{Cause: test.cause, Phase: l4.PhaseData}) {
				t.Errorf("record = %v %v", r.Termination, r.Err)
			}
			s.eventually("no lease", func() bool { r, _ := s.last(); return s.pool.Server(r.Server).InFlight() == 0 })
		})
	}
}
