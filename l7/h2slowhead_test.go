// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"bytes"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
)

// echoBody replies with the body of the request.
func echoBody(*l4test.Network) http.Handler {
	return l7.HandlerFunc(func(x *l7.Exchange) {
		b, err := io.ReadAll(x.Body())
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		x.Respond(200, nil, string(b))
	})
}

// frame returns the bytes of the frame that write writes.
func (c *h2Client) frame(write func(*http2.Framer) error) []byte {
	var b bytes.Buffer
	f := http2.NewFramer(&b, nil)
	f.AllowIllegalWrites = true
	require.NoError(c, write(f))
	return b.Bytes()
}

// A head has to be complete within ReadHeaderTimeout, however slowly its bytes
// come: neither whole CONTINUATION frames nor parts of a frame give it more.
func TestHTTP2SlowHead(t *testing.T) {
	srv := func() *l7.Server { return &l7.Server{ReadHeaderTimeout: 4 * time.Second} }
	for name, step := range map[string]func(c *h2Client) ([]byte, []byte){
		"CONTINUATION": func(c *h2Client) ([]byte, []byte) {
			begin := c.frame(func(f *http2.Framer) error {
				return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: []byte{0x82}})
			})
			return begin, c.frame(func(f *http2.Framer) error { return f.WriteContinuation(3, false, []byte{0x90}) })
		},
		"HEADERS": func(c *h2Client) ([]byte, []byte) { return []byte{0, 1, 0, 1, 0, 0, 0, 0, 3, 0x82}, []byte{0x90} },
		"a frame": func(c *h2Client) ([]byte, []byte) { return []byte{0}, nil },
	} {
		for _, busy := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				onHTTP2(t, srv(), echoBody, func(t *testing.T, f *front) {
					c := newH2Client(t, f.network)
					c.ask(1, !busy, "/")
					c.read(time.Second, nil)
					require.Equal(t, !busy, c.ended[1])
					begin, more := step(c)
					start := time.Now()
					_, err := c.Conn.Write(begin)
					for err == nil && time.Since(start) < time.Minute {
						if c.read(time.Second, func() bool { return c.err != nil }); c.err != nil {
							break
						}
						_, err = c.Conn.Write(more)
					}
					c.read(time.Second, nil)
					require.Error(t, c.err)
					require.GreaterOrEqual(t, time.Since(start), 4*time.Second)
					require.Less(t, time.Since(start), 7*time.Second)
				})
			})
		}
	}
}

// A slow frame of a body is not a slow head, and nor are heads that are quick but
// come in halves, so that there is always a part of one.
func TestHTTP2SlowIsNotSlowHead(t *testing.T) {
	onHTTP2(t, &l7.Server{ReadHeaderTimeout: 4 * time.Second}, echoBody, func(t *testing.T, f *front) {
		c := newH2Client(t, f.network)
		c.ask(1, false, "/")
		body := c.frame(func(f *http2.Framer) error { return f.WriteData(1, true, []byte("a body that takes time")) })
		for i := range body {
			if i == 9 { // the header of the frame has come
				time.Sleep(3 * time.Second)
			}
			_, err := c.Conn.Write(body[i : i+1])
			require.NoError(t, err)
			if i >= 9 {
				time.Sleep(time.Second)
			}
		}
		c.read(time.Second, func() bool { return c.ended[1] })
		require.Equal(t, "a body that takes time", c.body[1].String())
	})
	for _, split := range []bool{false, true} {
		onHTTP2(t, &l7.Server{ReadHeaderTimeout: 4 * time.Second}, echoBody, func(t *testing.T, f *front) {
			c := newH2Client(t, f.network)
			c.read(time.Second, nil) // no other frame may come inside of a head
			block := func() []byte {
				c.buf.Reset()
				for _, v := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", "a.test"}, {":path", "/"}} {
					require.NoError(t, c.enc.WriteField(hpack.HeaderField{Name: v[0], Value: v[1]}))
				}
				return bytes.Clone(c.buf.Bytes())
			}
			var rest []byte
			for i := range uint32(10) {
				b := block()
				head := c.frame(func(f *http2.Framer) error {
					return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*i + 1, BlockFragment: b[:1], EndStream: true})
				})
				end := c.frame(func(f *http2.Framer) error { return f.WriteContinuation(2*i+1, true, b[1:]) })
				all := append(head, end...)
				cut := len(head)
				if !split {
					cut = 11
				}
				_, err := c.Conn.Write(append(bytes.Clone(rest), all[:cut]...))
				require.NoError(t, err)
				rest = all[cut:]
				c.read(3*time.Second, nil)
				if i > 0 {
					require.True(t, c.ended[2*i-1], "%d %v %v", i, c.err, split)
				}
			}
		})
	}
}
