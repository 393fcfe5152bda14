// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
)

// stingy opens n streams on a connection whose windows are empty, and reads what
// comes of them until the end of the connection: how many heads, and how many
// streams that were reset.
func stingy(t *testing.T, f *front, n int) (heads, resets *atomic.Int32) {
	c := f.dial(t)
	io.WriteString(c.Conn, http2.ClientPreface)
	fr := http2.NewFramer(c.Conn, c.br)
	fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	for i := range n {
		var b bytes.Buffer
		enc := hpack.NewEncoder(&b)
		for _, h := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", "a.test"}, {":path", "/"}} {
			enc.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]})
		}
		fr.WriteHeaders(http2.HeadersFrameParam{StreamID: uint32(2*i + 1), BlockFragment: b.Bytes(), EndHeaders: true, EndStream: true})
	}
	heads, resets = new(atomic.Int32), new(atomic.Int32)
	go func() {
		for {
			frame, err := fr.ReadFrame()
			if err != nil {
				return
			}
			switch frame := frame.(type) {
			case *http2.HeadersFrame:
				heads.Add(1)
			case *http2.RSTStreamFrame:
				resets.Add(1)
			case *http2.SettingsFrame:
				if !frame.IsAck() {
					fr.WriteSettingsAck()
				}
			case *http2.PingFrame:
				if !frame.IsAck() {
					fr.WritePing(true, frame.Data)
				}
			}
		}
	}()
	return heads, resets
}

// A client of HTTP/2 that opens no window holds its streams, and what they have
// of servers, for no longer than a client may stand still, whatever the server in
// front and the protocol behind.
func TestClientWithoutWindow(t *testing.T) {
	const streams = 90
	for _, size := range []int{10, 200_000} {
		for _, h2server := range []bool{false, true} {
			for _, hosts := range []bool{false, true} {
				t.Run(fmt.Sprintf("%d bytes, HTTP/2 server %v, http.Server %v", size, h2server, hosts), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						var p *l7.Proxy
						site := func(n *l4test.Network) http.Handler {
							p = newProxy(n, one)
							p.BodyTimeout = 2 * time.Second
							if h2server {
								p.Upstream.Protocols = protocols("h2c")
							}
							return p
						}
						story := func(t *testing.T, f *front) {
							startOrigin(t, f.network, one, nil, h2server, func(w http.ResponseWriter, r *http.Request) {
								io.WriteString(w, strings.Repeat("x", size))
							})
							heads, resets := stingy(t, f, streams)
							time.Sleep(time.Second)
							synctest.Wait()
							if n := heads.Load(); n != streams {
								t.Fatalf("%d heads", n)
							}
							time.Sleep(2 * time.Second)
							synctest.Wait()
							if n := p.Pool.Server(one).InFlight(); n != 0 || resets.Load() != streams {
								t.Errorf("after the timeout %v leases are held and %d streams were reset; want 0 and %d", n, resets.Load(), streams)
							}
							if r := f.last(t); size > 10 && r.Termination.String() != "cD" {
								t.Errorf("ended with %v, %v; want cD", r.Termination, r.Err)
							}
						}
						if !hosts {
							byteFront(t, site, &l7.Server{SendTimeout: 2 * time.Second}, story)
							return
						}
						hostsHTTP2(t, site, story)
					})
				})
			}
		}
	}
}

// Uploads that stand still, as their server does not read, leave the others of
// their connection alone.
func TestStalledUploadsStallNoOther(t *testing.T) {
	for _, stalled := range []int{4, 60} {
		for _, h2server := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				site := func(n *l4test.Network) http.Handler {
					p := newProxy(n, one)
					if h2server {
						p.Upstream.Protocols = protocols("h2c")
					}
					return p
				}
				byteFront(t, site, new(l7.Server), func(t *testing.T, f *front) {
					f.client.Transport.(*http.Transport).Protocols = protocols("h2c")
					release := make(chan struct{})
					ln, err := f.network.Listen("tcp", one)
					if err != nil {
						t.Fatal(err)
					}
					srv := &http.Server{Protocols: protocols("1", "h2c"), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						if r.URL.Path == "/stall" {
							<-release
							return
						}
						n, _ := io.Copy(io.Discard, r.Body)
						fmt.Fprint(w, n)
					}), HTTP2: &http.HTTP2Config{MaxReceiveBufferPerStream: 64 << 10, MaxReceiveBufferPerConnection: 8 << 20}}
					go srv.Serve(ln)
					defer srv.Close()
					post := func(path string, size int) string {
						res, err := f.client.Post("http://a.test"+path, "text/plain", io.MultiReader(strings.NewReader(strings.Repeat("x", size))))
						if err != nil {
							return err.Error()
						}
						defer res.Body.Close()
						b, _ := io.ReadAll(res.Body)
						return string(b)
					}
					for range stalled {
						go post("/stall", 4<<20)
					}
					synctest.Wait()
					start := time.Now()
					if got := post("/", 3<<20); got != fmt.Sprint(3<<20) || time.Since(start) > time.Second {
						t.Errorf("behind %d stalled uploads, HTTP/2 server %v: %s after %v", stalled, h2server, got, time.Since(start))
					}
					close(release)
				})
			})
		}
	}
}

// Downloads that stand still, as their clients do not read, leave the others of
// their connection to the server alone.
func TestStalledDownloadsStallNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		byteFront(t, proxyH2(nil), new(l7.Server), func(t *testing.T, f *front) {
			o := startOrigin(t, f.network, one, nil, true, func(w http.ResponseWriter, r *http.Request) {
				io.WriteString(w, strings.Repeat("x", 4<<20))
			})
			for range 60 {
				c := f.dial(t).send(getA) // and reads nothing
				defer c.Close()
			}
			synctest.Wait()
			start := time.Now()
			if _, body := f.get(t, "/"); len(body) != 4<<20 || time.Since(start) > time.Second {
				t.Errorf("read %d bytes after %v", len(body), time.Since(start))
			}
			if n := o.conns.Load(); n != 1 {
				t.Errorf("%d connections to the server; want 1, or nothing is shown", n)
			}
		})
	})
}

// A server of HTTP/2 that takes nothing of a request body ends it at BodyTimeout,
// one that takes it slowly does not.
func TestHTTP2ServerTakesNoBody(t *testing.T) {
	for _, slow := range []bool{false, true} {
		everyWay(t, func(p *l7.Proxy) {
			p.BodyTimeout, p.HeaderTimeout = 10*time.Second, 20*time.Second
		}, func(t *testing.T, f *front, h2server bool) {
			if !h2server {
				return // see TestSlowServerOutlivesBodyTimeout
			}
			if f.name == "byte" && f.client.Transport.(*http.Transport).Protocols == nil && !slow {
				return // a connection that is closed with a body under way may be reset
			}
			startOrigin(t, f.network, one, nil, true, func(w http.ResponseWriter, r *http.Request) {
				n := 0
				for b := make([]byte, 512<<10); slow; time.Sleep(5 * time.Second) {
					k, err := io.ReadFull(r.Body, b)
					if n += k; err != nil {
						fmt.Fprint(w, n)
						return
					}
				}
				<-r.Context().Done()
			})
			start := time.Now()
			res, err := f.client.Post("http://a.test/", "text/plain", io.MultiReader(strings.NewReader(strings.Repeat("x", 8<<20))))
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			b, _ := io.ReadAll(res.Body)
			d := time.Since(start)
			switch {
			case slow && (res.StatusCode != 200 || string(b) != fmt.Sprint(8<<20) || d < 30*time.Second):
				t.Errorf("%d %q after %v", res.StatusCode, b, d)
			case !slow && (res.StatusCode != 504 || d < 10*time.Second || d > 15*time.Second):
				t.Errorf("%d %q after %v; want 504 after 10s", res.StatusCode, b, d)
			}
		})
	}
}
