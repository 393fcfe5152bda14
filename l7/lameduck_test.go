// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l7"
)

const lameGet = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"

// lameSite answers as a native handler or one of net/http's, which takes the connection to
// the standard front.
func lameSite(native bool) http.Handler {
	if native {
		return l7.HandlerFunc(func(x *l7.Exchange) { x.Respond(200, nil, "ok") })
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "ok") })
}

// wantLast wants a reply that is the last of its connection.
func (c *rawConn) wantLast() {
	c.t.Helper()
	if res := c.wantReply(200, "ok"); !res.Close {
		c.t.Error("the reply does not say that the connection ends")
	}
	c.wantEnd()
}

// TestLameDuck serves one more request on each connection, idle, fresh or new, and
// closes those that have none when the time is over.
func TestLameDuck(t *testing.T) {
	for name, native := range map[string]bool{"native": true, "foreign": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				byteFront(t, fixed(lameSite(native)), &l7.Server{LameDuck: 4 * time.Second}, func(t *testing.T, f *front) {
					idle, silent := f.dial(t).send(lameGet), f.dial(t).send(lameGet)
					idle.wantReply(200, "ok")
					silent.wantReply(200, "ok")
					fresh := f.dial(t)
					synctest.Wait()
					start := time.Now()
					down := make(chan error, 1)
					go func() { down <- f.server.Shutdown(context.Background()) }()
					time.Sleep(3 * time.Second)
					idle.send(lameGet).wantLast()
					fresh.send(lameGet).wantLast()
					f.dial(t).send(lameGet).wantLast()
					silent.wantEnd()
					if d := time.Since(start); d != 4*time.Second {
						t.Errorf("the idle connection ended after %v", d)
					}
					if err := <-down; err != nil {
						t.Error(err)
					}
				})
			})
		})
	}
}

// TestLameDuckMeetsReply: a handler that was busy when it began.
func TestLameDuckMeetsReply(t *testing.T) {
	for name, native := range map[string]bool{"native": true, "foreign": false} {
		t.Run(name, func(t *testing.T) {
			site := http.Handler(l7.HandlerFunc(func(x *l7.Exchange) { time.Sleep(time.Second); l7.Serve(lameSite(native), x) }))
			synctest.Test(t, func(t *testing.T) {
				byteFront(t, fixed(site), &l7.Server{LameDuck: 4 * time.Second}, func(t *testing.T, f *front) {
					c := f.dial(t).send(lameGet)
					c.wantReply(200, "ok")
					c.send(lameGet)
					synctest.Wait()
					go f.server.Shutdown(context.Background())
					c.wantLast()
				})
			})
		})
	}
}

func lameClient(f *front) *http.Client {
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	return &http.Client{Transport: &http.Transport{Protocols: p, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return f.network.DialContext(ctx, "tcp", siteAddr)
	}}}
}

// TestLameDuckHTTP2 has a client post through it: GOAWAY moves it to new connections
// at once, each of which takes one request at least, and no body is sent in vain.
func TestLameDuckHTTP2(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		byteFront(t, fixed(lameSite(true)), &l7.Server{LameDuck: 4 * time.Second}, func(t *testing.T, f *front) {
			client := lameClient(f)
			defer client.CloseIdleConnections()
			start, last := time.Now(), ""
			conns := 0 // since it began to shut down
			trace := &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) {
				if now := i.Conn.LocalAddr().String(); now != last {
					last = now
					conns++
				}
			}}
			var down chan error
			for time.Since(start) < 5*time.Second {
				body := io.NopCloser(strings.NewReader("not to be had again"))
				req, err := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), trace), "POST", "http://"+siteAddr, body)
				if err != nil {
					t.Fatal(err)
				}
				res, err := client.Do(req)
				if err != nil || res.StatusCode != 200 || res.ProtoMajor != 2 {
					t.Fatalf("after %v: %v, %v", time.Since(start), res, err)
				}
				io.Copy(io.Discard, res.Body)
				res.Body.Close()
				if time.Since(start) > time.Second && down == nil {
					down, conns = make(chan error, 1), 0
					go func() { down <- f.server.Shutdown(context.Background()) }()
				}
				if time.Sleep(10 * time.Millisecond); time.Since(start) > 4900*time.Millisecond {
					break
				}
			}
			if err := <-down; err != nil {
				t.Error(err)
			}
			if conns < 100 {
				t.Errorf("%d connections since it began to shut down", conns)
			}
		})
	})
}

// TestLameDuckIdleHTTP2: a stream that has crossed the GOAWAY is served, though nothing
// was open when that was sent. The answer to the PING behind it says that none follows.
func TestLameDuckIdleHTTP2(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		byteFront(t, fixed(lameSite(true)), &l7.Server{LameDuck: 4 * time.Second}, func(t *testing.T, f *front) {
			c, err := f.network.DialContext(t.Context(), "tcp", siteAddr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			io.WriteString(c, http2.ClientPreface)
			fr := http2.NewFramer(c, c)
			fr.WriteSettings()
			ask := func(id uint32) {
				var block bytes.Buffer
				e := hpack.NewEncoder(&block)
				for _, kv := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", "a"}, {":path", "/"}} {
					e.WriteField(hpack.HeaderField{Name: kv[0], Value: kv[1]})
				}
				fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true})
			}
			// until returns the next frame for which is is true.
			until := func(is func(http2.Frame) bool) http2.Frame {
				for {
					fm, err := fr.ReadFrame()
					if err != nil {
						t.Fatal(err)
					}
					if is(fm) {
						return fm
					}
				}
			}
			head := func(fm http2.Frame) bool { return fm.Header().Type == http2.FrameHeaders }
			ask(1)
			until(head)
			synctest.Wait()
			start, down := time.Now(), make(chan error, 1)
			go func() { down <- f.server.Shutdown(context.Background()) }()
			leave := func(fm http2.Frame) bool { return fm.Header().Type == http2.FrameGoAway }
			if g := until(leave).(*http2.GoAwayFrame); g.LastStreamID != 1<<31-1 {
				t.Errorf("the first GOAWAY is for streams behind %d", g.LastStreamID)
			}
			ping := until(func(fm http2.Frame) bool { return fm.Header().Type == http2.FramePing }).(*http2.PingFrame)
			ask(3)
			if id := until(head).Header().StreamID; id != 3 {
				t.Errorf("an answer to stream %d", id)
			}
			fr.WritePing(true, ping.Data)
			if g := until(leave).(*http2.GoAwayFrame); g.LastStreamID != 3 {
				t.Errorf("the last GOAWAY is for streams behind %d", g.LastStreamID)
			}
			if _, err := fr.ReadFrame(); err != io.EOF || time.Since(start) != 0 {
				t.Errorf("got %v after %v; want the end at once", err, time.Since(start))
			}
			if err := <-down; err != nil {
				t.Error(err)
			}
		})
	})
}

// TestShutdownBehindL4 shuts down an l4.Server and the l7.Server behind it, in either
// order and at once, with and without LameDuck: no deadline is waited for, and with
// LameDuck every connection gets one more reply.
func TestShutdownBehindL4(t *testing.T) {
	for _, order := range []string{"l4 first", "l7 first", "together"} {
		for _, native := range []bool{true, false} {
			for _, lame := range []time.Duration{0, 4 * time.Second} {
				t.Run(order+"/"+map[bool]string{true: "native", false: "foreign"}[native]+"/"+lame.String(), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { shutdownBehindL4(t, order, native, lame) })
				})
			}
		}
	}
}

func shutdownBehindL4(t *testing.T, order string, native bool, lame time.Duration) {
	f := newFront("byte")
	ln, err := f.network.Listen("tcp", siteAddr)
	if err != nil {
		t.Fatal(err)
	}
	local := new(l4.Listener)
	front := &l4.Server{Handler: local, LameDuck: lame, Logger: discardLog()}
	site := &l7.Server{Handler: lameSite(native), LameDuck: lame, Logger: discardLog()}
	served := make(chan error, 2)
	go func() { served <- front.Serve(ln) }()
	go func() { served <- site.Serve(local) }()
	idle, other := f.dial(t).send(lameGet), f.dial(t).send(lameGet)
	idle.wantReply(200, "ok")
	other.wantReply(200, "ok")
	time.Sleep(time.Second) // it may be parked
	fresh := f.dial(t)
	synctest.Wait()

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	start := time.Now()
	down := make(chan error, 2)
	steps := []func(context.Context) error{front.Shutdown, site.Shutdown}
	switch order {
	case "l7 first":
		steps[0], steps[1] = steps[1], steps[0]
		fallthrough
	case "l4 first":
		go func() {
			for _, step := range steps {
				down <- step(ctx)
			}
		}()
	case "together":
		for _, step := range steps {
			go func() { down <- step(ctx) }()
		}
	}
	if lame > 0 {
		time.Sleep(time.Second)
		idle.send(lameGet).wantLast()
		fresh.send(lameGet).wantLast()
		f.dial(t).send(lameGet).wantLast()
	}
	other.wantEnd()
	if d := time.Since(start); d != lame {
		t.Errorf("the idle connection ended after %v; want %v", d, lame)
	}
	if lame == 0 {
		idle.wantEnd()
		fresh.send(lameGet).wantLast()
	}
	for range 2 {
		if err := <-down; err != nil {
			t.Error(err)
		}
		<-served
	}
	if d := time.Since(start); d > 2*lame {
		t.Errorf("down after %v", d)
	}
}
