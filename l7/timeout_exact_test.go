// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/l7/l7test"
)

// Timeout and TryTimeout end an exchange when they say, on a connection to the server that
// is new, and on one that has the deadline of earlier exchanges. They end none before.
func TestTimeoutsAreExact(t *testing.T) {
	const limit = 2 * time.Second
	part := l7test.Send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello")
	whole := func(p *l7.Proxy) { p.Timeout = limit }
	try := func(p *l7.Proxy) { p.TryTimeout = limit }
	for _, tc := range []struct {
		name   string
		set    func(*l7.Proxy)
		body   int
		script l7test.Script
		status int // 0 means that the body ends early
	}{
		{"head", whole, 0, l7test.Script{l7test.Stall()}, 504},
		{"head of a try", try, 0, l7test.Script{l7test.Stall()}, 504},
		{"head, with a limit as long", func(p *l7.Proxy) { p.Timeout, p.HeaderTimeout = limit, limit*9/10 }, 0, l7test.Script{l7test.Stall()}, 504},
		{"head, late", whole, 0, l7test.Script{l7test.Wait(limit * 9 / 10), l7test.Reply(200, "ok")}, 200},
		{"body", whole, 0, l7test.Script{part, l7test.Stall()}, 0},
		{"body, in parts", whole, 0, l7test.Script{part, l7test.Wait(limit / 2), l7test.Send("hello"), l7test.Stall()}, 0},
		{"upload", whole, 30 << 10, l7test.Script{l7test.Stall()}, 504},
		{"long upload", whole, 8 << 20, l7test.Script{l7test.Stall()}, 504},
	} {
		for _, before := range []int{0, 1, 3} { // exchanges on the same connection
			synctest.Test(t, func(t *testing.T) {
				site := func(n *l4test.Network) http.Handler {
					p := newProxy(n, one)
					p.Retry.Tries = 1
					tc.set(p)
					return p
				}
				byteFront(t, site, new(l7.Server), func(t *testing.T, f *front) {
					scripts := make([]l7test.Script, before, before+1)
					for i := range scripts {
						scripts[i] = l7test.Script{l7test.Reply(200, "ok")}
					}
					origin(t, f.network, one, append(scripts, tc.script)...)
					for range before {
						res, err := f.client.Get("http://a.test/")
						require.NoError(t, err)
						_, _ = io.ReadAll(res.Body)
						res.Body.Close()
						time.Sleep(limit * 2 / 5)
					}
					began := time.Now()
					res, err := f.client.Post("http://a.test/", "text/plain", strings.NewReader(strings.Repeat("x", tc.body)))
					require.NoError(t, err, tc.name)
					_, err = io.ReadAll(res.Body)
					res.Body.Close()
					if tc.status == 0 {
						require.Error(t, err, tc.name)
					} else {
						require.Equal(t, tc.status, res.StatusCode, tc.name)
					}
					want := limit
					if tc.status == 200 {
						want = limit * 9 / 10
					}
					require.Equal(t, want, time.Since(began), "%s after %d", tc.name, before)
				})
			})
		}
	}
}
