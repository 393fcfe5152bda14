// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
)

// The longest duration there is means a long time, wherever something is added
// to it: all goes through as without a limit.
func TestLongestDurations(t *testing.T) {
	const most = time.Duration(math.MaxInt64)
	for _, two := range []bool{false, true} { // HTTP/2 on both sides
		t.Run(fmt.Sprint("HTTP/2 ", two), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				site := func(n *l4test.Network) http.Handler {
					p := newProxy(n, one)
					p.Timeout, p.TryTimeout, p.HeaderTimeout, p.BodyTimeout, p.StreamTimeout = most, most, most, most, most
					p.Retry.Backoff, p.Retry.MaxBackoff, p.Hedge.Delay = most, most, most
					u := p.Upstream
					u.ConnectTimeout, u.IdleTimeout, u.MaxAge, u.PingTimeout = most, most, most, most
					if two {
						u.Protocols = protocols("h2c")
					}
					return p
				}
				srv := &l7.Server{ReadHeaderTimeout: most, IdleTimeout: most, BodyTimeout: most, SendTimeout: most, StreamTimeout: most, HandshakeTimeout: most}
				byteFront(t, site, srv, func(t *testing.T, f *front) {
					if two {
						f.client.Transport.(*http.Transport).Protocols = protocols("h2c")
					}
					o := startOrigin(t, f.network, one, nil, two, func(w http.ResponseWriter, r *http.Request) {
						b, _ := io.ReadAll(r.Body)
						time.Sleep(time.Hour)
						w.Write(b)
					})
					for range 3 {
						pr, pw := io.Pipe()
						go func() {
							time.Sleep(time.Hour)
							io.WriteString(pw, strings.Repeat("x", 100_000))
							pw.Close()
						}()
						res, err := f.client.Post("http://a.test/", "text/plain", pr)
						if err != nil {
							t.Fatal(err)
						}
						b, err := io.ReadAll(res.Body)
						res.Body.Close()
						if res.StatusCode != 200 || len(b) != 100_000 || err != nil {
							t.Fatalf("%d, %d bytes, %v: %v", res.StatusCode, len(b), err, f.last(t).Err)
						}
						time.Sleep(time.Hour)
					}
					if o.conns.Load() != 1 {
						t.Errorf("%d connections to the server; want 1", o.conns.Load())
					}
					// Not repeated: the wait would be as long.
				})
			})
		})
	}
}
