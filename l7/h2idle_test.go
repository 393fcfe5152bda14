// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"bufio"
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"

	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
)

// A server's PINGs do not keep a connection that has had no stream for IdleTimeout.
func TestHTTP2IdleInSpiteOfPings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := l4test.NewNetwork()
		var ended atomic.Int64 // seconds after the last reply
		serveOrigin(t, network, one, func(c *l4test.Conn, br *bufio.Reader) {
			_, _ = io.ReadFull(br, make([]byte, len(http2.ClientPreface)))
			fr := http2.NewFramer(c, br)
			_ = fr.WriteSettings()
			var last time.Time // of the replies
			pings := http2.NewFramer(c, nil)
			go func() {
				for pings.WritePing(false, [8]byte{}) == nil {
					time.Sleep(4 * time.Second)
				}
			}()
			for {
				fm, err := fr.ReadFrame()
				if err != nil {
					ended.Store(int64(time.Since(last).Seconds()))
					return
				}
				if h, ok := fm.(*http2.HeadersFrame); ok {
					time.Sleep(21 * time.Second)
					_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: h.StreamID, EndHeaders: true, EndStream: true, BlockFragment: []byte{0x88}}) // :status 200
					last = time.Now()
				}
			}
		})
		tr := &l7.Transport{Pool: newPool(one), Upstream: &l7.Upstream{Dial: network.DialContext, Protocols: protocols("h2c"), IdleTimeout: 30 * time.Second}}
		for range 3 {
			require.Equal(t, "200 ", fetch(t, tr, "http://a/"))
			time.Sleep(25 * time.Second)
		}
		time.Sleep(5 * time.Minute)
		if s := ended.Load(); s < 30 || s > 45 {
			t.Errorf("closed after %d s; want 30 to 45", s)
		}
	})
}

// An IdleTimeout below PingTimeout does not make the latter shorter for a connection
// that has streams.
func TestHTTP2PingAfterPingTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := l4test.NewNetwork()
		serveOrigin(t, network, one, func(c *l4test.Conn, br *bufio.Reader) {
			_, _ = io.ReadFull(br, make([]byte, len(http2.ClientPreface)))
			fr := http2.NewFramer(c, br)
			_ = fr.WriteSettings()
			for {
				fm, err := fr.ReadFrame() // and no PING is answered
				if err != nil {
					return
				}
				if h, ok := fm.(*http2.HeadersFrame); ok {
					time.Sleep(19 * time.Second)
					_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: h.StreamID, EndHeaders: true, EndStream: true, BlockFragment: []byte{0x88}}) // :status 200
				}
			}
		})
		tr := &l7.Transport{Pool: newPool(one), Upstream: &l7.Upstream{Dial: network.DialContext, Protocols: protocols("h2c"), IdleTimeout: time.Second, PingTimeout: 10 * time.Second}}
		require.Equal(t, "200 ", fetch(t, tr, "http://a/"))
	})
}
