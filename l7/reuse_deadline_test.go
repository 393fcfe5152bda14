// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7/l7test"
)

// TestReusedLongerThanADeadline has a connection to a server serve for minutes:
// what bounded the write of its first request must not fail a later one.
func TestReusedLongerThanADeadline(t *testing.T) {
	site := func(n *l4test.Network) http.Handler { return newProxy(n, "10.0.0.1:80") }
	fronts(t, site, func(t *testing.T, f *front) {
		origin(t, f.network, "10.0.0.1:80", l7test.Script{l7test.Echo()})
		for i := range 20 {
			if status, _ := f.get(t, "/"); status != 200 {
				t.Fatalf("request %d = %d; want 200: %v", i, status, f.last(t).Err)
			}
			if r := f.last(t); i > 0 && !r.Reused {
				t.Fatalf("request %d went over a new connection", i)
			}
			time.Sleep(10 * time.Second)
		}
	})
}
