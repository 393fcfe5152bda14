// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
)

// h2Client is a client of single frames.
type h2Client struct {
	*testing.T
	net.Conn
	*http2.Framer
	enc *hpack.Encoder
	buf bytes.Buffer

	// What has been read, by stream.
	status map[uint32]string
	fields map[uint32][]hpack.HeaderField
	body   map[uint32]*bytes.Buffer
	ended  map[uint32]bool
	reset  map[uint32]http2.ErrCode
	order  []uint32 // of the streams of DATA frames
	goAway []*http2.GoAwayFrame
	mute   bool // it acknowledges nothing
	pings  [][8]byte
	max    []uint32 // streams that it has been granted, one after another
	err    error
}

func newH2Client(t *testing.T, n *l4test.Network, settings ...http2.Setting) *h2Client {
	nc, err := n.DialContext(context.Background(), "tcp", siteAddr)
	require.NoError(t, err)
	t.Cleanup(func() { _ = nc.Close() })
	c := &h2Client{
		T: t, Conn: nc, Framer: http2.NewFramer(nc, nc), status: map[uint32]string{}, fields: map[uint32][]hpack.HeaderField{},
		body: map[uint32]*bytes.Buffer{}, ended: map[uint32]bool{}, reset: map[uint32]http2.ErrCode{},
	}
	c.enc = hpack.NewEncoder(&c.buf)
	c.AllowIllegalWrites = true
	c.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	_, err = io.WriteString(nc, http2.ClientPreface)
	require.NoError(t, err)
	require.NoError(t, c.WriteSettings(settings...))
	return c
}

// ask sends the head of a request.
func (c *h2Client) ask(id uint32, end bool, target string, more ...string) {
	method := "GET"
	if !end {
		method = "POST"
	}
	c.head(id, end, append([]string{":method", method, ":scheme", "http", ":authority", "a.test", ":path", target}, more...)...)
}

// head sends fields, the names of which alternate with their values.
func (c *h2Client) head(id uint32, end bool, fields ...string) {
	c.buf.Reset()
	for i := 0; i < len(fields); i += 2 {
		require.NoError(c, c.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}))
	}
	_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: c.buf.Bytes(), EndHeaders: true, EndStream: end})
}

// read takes frames until done says so, nothing has come for d, or the
// connection ends. It acknowledges SETTINGS and PING, and opens no window.
func (c *h2Client) read(d time.Duration, done func() bool) bool {
	for c.err == nil {
		if done != nil && done() {
			return true
		}
		_ = c.SetReadDeadline(time.Now().Add(d))
		f, err := c.ReadFrame()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return false
		}
		if c.err = err; err != nil {
			break
		}
		id := f.Header().StreamID
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			if s := f.PseudoValue("status"); s != "" {
				c.status[id] += s + " "
			}
			c.fields[id] = append(c.fields[id], f.RegularFields()...)
			c.ended[id] = f.StreamEnded()
		case *http2.DataFrame:
			if c.body[id] == nil {
				c.body[id] = new(bytes.Buffer)
			}
			c.body[id].Write(f.Data())
			c.ended[id] = f.StreamEnded()
			c.order = append(c.order, id)
		case *http2.RSTStreamFrame:
			c.reset[id] = f.ErrCode
		case *http2.GoAwayFrame:
			c.goAway = append(c.goAway, &http2.GoAwayFrame{LastStreamID: f.LastStreamID, ErrCode: f.ErrCode})
		case *http2.SettingsFrame:
			if n, ok := f.Value(http2.SettingMaxConcurrentStreams); ok {
				c.max = append(c.max, n)
			}
			if !f.IsAck() && !c.mute {
				_ = c.WriteSettingsAck()
			}
		case *http2.PingFrame:
			c.pings = append(c.pings, f.Data)
		}
	}
	return done != nil && done()
}

func (c *h2Client) field(id uint32, name string) string {
	for _, f := range c.fields[id] {
		if f.Name == name {
			return f.Value
		}
	}
	return ""
}

// onHTTP2 runs story against srv over HTTP/2 by prior knowledge.
func onHTTP2(t *testing.T, srv *l7.Server, site func(n *l4test.Network) http.Handler, story func(t *testing.T, f *front)) {
	synctest.Test(t, func(t *testing.T) {
		byteFront(t, site, srv, func(t *testing.T, f *front) {
			story(t, f)
			synctest.Wait()
		})
	})
}

func bulk(n int) http.Handler {
	return l7.HandlerFunc(func(x *l7.Exchange) { x.Respond(200, nil, strings.Repeat("x", n)) })
}

// A client that opens no window is cut like one that does not read, and what
// was held for it at the servers comes back.
func TestHTTP2ClientOpensNoWindow(t *testing.T) {
	pool := new(balance.Pool)
	require.NoError(t, pool.Set(balance.Endpoint{Addr: "10.0.0.1:80"}))
	var up *l7.Upstream
	onHTTP2(t, &l7.Server{SendTimeout: 3 * time.Second}, func(n *l4test.Network) http.Handler {
		up = &l7.Upstream{Dial: n.DialContext}
		return &l7.Proxy{Pool: pool, Upstream: up}
	}, func(t *testing.T, f *front) {
		ln, err := f.network.Listen("tcp", "10.0.0.1:80")
		require.NoError(t, err)
		origin := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(w, io.LimitReader(zeros{}, 4<<20))
		})}
		go func() { _ = origin.Serve(ln) }()
		defer origin.Close()
		defer up.CloseIdle()
		c := newH2Client(t, f.network, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
		for i := range uint32(20) {
			c.ask(2*i+1, true, "/")
		}
		c.read(time.Second, nil)
		require.Equal(t, 20, pool.Server("10.0.0.1:80").InFlight())
		c.read(5*time.Second, func() bool { return len(c.reset) == 20 })
		require.Len(t, c.reset, 20)
		synctest.Wait()
		require.Zero(t, pool.Server("10.0.0.1:80").InFlight())
		require.Len(t, f.done(), 20)
		for _, r := range f.done() {
			require.Equal(t, l4.ClientTimeout, r.Termination.Cause, "%v", r.Err)
		}
		// The connection itself is as good as before.
		c.ask(101, true, "/")
		require.NoError(t, c.WriteWindowUpdate(101, 1<<20))
		require.NoError(t, c.WriteWindowUpdate(0, 1<<20))
		c.read(time.Second, func() bool { return c.body[101] != nil && c.body[101].Len() == 1<<20 })
		require.Equal(t, 1<<20, c.body[101].Len())
	})
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// Uploads that a handler does not read do not hold up another one of the same
// connection.
func TestHTTP2StalledUploads(t *testing.T) {
	var block chan struct{}
	onHTTP2(t, new(l7.Server), func(n *l4test.Network) http.Handler {
		block = make(chan struct{})
		return l7.HandlerFunc(func(x *l7.Exchange) {
			if x.Path == "/stalled" {
				<-block
			}
			n, err := io.Copy(io.Discard, x.Body())
			x.Respond(200, nil, fmt.Sprint(n, err))
		})
	}, func(t *testing.T, f *front) {
		defer close(block)
		c := newH2Client(t, f.network)
		defer c.Close()
		for i := range uint32(90) {
			c.ask(2*i+1, false, "/stalled")
			for range 4 {
				require.NoError(t, c.WriteData(2*i+1, false, make([]byte, 1<<14-1)))
			}
		}
		c.ask(201, false, "/")
		for i := range 64 {
			// Within the window that it has: more is given as it is read.
			require.NoError(t, c.WriteData(201, i == 63, make([]byte, 1<<10)))
			synctest.Wait()
		}
		c.read(time.Second, func() bool { return c.ended[201] })
		require.Equal(t, "65536 <nil>", c.body[201].String())
		require.Empty(t, c.reset)
	})
}

// A long reply does not hold up a short one that comes behind it, and streams
// of equal urgency take turns.
func TestHTTP2Fairness(t *testing.T) {
	t.Run("one processor", func(t *testing.T) {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
		testFairness(t)
	})
	t.Run("all", testFairness)
}

func testFairness(t *testing.T) {
	onHTTP2(t, new(l7.Server), func(*l4test.Network) http.Handler {
		return l7.HandlerFunc(func(x *l7.Exchange) {
			n := 2 << 20
			if x.Path == "/short" {
				n = 100
			}
			x.Respond(200, nil, strings.Repeat("x", n))
		})
	}, func(t *testing.T, f *front) {
		c := newH2Client(t, f.network, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 22})
		require.NoError(t, c.WriteWindowUpdate(0, 1<<24))
		c.ask(1, true, "/long")
		c.ask(3, true, "/long")
		synctest.Wait() // the network is full
		c.ask(5, true, "/short")
		synctest.Wait() // it has come, or the long ones may be over before it is read
		c.read(time.Second, func() bool { return c.ended[5] })
		require.False(t, c.ended[1] || c.ended[3], "the short one was first")
		c.read(time.Second, func() bool { return c.ended[1] && c.ended[3] })
		swaps := 0
		for i := 1; i < len(c.order); i++ {
			if c.order[i] != c.order[i-1] {
				swaps++
			}
		}
		require.Greater(t, swaps, 20, "%v", c.order)
	})
}

// An urgent stream goes first (RFC 9218).
func TestHTTP2Urgency(t *testing.T) {
	onHTTP2(t, new(l7.Server), func(*l4test.Network) http.Handler { return bulk(2 << 20) }, func(t *testing.T, f *front) {
		c := newH2Client(t, f.network, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 22})
		require.NoError(t, c.WriteWindowUpdate(0, 1<<24))
		c.ask(1, true, "/", "priority", "u=5")
		c.ask(3, true, "/", "priority", "u=1")
		c.ask(5, true, "/")
		require.NoError(t, c.WriteRawFrame(0x10, 0, 0, append([]byte{0, 0, 0, 5}, "u=0"...)))
		synctest.Wait()
		c.read(time.Second, func() bool { return c.ended[1] && c.ended[3] && c.ended[5] })
		last := map[uint32]int{}
		for i, id := range c.order {
			last[id] = i
		}
		require.Less(t, last[5], last[3])
		require.Less(t, last[3], last[1])
	})
}

// Two GOAWAYs: the first lets in what is on its way, the second comes when the
// client has seen the first.
func TestHTTP2Shutdown(t *testing.T) {
	onHTTP2(t, new(l7.Server), func(*l4test.Network) http.Handler {
		return l7.HandlerFunc(func(x *l7.Exchange) {
			time.Sleep(3 * time.Second)
			x.Respond(200, nil, "late")
		})
	}, func(t *testing.T, f *front) {
		c := newH2Client(t, f.network)
		c.ask(1, true, "/")
		synctest.Wait()
		done := make(chan error)
		go func() { done <- f.server.Shutdown(context.Background()) }()
		c.read(100*time.Millisecond, func() bool { return len(c.pings) == 1 })
		require.Len(t, c.goAway, 1)
		require.EqualValues(t, 1<<31-1, c.goAway[0].LastStreamID)
		c.ask(3, true, "/") // was on its way
		require.NoError(t, c.WritePing(true, c.pings[0]))
		c.read(time.Second, func() bool { return len(c.goAway) == 2 })
		require.EqualValues(t, 3, c.goAway[1].LastStreamID)
		c.ask(5, true, "/") // and this one is not
		c.read(10*time.Second, nil)
		require.ErrorIs(t, c.err, io.EOF)
		require.Equal(t, "200 ", c.status[1])
		require.Equal(t, "200 ", c.status[3])
		require.Empty(t, c.status[5])
		require.NoError(t, <-done)
	})
}

// One that does not answer the PING is told all the same.
func TestHTTP2ShutdownWithoutPong(t *testing.T) {
	onHTTP2(t, new(l7.Server), func(*l4test.Network) http.Handler {
		return l7.HandlerFunc(func(x *l7.Exchange) {
			time.Sleep(3 * time.Second)
			x.Respond(200, nil, "late")
		})
	}, func(t *testing.T, f *front) {
		c := newH2Client(t, f.network)
		c.ask(1, true, "/")
		synctest.Wait()
		go func() { _ = f.server.Shutdown(context.Background()) }()
		c.read(10*time.Second, nil)
		require.ErrorIs(t, c.err, io.EOF)
		require.Len(t, c.goAway, 2)
		require.Equal(t, "200 ", c.status[1])
	})
}

// A connection without streams is told, and closed, in time; one that pings is
// not in use.
func TestHTTP2Idle(t *testing.T) {
	onHTTP2(t, &l7.Server{IdleTimeout: 8 * time.Second}, func(*l4test.Network) http.Handler { return bulk(1) }, func(t *testing.T, f *front) {
		c := newH2Client(t, f.network)
		for i := range uint32(3) {
			c.ask(2*i+1, true, "/")
			c.read(time.Second, func() bool { return c.ended[2*i+1] })
			time.Sleep(5 * time.Second) // long enough to be settled
		}
		start := time.Now()
		c.read(time.Minute, nil)
		require.ErrorIs(t, c.err, io.EOF)
		require.InDelta(t, 4, time.Since(start).Seconds(), 3)
		require.Equal(t, http2.ErrCodeNo, c.goAway[0].ErrCode)
	})
}

// A client that is as good as dead is found by PING while it has streams.
func TestHTTP2DeadClient(t *testing.T) {
	var ended chan time.Duration
	onHTTP2(t, &l7.Server{IdleTimeout: 20 * time.Second}, func(*l4test.Network) http.Handler {
		ended = make(chan time.Duration, 1)
		return l7.HandlerFunc(func(x *l7.Exchange) {
			start := time.Now()
			<-x.Context().Done()
			ended <- time.Since(start)
			x.Respond(200, nil, "late")
		})
	}, func(t *testing.T, f *front) {
		c := newH2Client(t, f.network)
		c.ask(1, true, "/")
		d := <-ended
		require.Greater(t, d, 34*time.Second)
		require.Less(t, d, 50*time.Second)
		synctest.Wait()
		require.Len(t, f.done(), 1)
		require.Equal(t, l4.ClientAborted, f.done()[0].Termination.Cause)
	})
}

// What a foreign handler gets over a stream.
func TestHTTP2ForeignHandler(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("/trailer", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Trailer", "X-Sum")
		_, _ = w.Write(body)
		w.Header().Set("X-Sum", r.Trailer.Get("X-T"))
		w.Header().Set(http.TrailerPrefix+"X-More", "1")
	})
	mux.HandleFunc("/short", func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "<html>short") })
	mux.HandleFunc("/flushed", func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		_, _ = io.WriteString(w, "one")
		_ = rc.Flush()
		time.Sleep(time.Second)
		_, _ = io.WriteString(w, "two")
	})
	mux.HandleFunc("/read-deadline", func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		_ = rc.SetReadDeadline(time.Now().Add(time.Second))
		_, err := io.ReadAll(r.Body)
		fmt.Fprint(w, errors.Is(err, os.ErrDeadlineExceeded))
	})
	mux.HandleFunc("/write-deadline", func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(time.Second))
		time.Sleep(2 * time.Second)
		_, _ = w.Write(make([]byte, 10_000))
	})
	mux.HandleFunc("/early", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</a>")
		w.WriteHeader(103)
		w.Header().Set("X-A", "b")
		w.WriteHeader(204)
	})
	mux.HandleFunc("/panic", func(w http.ResponseWriter, r *http.Request) { panic("oops") })
	mux.HandleFunc("/panic-late", func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write(make([]byte, 10_000))
		panic("oops")
	})
	mux.HandleFunc("/promise", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "10")
		_, _ = io.WriteString(w, "short")
	})
	mux.HandleFunc("/proto", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Proto, " ", r.URL, " ", r.Host, " ", r.RemoteAddr != "")
	})
	onHTTP2(t, &l7.Server{Logger: discardLog()}, fixed(mux), func(t *testing.T, f *front) {
		c := newH2Client(t, f.network)
		id := uint32(0)
		get := func(target string) uint32 {
			id += 2
			c.ask(id-1, true, target)
			c.read(5*time.Second, func() bool { _, reset := c.reset[id-1]; return c.ended[id-1] || reset })
			return id - 1
		}
		i := get("/short")
		require.Equal(t, "<html>short", c.body[i].String())
		require.Equal(t, "11", c.field(i, "content-length"))
		require.Equal(t, "text/html; charset=utf-8", c.field(i, "content-type"))
		require.NotEmpty(t, c.field(i, "date"))

		i = get("/flushed")
		require.Equal(t, "onetwo", c.body[i].String())
		require.Empty(t, c.field(i, "content-length"))

		i = get("/early")
		require.Equal(t, "103 204 ", c.status[i])
		require.Equal(t, "b", c.field(i, "x-a"))

		i = get("/panic")
		require.Equal(t, "500 ", c.status[i])
		i = get("/panic-late")
		require.Equal(t, "200 ", c.status[i])
		require.Equal(t, http2.ErrCodeInternal, c.reset[i])
		i = get("/promise")
		require.Equal(t, http2.ErrCodeInternal, c.reset[i])
		i = get("/write-deadline")
		require.Equal(t, http2.ErrCodeInternal, c.reset[i])
		i = get("/proto")
		require.Equal(t, "HTTP/2.0 /proto a.test true", c.body[i].String())

		id += 2
		c.ask(id-1, false, "/read-deadline", "content-length", "5")
		c.read(5*time.Second, func() bool { return c.ended[id-1] })
		require.Equal(t, "true", c.body[id-1].String())

		id += 2
		c.ask(id-1, false, "/trailer", "trailer", "x-t")
		require.NoError(t, c.WriteData(id-1, false, []byte("body")))
		c.buf.Reset()
		_ = c.enc.WriteField(hpack.HeaderField{Name: "x-t", Value: "seven"})
		_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: id - 1, BlockFragment: c.buf.Bytes(), EndHeaders: true, EndStream: true})
		c.read(5*time.Second, func() bool { return c.ended[id-1] })
		require.Equal(t, "body", c.body[id-1].String())
		require.Equal(t, "seven", c.field(id-1, "x-sum"))
		require.Equal(t, "1", c.field(id-1, "x-more"))
	})
}

// Floods end the connection with a code that says so, and what had been begun
// for it.
func TestHTTP2Floods(t *testing.T) {
	for name, flood := range map[string]func(c *h2Client){
		"rapid reset": func(c *h2Client) {
			for i := range uint32(1000) {
				c.ask(2*i+1, true, "/")
				_ = c.WriteRSTStream(2*i+1, http2.ErrCodeCancel)
			}
		},
		"pings": func(c *h2Client) {
			for range 5000 {
				_ = c.WritePing(false, [8]byte{1})
			}
		},
		"a head without an end": func(c *h2Client) {
			_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x82}})
			for range 1000 {
				_ = c.WriteContinuation(1, false, make([]byte, 1000))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			onHTTP2(t, new(l7.Server), func(*l4test.Network) http.Handler {
				return l7.HandlerFunc(func(x *l7.Exchange) { <-x.Context().Done() })
			}, func(t *testing.T, f *front) {
				c := newH2Client(t, f.network)
				c.mute = true
				go flood(c)
				c.read(5*time.Second, func() bool { return len(c.goAway) > 0 })
				require.NotEmpty(t, c.goAway)
				require.Equal(t, http2.ErrCodeEnhanceYourCalm, c.goAway[len(c.goAway)-1].ErrCode)
				_ = c.Close()
			})
		})
	}
}

// A bomb of references into the table costs a refusal, not memory (RFC 7541,
// section 7.3).
func TestHTTP2HeaderBomb(t *testing.T) {
	onHTTP2(t, new(l7.Server), func(*l4test.Network) http.Handler { return bulk(1) }, func(t *testing.T, f *front) {
		c := newH2Client(t, f.network)
		c.buf.Reset()
		for _, kv := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", "a"}, {":path", "/"}, {"x", strings.Repeat("a", 3900)}} {
			_ = c.enc.WriteField(hpack.HeaderField{Name: kv[0], Value: kv[1]})
		}
		for range 10_000 {
			c.buf.WriteByte(0x80 | 62) // the newest entry of the table
		}
		_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.buf.Bytes(), EndHeaders: true, EndStream: true})
		c.read(time.Second, func() bool { return c.ended[1] })
		require.Equal(t, "431 ", c.status[1])
		c.ask(3, true, "/")
		c.read(time.Second, func() bool { return c.ended[3] })
		require.Equal(t, "200 ", c.status[3])
	})
}

// A client that resets a stream while its body is being forwarded ends the
// request at the server at once.
func TestHTTP2ResetReachesServer(t *testing.T) {
	pool := new(balance.Pool)
	require.NoError(t, pool.Set(balance.Endpoint{Addr: "10.0.0.1:80"}))
	var up *l7.Upstream
	var gone chan error
	onHTTP2(t, new(l7.Server), func(n *l4test.Network) http.Handler {
		gone = make(chan error, 1)
		up = &l7.Upstream{Dial: n.DialContext}
		return &l7.Proxy{Pool: pool, Upstream: up}
	}, func(t *testing.T, f *front) {
		ln, err := f.network.Listen("tcp", "10.0.0.1:80")
		require.NoError(t, err)
		origin := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, err := io.Copy(io.Discard, r.Body)
			gone <- err
		})}
		go func() { _ = origin.Serve(ln) }()
		defer origin.Close()
		defer up.CloseIdle()
		c := newH2Client(t, f.network)
		c.ask(1, false, "/")
		require.NoError(t, c.WriteData(1, false, make([]byte, 1000)))
		synctest.Wait()
		start := time.Now()
		require.NoError(t, c.WriteRSTStream(1, http2.ErrCodeCancel))
		require.Error(t, <-gone)
		require.Less(t, time.Since(start), time.Millisecond)
		synctest.Wait()
		require.Equal(t, l4.ClientAborted, f.done()[0].Termination.Cause)
		require.Zero(t, pool.Server("10.0.0.1:80").InFlight())
	})
}
