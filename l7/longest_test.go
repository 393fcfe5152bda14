// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
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

// The shortest one is over at once, and time goes on: the timer that closes idle
// connections was set to half of it, which is none, and ran for ever at one time.
func TestShortestIdleTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		site := func(n *l4test.Network) http.Handler {
			p := newProxy(n, one)
			p.Upstream.IdleTimeout = 1
			return p
		}
		byteFront(t, site, new(l7.Server), func(t *testing.T, f *front) {
			o := startOrigin(t, f.network, one, nil, false, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })
			for range 2 {
				res, err := f.client.Get("http://a.test/")
				if err != nil {
					t.Fatal(err)
				}
				res.Body.Close()
				time.Sleep(time.Second)
			}
			if o.conns.Load() != 2 {
				t.Errorf("%d connections to the server; want 2", o.conns.Load())
			}
		})
	})
}

// The most bytes there can be are no limit.
func TestBufferBodyOfAnySize(t *testing.T) {
	for _, atLeast := range []int{0, math.MaxInt} {
		h := &l7.BufferBody{MaxBytes: math.MaxInt, AtLeast: atLeast, Next: l7.HandlerFunc(func(x *l7.Exchange) {
			b, err := io.ReadAll(x.Body())
			x.Respond(http.StatusOK, nil, fmt.Sprint(len(b), err))
		})}
		for _, length := range []int64{-1, 5000} {
			r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(strings.Repeat("x", 5000)))
			r.ContentLength = length
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != http.StatusOK || w.Body.String() != "5000 <nil>" {
				t.Errorf("AtLeast %d, length %d: %d %q", atLeast, length, w.Code, w.Body)
			}
		}
	}
}
