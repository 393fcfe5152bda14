// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l7"
)

// benchHTTP2 sends requests over one connection of HTTP/2, streams of them at a
// time.
func benchHTTP2(b *testing.B, streams int, serve func(net.Listener) error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	go serve(ln)
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		b.Fatal(err)
	}
	var out, block bytes.Buffer
	fr := http2.NewFramer(&out, c)
	fr.SetReuseFrames()
	fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20})
	enc := hpack.NewEncoder(&block)
	id, done := uint32(1), 0
	round := func() {
		for range streams {
			block.Reset()
			for _, f := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", "example.com"}, {":path", "/some/path?q=1"}, {"user-agent", "bench"}, {"accept", "*/*"}} {
				enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
			}
			fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: true})
			id += 2
		}
		if _, err := c.Write(out.Bytes()); err != nil {
			b.Fatal(err)
		}
		out.Reset()
		for ended := 0; ended < streams; {
			f, err := fr.ReadFrame()
			if err != nil {
				b.Fatal(err)
			}
			switch f := f.(type) {
			case *http2.SettingsFrame:
				if !f.IsAck() {
					fr.WriteSettingsAck()
				}
			case *http2.DataFrame:
				if f.StreamEnded() {
					ended++
				}
			case *http2.RSTStreamFrame, *http2.GoAwayFrame:
				b.Fatal(f)
			}
		}
		if done++; done%8 == 0 {
			fr.WriteWindowUpdate(0, uint32(streams*8*128))
		}
	}
	round()
	b.ReportAllocs()
	for b.Loop() {
		round()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*streams), "ns/req")
}

// BenchmarkProxyHTTP2 is BenchmarkProxyKeepAlive over HTTP/2: one stream after
// the other, and 32 at a time. At most three allocations a request.
func BenchmarkProxyHTTP2(b *testing.B) {
	for _, streams := range []int{1, 32} {
		b.Run(map[int]string{1: "one", 32: "many"}[streams], func(b *testing.B) { benchProxyHTTP2(b, streams) })
	}
}

func benchProxyHTTP2(b *testing.B, streams int) {
	pool := &balance.Pool{}
	if err := pool.Set(balance.Endpoint{Addr: fixedOrigin(b)}); err != nil {
		b.Fatal(err)
	}
	srv := &l7.Server{Handler: &l7.Proxy{Pool: pool}, OnDone: func(*l7.Record) {}}
	defer srv.Close()
	benchHTTP2(b, streams, srv.Serve)
}

// BenchmarkHTTP2ToHTTP2 has HTTP/2 on both sides, as gRPC does.
func BenchmarkHTTP2ToHTTP2(b *testing.B) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	origin := &l7.Server{Handler: l7.HandlerFunc(func(x *l7.Exchange) { x.Respond(http.StatusOK, nil, "ok") })}
	defer origin.Close()
	go origin.Serve(ln)
	pool := &balance.Pool{}
	if err := pool.Set(balance.Endpoint{Addr: ln.Addr().String()}); err != nil {
		b.Fatal(err)
	}
	up := &l7.Upstream{Protocols: new(http.Protocols)}
	up.Protocols.SetUnencryptedHTTP2(true)
	defer up.CloseIdle()
	srv := &l7.Server{Handler: &l7.Proxy{Pool: pool, Upstream: up}, OnDone: func(*l7.Record) {}}
	defer srv.Close()
	benchHTTP2(b, 32, srv.Serve)
}
