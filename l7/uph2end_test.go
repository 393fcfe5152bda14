// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
)

// okHead is the block of a head with :status 200, which is in the static table.
var okHead = []byte{0x88}

// serveStreams serves HTTP/2 at addr by prior knowledge, and calls answer for each
// request. Most is the greatest number of connections at once.
func serveStreams(t *testing.T, n *l4test.Network, addr string, answer func(c *l4test.Conn, fr *http2.Framer, id uint32), settings ...http2.Setting) (most *atomic.Int64) {
	t.Helper()
	ln, err := n.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	var open atomic.Int64
	most = new(atomic.Int64)
	go func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			most.Store(max(most.Load(), open.Add(1)))
			go func() {
				defer open.Add(-1)
				defer nc.Close()
				io.ReadFull(nc, make([]byte, len(http2.ClientPreface)))
				fr := http2.NewFramer(nc, nc)
				fr.WriteSettings(settings...)
				for {
					f, err := fr.ReadFrame()
					if err != nil {
						return
					}
					if h, ok := f.(*http2.HeadersFrame); ok {
						answer(nc.(*l4test.Conn), fr, h.StreamID)
					}
				}
			}()
		}
	}()
	return most
}

// streams runs do in a bubble with a Transport that speaks HTTP/2 by prior knowledge.
func withStreams(t *testing.T, do func(t *testing.T, n *l4test.Network, tr *l7.Transport)) {
	t.Helper()
	withTransport(t, []string{one}, func(t *testing.T, n *l4test.Network, tr *l7.Transport) {
		tr.Upstream.Protocols = protocols("h2c")
		do(t, n, tr)
	})
}

// A server that closes the connection in the middle of a body has not ended the body.
func TestHTTP2ConnectionEndsWithinABody(t *testing.T) {
	half := func(c *l4test.Conn, fr *http2.Framer, id uint32) {
		fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: okHead, EndHeaders: true})
		fr.WriteData(id, false, []byte("half"))
		c.CloseWrite()
	}
	t.Run("transport", func(t *testing.T) {
		withStreams(t, func(t *testing.T, n *l4test.Network, tr *l7.Transport) {
			serveStreams(t, n, one, half)
			var how string
			tr.OnDone = func(r *l7.Record) { how = r.Termination.String() }
			res, err := tr.RoundTrip(get("http://a.test/"))
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(res.Body)
			res.Body.Close()
			if string(b) != "half" || !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("body = %q, %v; want half of it and an unexpected EOF", b, err)
			}
			if synctest.Wait(); how != "SD" {
				t.Errorf("ended with %s; want SD", how)
			}
		})
	})
	t.Run("proxy", func(t *testing.T) {
		fronts(t, proxyH2(nil), func(t *testing.T, f *front) {
			serveStreams(t, f.network, one, half)
			c := f.dial(t).send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
			if _, body, err := c.reply("GET"); err == nil || body != "half" {
				t.Errorf("got %q, %v; want an error", body, err)
			}
			if r := f.last(t); r.Termination.String() != "SD" {
				t.Errorf("ended with %v; want SD", r.Termination)
			}
		})
	})
}

// What a server says in its GOAWAY is the error of the requests that it drops.
func TestHTTP2GoAwaySaysWhyTheConnectionEnds(t *testing.T) {
	withStreams(t, func(t *testing.T, n *l4test.Network, tr *l7.Transport) {
		serveStreams(t, n, one, func(c *l4test.Conn, fr *http2.Framer, id uint32) {
			fr.WriteGoAway(id, http2.ErrCodeEnhanceYourCalm, []byte("too many resets"))
			c.CloseWrite()
		})
		_, err := tr.RoundTrip(get("http://a.test/"))
		if err == nil || !strings.Contains(err.Error(), "ENHANCE_YOUR_CALM too many resets") {
			t.Errorf("the error is %v; want what the GOAWAY says", err)
		}
	})
}

// Connections of a server that allows no streams are of no use, and are not kept.
func TestHTTP2ServerOfNoStreams(t *testing.T) {
	for _, refuses := range []bool{false, true} {
		t.Run(fmt.Sprint("refuses ", refuses), func(t *testing.T) {
			withStreams(t, func(t *testing.T, n *l4test.Network, tr *l7.Transport) {
				most := serveStreams(t, n, one, func(c *l4test.Conn, fr *http2.Framer, id uint32) {
					if refuses {
						fr.WriteRSTStream(id, http2.ErrCodeRefusedStream)
						return
					}
					fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: okHead, EndHeaders: true, EndStream: true})
				}, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 0})
				for range 20 {
					res, err := tr.RoundTrip(get("http://a.test/"))
					if err == nil {
						res.Body.Close()
					}
					if refuses != (err != nil) || err == nil && res.StatusCode != http.StatusOK {
						t.Fatalf("got %v, %v", res, err)
					}
					synctest.Wait()
				}
				// The server may notice late that one has ended. Kept, there would be one more
				// for each of the 20 requests, or for each of their tries.
				if got := most.Load(); got > 4 {
					t.Errorf("%d connections at once; want at most 4", got)
				}
			})
		})
	}
}

// A server whose last frame of a reply cannot be decoded ends the connection, and with it
// the request of that reply, whose stream has ended by then.
func TestHTTP2ReplyThatCannotBeDecoded(t *testing.T) {
	noBlock := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff} // an index above all
	head := func(c *l4test.Conn, fr *http2.Framer, id uint32) {
		fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: noBlock, EndHeaders: true, EndStream: true})
	}
	trailer := func(c *l4test.Conn, fr *http2.Framer, id uint32) {
		fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: okHead, EndHeaders: true})
		fr.WriteData(id, false, []byte("body"))
		time.Sleep(time.Millisecond) // the body is waited for
		fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: noBlock, EndHeaders: true, EndStream: true})
	}
	t.Run("head", func(t *testing.T) {
		withStreams(t, func(t *testing.T, n *l4test.Network, tr *l7.Transport) {
			serveStreams(t, n, one, head)
			start := time.Now()
			res, err := tr.RoundTrip(get("http://a.test/"))
			if err == nil || !strings.Contains(err.Error(), "COMPRESSION_ERROR") || time.Since(start) > time.Second {
				t.Errorf("%v, %v after %v", res, err, time.Since(start))
			}
			if n := tr.Pool.Server(one).InFlight(); n != 0 {
				t.Errorf("%d leases are held", n)
			}
		})
	})
	t.Run("trailer", func(t *testing.T) {
		withStreams(t, func(t *testing.T, n *l4test.Network, tr *l7.Transport) {
			serveStreams(t, n, one, trailer)
			start := time.Now()
			res, err := tr.RoundTrip(get("http://a.test/"))
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(res.Body)
			res.Body.Close()
			if string(b) != "body" || err == nil || !strings.Contains(err.Error(), "COMPRESSION_ERROR") || time.Since(start) > time.Second {
				t.Errorf("%q, %v after %v", b, err, time.Since(start))
			}
		})
	})
}
