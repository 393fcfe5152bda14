// SPDX-License-Identifier: Apache-2.0

//go:build unix

package compress

import (
	"bytes"
	"io"
	"net"
	"net/http/httptest"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
)

// A wire is one connection to a gateway, in memory, that asks for the same each time and
// reads replies up to their end.
type wire struct {
	c   net.Conn
	ask []byte
	buf []byte
}

func (w *wire) get(b *testing.B) (n int) {
	if _, err := w.c.Write(w.ask); err != nil {
		b.Fatal(err)
	}
	at := 0
	for {
		n, err := w.c.Read(w.buf[at:])
		if err != nil {
			b.Fatal(err)
		}
		at += n
		if bytes.HasSuffix(w.buf[:at], []byte("\r\n0\r\n\r\n")) {
			return at
		}
	}
}

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// served starts a byte front over h, and a connection to it.
func served(b *testing.B, h *Replies, accept string) *wire {
	n := l4test.NewNetwork()
	ln, err := n.Listen("tcp", "10.0.0.1:80")
	if err != nil {
		b.Fatal(err)
	}
	srv := &l7.Server{Handler: h}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	c, err := n.DialContext(b.Context(), "tcp", "10.0.0.1:80")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = c.Close(); _ = srv.Close(); <-done })
	return &wire{c: c, ask: []byte("GET / HTTP/1.1\r\nHost: a.example\r\nAccept-Encoding: " + accept + "\r\n\r\n"), buf: make([]byte, 2<<20)}
}

// body answers with text.
func body(text []byte) l7.HandlerFunc {
	s := string(text)
	return func(x *l7.Exchange) {
		h := l7.MakeFields("Content-Type", "text/html")
		x.Respond(200, &h, s)
	}
}

// asItIs adds a filter that does nothing.
func asItIs(next l7.HandlerFunc) l7.HandlerFunc {
	return func(x *l7.Exchange) {
		x.OnReply(l7.ReplyFunc(func(_ *l7.Exchange, r *l7.Reply) { r.FilterBody(func(b io.Reader) io.Reader { return b }) }))
		next(x)
	}
}

// BenchmarkReplies compares the CPU of the compressor alone, of the filter of a body, and of
// a whole exchange over the byte front with its client, compressed and not.
func BenchmarkReplies(b *testing.B) {
	for _, size := range []int{10 << 10, 100 << 10, 1 << 20} {
		text := page(size)
		b.Run("plain/"+strconv.Itoa(size>>10)+"K", func(b *testing.B) {
			w := served(b, &Replies{Next: asItIs(body(text))}, "identity")
			measure(b, func() int { return w.get(b) })
		})
		for c := range codings {
			name := c.String() + "/" + strconv.Itoa(size>>10) + "K"
			b.Run("alone/"+name, func(b *testing.B) {
				h := &Replies{}
				e := h.compressor(c)
				measure(b, func() int {
					e.out.Reset()
					e.enc.Reset(&e.out)
					_, _ = e.enc.Write(text)
					_ = e.enc.Close()
					return e.out.Len()
				})
			})
			b.Run("filter/"+name, func(b *testing.B) {
				h := &Replies{}
				buf := make([]byte, 16<<10)
				measure(b, func() (sent int) {
					s := &stream{body: bytes.NewReader(text), c: h.compressor(c), pool: &h.pools[c]}
					for {
						n, err := s.Read(buf)
						if sent += n; err != nil {
							return sent
						}
					}
				})
			})
			b.Run("front/"+name, func(b *testing.B) {
				w := served(b, &Replies{Next: body(text)}, c.String())
				measure(b, func() int { return w.get(b) })
			})
		}
	}
}

func measure(b *testing.B, do func() int) {
	n := do()
	b.ReportAllocs()
	began := cpu()
	for b.Loop() {
		do()
	}
	b.ReportMetric(float64(cpu()-began)/float64(b.N), "cpu-ns/op")
	b.ReportMetric(float64(n), "sent-B")
}

// BenchmarkMemory reports the memory of a compressor that has seen 1 MiB, at the default
// level and at the highest.
func BenchmarkMemory(b *testing.B) {
	text := page(1 << 20)
	for name, h := range map[string]*Replies{"default": {}, "highest": {Zstd: 9, Brotli: 6, Gzip: 9}} {
		for c := range codings {
			b.Run(c.String()+"/"+name, func(b *testing.B) {
				var before, after runtime.MemStats
				kept := make([]*compressor, 8)
				for b.Loop() {
					clear(kept)
					runtime.GC()
					runtime.ReadMemStats(&before)
					for i := range kept {
						kept[i] = &compressor{enc: newEncoder(c, h.level(c))}
						kept[i].enc.Reset(&kept[i].out)
						_, _ = io.Copy(io.Discard, struct{ io.Reader }{&stream{body: bytes.NewReader(text), c: kept[i], pool: new(sync.Pool)}})
					}
					runtime.GC()
					runtime.ReadMemStats(&after)
				}
				b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(len(kept))/1024, "KiB")
				runtime.KeepAlive(kept)
			})
		}
	}
}

// BenchmarkDecide is what a reply costs that is looked at and goes out as it is, as an
// image does, beside one without Replies.
func BenchmarkDecide(b *testing.B) {
	heap := make([]byte, 64<<20) // a gateway's, so that what allocates pays no garbage collection every 4 MB
	defer runtime.KeepAlive(heap)
	for _, with := range []bool{false, true} {
		b.Run(strconv.FormatBool(with), func(b *testing.B) {
			h := &Replies{Next: l7.HandlerFunc(func(*l7.Exchange) {})}
			r := httptest.NewRequest("GET", "/", nil)
			r.Header.Set("Accept-Encoding", "gzip, deflate, br, zstd")
			to := &l7.Reply{Status: 200, ContentLength: 5000, Header: l7.MakeFields("Content-Type", "image/png", "Cache-Control", "public")}
			l7.ServeHTTP(l7.HandlerFunc(func(x *l7.Exchange) {
				h.once.Do(h.init)
				var last *reply // so that it is not on the stack
				b.ReportAllocs()
				for b.Loop() {
					if with {
						r := &reply{h: h}
						r.ask(&x.Header)
						r.EditReply(x, to)
						last = r
					}
				}
				runtime.KeepAlive(last)
				x.Respond(200, nil, "")
			}), httptest.NewRecorder(), r)
		})
	}
}
