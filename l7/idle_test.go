// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"testing"
	"time"

	"github.com/penstock-lb/penstock/l7"
)

// A connection may be idle for as long as IdleTimeout says, whatever goes on
// on others, and not for much longer.
func TestIdleAmongBusy(t *testing.T) {
	h := l7.HandlerFunc(func(x *l7.Exchange) { x.Respond(200, nil, "ok") })
	fronts(t, fixed(h), func(t *testing.T, f *front) {
		idle, busy := f.dial(t), f.dial(t)
		pass := func(d time.Duration) {
			for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(30 * time.Millisecond) {
				busy.send(getA).wantReply(200, "ok")
				if time.Now().Second()%10 == 0 {
					f.dial(t).send(getA).wantReply(200, "ok") // and stays
				}
			}
		}
		for range 2 {
			idle.send(getA).wantReply(200, "ok")
			pass(55 * time.Second)
		}
		idle.send(getA).wantReply(200, "ok")
		pass(80 * time.Second) // IdleTimeout and the quarter by which it may be late
		if got := idle.rest(); got != "" {
			t.Errorf("read %q", got)
		}
		busy.send(getA).wantReply(200, "ok")
	})
}
