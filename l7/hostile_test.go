// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"bytes"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
)

// Handlers that do not look whether their client is still there are no more
// than the streams that a client may have and the resets that it is allowed,
// however it gets its streams reset (CVE-2023-44487, CVE-2025-8671).
func TestHTTP2ResetsAreCounted(t *testing.T) {
	for name, tc := range map[string]func(c *h2Client, id uint32){
		"RST_STREAM": func(c *h2Client, id uint32) {
			c.ask(id, false, "/")
			_ = c.WriteRSTStream(id, http2.ErrCodeCancel)
		},
		"RST_STREAM behind pieces of a body": func(c *h2Client, id uint32) {
			c.ask(id, false, "/")
			for range 5 {
				_ = c.WriteData(id, false, []byte{1})
			}
			_ = c.WriteRSTStream(id, http2.ErrCodeCancel)
		},
		"more than Content-Length": func(c *h2Client, id uint32) {
			c.ask(id, false, "/", "content-length", "1")
			_ = c.WriteData(id, false, []byte{1, 2})
		},
		"less than Content-Length": func(c *h2Client, id uint32) {
			c.ask(id, false, "/", "content-length", "2")
			_ = c.WriteData(id, true, []byte{1})
		},
		"malformed trailer": func(c *h2Client, id uint32) {
			c.ask(id, false, "/")
			c.buf.Reset()
			_ = c.enc.WriteField(hpack.HeaderField{Name: ":path", Value: "/"})
			_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: c.buf.Bytes(), EndHeaders: true, EndStream: true})
		},
		"WINDOW_UPDATE by 0": func(c *h2Client, id uint32) {
			c.ask(id, false, "/")
			_ = c.WriteWindowUpdate(id, 0)
		},
	} {
		t.Run(name, func(t *testing.T) {
			var now, most atomic.Int64
			var block chan struct{}
			onHTTP2(t, new(l7.Server), func(n *l4test.Network) http.Handler {
				block = make(chan struct{})
				return l7.HandlerFunc(func(x *l7.Exchange) {
					if n := now.Add(1); n > most.Load() {
						most.Store(n)
					}
					<-block
					now.Add(-1)
					x.Respond(200, nil, "")
				})
			}, func(t *testing.T, f *front) {
				c := newH2Client(t, f.network)
				c.mute = true // one goroutine writes
				go c.read(time.Second, nil)
				for i := range uint32(2000) {
					tc(c, 2*i+1)
					if i%50 == 0 {
						synctest.Wait()
					}
				}
				synctest.Wait()
				close(block)
				require.LessOrEqual(t, most.Load(), int64(400))
			})
		})
	}
}

// Uploads that are answered early have their data under way when they are
// reset. It counts against nobody, however many streams there are.
func TestHTTP2EarlyRepliesToUploads(t *testing.T) {
	onHTTP2(t, new(l7.Server), fixed(l7.HandlerFunc(func(x *l7.Exchange) { x.Respond(429, nil, "") })), func(t *testing.T, f *front) {
		c := newH2Client(t, f.network)
		for round := range uint32(5) {
			for i := range uint32(100) {
				c.ask(200*round+2*i+1, false, "/")
			}
			synctest.Wait() // all are answered
			for i := range uint32(100) {
				for range 8 {
					require.NoError(t, c.WriteData(200*round+2*i+1, false, make([]byte, 8<<10-1)))
				}
			}
			answered := time.Now()
			c.read(2*time.Second, func() bool { return len(c.reset) == int(100*round+74) })
			require.Zero(t, time.Since(answered), "most make room for others at once")
			c.read(2*time.Second, func() bool { return len(c.reset) == int(100*round+100) })
		}
		c.ask(2001, true, "/")
		c.read(time.Second, func() bool { return c.ended[2001] })
		require.Empty(t, c.goAway)
		require.Equal(t, "429 ", c.status[2001])
	})
}

// What a plain handler has written beyond its buffer goes out before it waits
// for something else, as under net/http.
func TestHTTP2HandlerWaitsBehindAWrite(t *testing.T) {
	onHTTP2(t, new(l7.Server), fixed(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write(make([]byte, 20000))
		if r.Method == "POST" {
			_, _ = io.Copy(w, r.Body)
			return
		}
		time.Sleep(3 * time.Second)
	})), func(t *testing.T, f *front) {
		c := newH2Client(t, f.network)
		for _, id := range []uint32{1, 3} {
			c.ask(id, id == 1, "/")
			c.read(time.Second, func() bool { return c.body[id] != nil && c.body[id].Len() == 20000 })
			require.NotNil(t, c.body[id])
			require.Equal(t, 20000, c.body[id].Len())
		}
		_ = c.Close()
	})
}

// Both directions of a chain of gateways may be full at once: the one that
// reads must not wait for what it writes.
func TestHTTP2FullInBothDirections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		site := func(n *l4test.Network) http.Handler {
			p := newProxy(n, one)
			p.Upstream.Protocols = protocols("h2c")
			return p
		}
		byteFront(t, site, new(l7.Server), func(t *testing.T, f *front) {
			ln, err := f.network.Listen("tcp", one)
			require.NoError(t, err)
			back := &l7.Server{Logger: discardLog(), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(w, r.Body)
			})}
			go func() { _ = back.Serve(ln) }()
			defer back.Close()
			tr := f.client.Transport.(*http.Transport)
			tr.Protocols = new(http.Protocols)
			tr.Protocols.SetUnencryptedHTTP2(true)
			start := time.Now()
			var wg sync.WaitGroup
			for range 20 {
				wg.Go(func() {
					res, err := f.client.Post("http://a.test/", "text/plain", bytes.NewReader(make([]byte, 1<<20)))
					if err != nil {
						t.Error(err)
						return
					}
					n, err := io.Copy(io.Discard, res.Body)
					if n != 1<<20 || err != nil {
						t.Error(n, err)
					}
					res.Body.Close()
				})
			}
			wg.Wait()
			require.Less(t, time.Since(start), time.Second)
		})
	})
}

// A stream that waits for more urgent ones is not cut by WriteTimeout while its
// client reads.
func TestHTTP2LessUrgentStreamOutlivesWriteTimeout(t *testing.T) {
	onHTTP2(t, &l7.Server{SendTimeout: 3 * time.Second}, func(*l4test.Network) http.Handler { return bulk(8 << 20) }, func(t *testing.T, f *front) {
		c := newH2Client(t, f.network, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 24})
		require.NoError(t, c.WriteWindowUpdate(0, 1<<24))
		c.ask(1, true, "/", "priority", "u=1")
		c.ask(3, true, "/", "priority", "u=5")
		for range 20 {
			before := 0
			if b := c.body[1]; b != nil {
				before = b.Len()
			}
			c.read(time.Second, func() bool {
				return c.ended[1] || c.body[1] != nil && c.body[1].Len() > before+256<<10
			})
			time.Sleep(500 * time.Millisecond)
		}
		c.read(time.Second, func() bool { return c.ended[1] && c.ended[3] })
		require.Empty(t, c.reset)
		require.Equal(t, 8<<20, c.body[3].Len())
	})
}
