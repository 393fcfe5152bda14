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

// A reply may end before its request: a server of HTTP/1 sends it as soon as it has as many
// bytes as Content-Length says, while END_STREAM is still on its way, and a refusal waits
// for none of the body. The stream goes on for a moment, since some clients, as httpx and
// curl 7, lose the whole reply if it is reset.
func TestHTTP2ReplyBeforeEnd(t *testing.T) {
	data := func(end bool, s string) func(*h2Client) {
		return func(c *h2Client) { _ = c.WriteData(1, end, []byte(s)) }
	}
	for name, tc := range map[string]struct {
		path   string
		fields []string
		begin  func(c *h2Client) // before the reply
		then   func(c *h2Client) // half a second after it
		reset  time.Duration     // from the reply to the reset; 0 means that there is none
		code   http2.ErrCode
	}{
		"END_STREAM in a frame of its own": {"/", []string{"content-length", "5"}, data(false, "hello"), data(true, ""), 0, 0},
		"of an empty body":                 {"/", []string{"content-length", "0"}, data(false, ""), data(true, ""), 0, 0},
		"in a trailer": {"/", []string{"content-length", "5"}, data(false, "hello"), func(c *h2Client) {
			_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, EndStream: true})
		}, 0, 0},
		"never":                      {"/", []string{"content-length", "5"}, data(false, "hello"), nil, time.Second, http2.ErrCodeNo},
		"more than announced":        {"/", []string{"content-length", "5"}, data(false, "hello"), data(false, "!"), time.Second / 2, http2.ErrCodeProtocol},
		"refused":                    {"/no", []string{"content-length", "11"}, data(false, "hello"), data(true, " world"), 0, 0},
		"refused, no length":         {"/no", nil, data(false, "hello"), data(true, " world"), 0, 0},
		"refused, and never ends":    {"/no", nil, data(false, "hello"), data(false, " world"), time.Second, http2.ErrCodeNo},
		"refused, and never begins":  {"/no", []string{"expect", "100-continue"}, func(*h2Client) {}, nil, time.Second, http2.ErrCodeNo},
		"refused, the client resets": {"/no", []string{"expect", "100-continue"}, func(*h2Client) {}, func(c *h2Client) { _ = c.WriteRSTStream(1, http2.ErrCodeCancel) }, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			pool := newPool(one)
			var up *l7.Upstream
			onHTTP2(t, new(l7.Server), func(n *l4test.Network) http.Handler {
				up = &l7.Upstream{Dial: n.DialContext}
				proxy := &l7.Proxy{Pool: pool, Upstream: up}
				return l7.HandlerFunc(func(x *l7.Exchange) {
					if x.Path == "/no" {
						x.Respond(http.StatusForbidden, nil, "no")
						return
					}
					l7.Serve(proxy, x)
				})
			}, func(t *testing.T, f *front) {
				startOrigin(t, f.network, one, nil, false, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
					_, _ = io.Copy(io.Discard, r.Body)
				}))
				defer up.CloseIdle()
				c := newH2Client(t, f.network)
				c.ask(1, false, tc.path, tc.fields...)
				tc.begin(c)
				require.True(t, c.read(5*time.Second, func() bool { return c.ended[1] }))
				require.NotEmpty(t, c.status[1])
				replied := time.Now()
				c.read(time.Second/2, nil)
				require.Empty(t, c.reset)
				require.Zero(t, pool.Server(one).InFlight(), "no server is held")
				require.Len(t, f.done(), 1)
				if tc.then != nil {
					tc.then(c)
				}
				c.read(10*time.Second, func() bool { return len(c.reset) > 0 })
				code, reset := c.reset[1]
				require.Equal(t, tc.reset > 0, reset, "%v", c.reset)
				if reset {
					require.Equal(t, tc.code, code)
					require.Equal(t, tc.reset, time.Since(replied))
				}
				c.ask(3, true, "/")
				require.True(t, c.read(5*time.Second, func() bool { return c.ended[3] }))
				require.Equal(t, "200 ", c.status[3])
			})
		})
	}
}

// What a client sends behind the reply without an end is not read for ever.
func TestHTTP2EndlessUploadAfterReply(t *testing.T) {
	onHTTP2(t, new(l7.Server), func(*l4test.Network) http.Handler { return &l7.Deny{} }, func(t *testing.T, f *front) {
		c := newH2Client(t, f.network)
		start := time.Now()
		c.ask(1, false, "/")
		sent, windows, first := 0, [2]int{1<<16 - 1, 1<<16 - 1}, 1<<16-1
		for reset := false; !reset; {
			fr, err := c.ReadFrame()
			require.NoError(t, err)
			switch fr := fr.(type) {
			case *http2.SettingsFrame:
				if n, ok := fr.Value(http2.SettingInitialWindowSize); ok {
					windows[1] += int(n) - first
					first = int(n)
				}
			case *http2.WindowUpdateFrame:
				windows[fr.StreamID] += int(fr.Increment)
			case *http2.RSTStreamFrame:
				require.Equal(t, http2.ErrCodeNo, fr.ErrCode)
				reset = true
			}
			for ; min(windows[0], windows[1]) >= 1<<14; sent += 1 << 14 {
				require.NoError(t, c.WriteData(1, false, make([]byte, 1<<14)))
				windows[0], windows[1] = windows[0]-1<<14, windows[1]-1<<14
			}
		}
		require.Less(t, time.Since(start), time.Second)
		require.GreaterOrEqual(t, sent, 32<<20)
		require.LessOrEqual(t, sent, 40<<20)
	})
}
