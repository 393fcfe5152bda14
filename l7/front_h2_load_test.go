// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/ratelimit"
)

// While there are many streams on all connections together, each connection is
// granted fewer, new ones from the start; and all again when they are gone.
func TestBusyServerGrantsFewerStreams(t *testing.T) {
	var block chan struct{}
	onHTTP2(t, &l7.Server{MaxStreams: 20, BusyStreams: 8}, func(*l4test.Network) http.Handler {
		block = make(chan struct{})
		return l7.HandlerFunc(func(x *l7.Exchange) {
			if x.Path == "/" {
				<-block
			}
			x.Respond(200, nil, "")
		})
	}, func(t *testing.T, f *front) {
		release := sync.OnceFunc(func() { close(block) })
		defer release()
		look := func(c *h2Client) { c.read(time.Millisecond, nil) }
		a, b := newH2Client(t, f.network), newH2Client(t, f.network)
		look(a)
		look(b)
		for i := range uint32(14) {
			a.ask(2*i+1, true, "/")
		}
		look(a)
		require.Equal(t, []uint32{20}, a.max, "14 streams are fewer than twice 8")
		a.ask(29, true, "/")
		a.ask(31, true, "/")
		look(a)
		require.Equal(t, []uint32{20, 10}, a.max, "half of them at twice as many")
		late := newH2Client(t, f.network)
		look(late)
		require.Equal(t, []uint32{20, 10}, late.max, "from the start")
		look(b)
		require.Equal(t, []uint32{20}, b.max, "it was there before, and has asked for nothing")
		b.ask(1, true, "/")
		look(b)
		require.Equal(t, []uint32{20, 9}, b.max)
		for i := range uint32(40) { // however many there are, a tenth is left
			late.ask(2*i+1, true, "/")
		}
		look(late)
		a.ask(33, true, "/other")
		look(a)
		require.GreaterOrEqual(t, a.max[len(a.max)-1], uint32(2))
		release()
		synctest.Wait()
		for _, c := range []*h2Client{a, b, late} {
			look(c) // it acknowledges what it was told as its last stream ended
			c.ask(101, true, "/other")
			look(c)
			require.Equal(t, uint32(20), c.max[len(c.max)-1])
			require.Equal(t, "200 ", c.status[101])
		}
	})
}

// What a connection may have changes while the client has not yet acknowledged
// what it was told before: it is told the rest as soon as it has.
func TestGrantFollowsTheAcknowledgement(t *testing.T) {
	var block chan struct{}
	onHTTP2(t, &l7.Server{MaxStreams: 20, BusyStreams: 8}, func(*l4test.Network) http.Handler {
		block = make(chan struct{})
		return l7.HandlerFunc(func(x *l7.Exchange) {
			<-block
			x.Respond(200, nil, "")
		})
	}, func(t *testing.T, f *front) {
		c := newH2Client(t, f.network)
		c.read(time.Millisecond, nil)
		c.mute = true
		for i := range uint32(16) {
			c.ask(2*i+1, true, "/")
		}
		c.read(time.Millisecond, nil)
		require.Equal(t, []uint32{20, 10}, c.max)
		close(block)
		c.read(time.Millisecond, nil)
		require.Equal(t, []uint32{20, 10}, c.max, "it has not acknowledged the last one")
		require.NoError(t, c.WriteSettingsAck())
		c.read(time.Millisecond, nil)
		require.Equal(t, []uint32{20, 10, 20}, c.max)
	})
}

// A client that abuses a connection is told to OnAbuse by its address, once for
// each connection, and so are the records of its streams.
func TestAbuseIsTold(t *testing.T) {
	reset := func(c *h2Client) {
		for i := range uint32(1000) {
			c.ask(2*i+1, true, "/")
			_ = c.WriteRSTStream(2*i+1, http2.ErrCodeCancel)
		}
	}
	for name, tc := range map[string]struct {
		do   func(c *h2Client)
		want string
	}{
		"resets": {reset, "reset"},
		"SETTINGS": {func(c *h2Client) {
			for range 1000 {
				_ = c.WriteSettings()
			}
		}, "SETTINGS"},
		"PING": {func(c *h2Client) {
			for range 2000 {
				_ = c.WritePing(false, [8]byte{})
			}
		}, "PING"},
		"GOAWAY": {func(c *h2Client) {
			for range 1000 {
				_ = c.WriteGoAway(0, http2.ErrCodeNo, nil)
			}
		}, "GOAWAY"},
		"CONTINUATION": {func(c *h2Client) {
			_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1})
			for range 1000 {
				_ = c.WriteContinuation(1, false, nil)
			}
		}, "CONTINUATION"},
		"windows by the byte": {func(c *h2Client) {
			c.ask(1, true, "/")
			for range 2000 {
				_ = c.WriteWindowUpdate(0, 1)
			}
		}, "WINDOW_UPDATE"},
		"empty DATA": {func(c *h2Client) {
			c.ask(1, false, "/")
			for range 1000 {
				_ = c.WriteData(1, false, nil)
			}
		}, "empty DATA"},
		"HPACK bomb": {func(c *h2Client) {
			c.ask(1, true, "/", "x-bomb", strings.Repeat("b", 3900)) // is in the table from now on
			c.buf.Reset()
			for _, name := range []string{":method", ":scheme", ":authority", ":path"} {
				require.NoError(c, c.enc.WriteField(hpack.HeaderField{Name: name, Value: map[string]string{":method": "GET", ":scheme": "http", ":authority": "a.test", ":path": "/"}[name]}))
			}
			head := append(bytes.Clone(c.buf.Bytes()), bytes.Repeat([]byte{0xbe}, 1000)...) // each byte a field of 3900
			for i := range uint32(200) {
				_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*i + 3, BlockFragment: head, EndHeaders: true, EndStream: true})
			}
		}, "oversized heads"},
		"no abuse": {func(c *h2Client) { _ = c.WriteRawFrame(0, 0, 0, nil) }, ""}, // only wrong
	} {
		t.Run(name, func(t *testing.T) {
			var told []string
			srv := &l7.Server{OnAbuse: func(client netip.AddrPort, err error) {
				told = append(told, fmt.Sprint(client.Addr(), " ", err))
				panic("boom") // ends nothing
			}}
			onHTTP2(t, srv, func(*l4test.Network) http.Handler {
				return l7.HandlerFunc(func(x *l7.Exchange) {
					<-x.Context().Done()
					x.Respond(200, nil, "")
				})
			}, func(t *testing.T, f *front) {
				c := newH2Client(t, f.network)
				c.mute = true // the other goroutine writes
				go tc.do(c)
				c.read(time.Second, nil)
				c.Close()
				records := f.done()
				if tc.want == "" {
					require.Empty(t, told)
					return
				}
				require.Len(t, told, 1)
				require.Regexp(t, "^192.0.2.1 .*"+tc.want, told[0])
				for _, r := range records {
					require.Error(t, r.Err)
				}
				if name == "empty DATA" {
					require.ErrorContains(t, records[0].Err, tc.want)
				}
				// The next connection is served.
				c = newH2Client(t, f.network)
				require.NoError(t, c.WritePing(false, [8]byte{1}))
				require.True(t, c.read(time.Second, func() bool { return len(c.pings) == 1 }))
			})
		})
	}
}

// Whoever abuses a connection may be kept out for a while: OnAbuse takes more from
// the limit of its connections than there ever is, which a Ban makes a ban of.
func ExampleServer_onAbuse() {
	clients := &ratelimit.Keyed[netip.Addr]{
		Law: ratelimit.GCRA{Rate: ratelimit.PerSecond(1000), Burst: 1000}, // of good clients
		Ban: ratelimit.Ban{After: 1, For: 10 * time.Minute},
	}
	srv := &l7.Server{
		Handler: l7.HandlerFunc(func(x *l7.Exchange) { x.Respond(200, nil, "") }),
		OnAbuse: func(client netip.AddrPort, err error) { clients.Take(client.Addr(), 1001) },
	}
	var accepted l4.Listener // what the limit lets through
	limit := &l4.Limit{PerClient: clients, ClientBits: -1, Next: &accepted}
	front := &l4.Server{Handler: limit} // Serve(ln), beside srv.Serve(&accepted)

	srv.OnAbuse(netip.MustParseAddrPort("192.0.2.7:1234"), context.Canceled)
	fmt.Println(clients.Take(netip.MustParseAddr("192.0.2.7"), 1).OK, clients.Take(netip.MustParseAddr("192.0.2.8"), 1).OK)
	_ = front
	// Output: false true
}
