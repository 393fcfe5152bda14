// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"

	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
)

// A server of HTTP/1 replies as soon as it has as many bytes as Content-Length says. The
// END_STREAM of the client may come later, and the stream is not reset for that: some
// clients, as httpx, take the reset for a failure.
func TestHTTP2EndAfterReply(t *testing.T) {
	for name, tc := range map[string]struct {
		length string
		send   string // the part of the body that comes before the reply
		end    func(c *h2Client)
		reset  bool
		after  time.Duration // from the reply to the reset
	}{
		"in a frame of its own": {"5", "hello", func(c *h2Client) { _ = c.WriteData(1, true, nil) }, false, 0},
		"of an empty body":      {"0", "", func(c *h2Client) { _ = c.WriteData(1, true, nil) }, false, 0},
		"in a trailer": {"5", "hello", func(c *h2Client) {
			c.buf.Reset()
			_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.buf.Bytes(), EndHeaders: true, EndStream: true})
		}, false, 0},
		"never":              {"5", "hello", func(*h2Client) {}, true, time.Second},
		"more than was said": {"5", "hello", func(c *h2Client) { _ = c.WriteData(1, false, []byte("!")) }, true, 500 * time.Millisecond},
		"of a part":          {"1000000", "hello", func(*h2Client) {}, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			pool := newPool(one)
			var up *l7.Upstream
			onHTTP2(t, new(l7.Server), func(n *l4test.Network) http.Handler {
				up = &l7.Upstream{Dial: n.DialContext}
				return &l7.Proxy{Pool: pool, Upstream: up}
			}, func(t *testing.T, f *front) {
				startOrigin(t, f.network, one, nil, false, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					_, _ = io.ReadFull(r.Body, make([]byte, len(tc.send)))
					_, _ = io.WriteString(w, "taken")
				}))
				defer up.CloseIdle()
				c := newH2Client(t, f.network)
				c.ask(1, false, "/", "content-length", tc.length)
				_ = c.WriteData(1, false, []byte(tc.send))
				require.True(t, c.read(5*time.Second, func() bool { return c.ended[1] }))
				require.Equal(t, "200 ", c.status[1])
				require.Equal(t, "taken", c.body[1].String())
				replied := time.Now()
				c.read(500*time.Millisecond, nil)
				require.Equal(t, tc.reset && tc.after == 0, len(c.reset) > 0)
				require.Zero(t, pool.Server(one).InFlight(), "the server is not held")
				require.Len(t, f.done(), 1)
				tc.end(c)
				c.read(10*time.Second, func() bool { return len(c.reset) > 0 })
				_, reset := c.reset[1]
				require.Equal(t, tc.reset, reset, "%v", c.reset)
				if reset && tc.after > 500*time.Millisecond {
					require.Equal(t, tc.after, time.Since(replied))
					require.Equal(t, http2.ErrCodeNo, c.reset[1])
				}
				c.ask(3, true, "/")
				require.True(t, c.read(5*time.Second, func() bool { return c.ended[3] }))
				require.Equal(t, "200 ", c.status[3])
				require.NoError(t, f.done()[0].Err)
			})
		})
	}
}
