// SPDX-License-Identifier: Apache-2.0

//go:build unix

package cpu

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/go-chi/chi/v5"
	"github.com/rs/cors"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l7"
)

// A tree is what stands around a Proxy, and the server that it is under.
type tree struct {
	name     string
	handler  func(p *l7.Proxy, origin string) http.Handler
	standard bool // under an http.Server
}

func trees() []tree {
	withCORS := cors.New(cors.Options{AllowedOrigins: []string{"http://a.test"}}).Handler
	traced := func(h http.Handler) http.Handler { return otelhttp.NewHandler(h, "proxy") }
	routed := func(h http.Handler) http.Handler {
		r := chi.NewRouter()
		r.Handle("/some/{name}", h)
		return r
	}
	around := func(wrap func(http.Handler) http.Handler) func(*l7.Proxy, string) http.Handler {
		return func(p *l7.Proxy, _ string) http.Handler { return wrap(p) }
	}
	inside := func(with func(http.Handler) http.Handler) func(*l7.Proxy, string) http.Handler {
		return func(p *l7.Proxy, _ string) http.Handler { return &l7.Wrap{With: with, Next: p} }
	}
	native := around(func(h http.Handler) http.Handler { return h })
	return []tree{
		{"native", native, false},
		{"Wrap(cors)", inside(withCORS), false},
		{"Wrap(CrossOriginProtection)", inside(http.NewCrossOriginProtection().Handler), false},
		{"Wrap(otelhttp)", inside(traced), false},
		{"Wrap(chi)", inside(routed), false},
		{"cors", around(withCORS), false},
		{"otelhttp", around(traced), false},
		{"chi", around(routed), false},
		{"http.Server/native", native, true},
		{"http.Server/cors", around(withCORS), true},
		{"http.Server/otelhttp", around(traced), true},
		{"http.Server/chi", around(routed), true},
		{"http.Server/ReverseProxy", func(_ *l7.Proxy, origin string) http.Handler {
			to := &url.URL{Scheme: "http", Host: origin}
			return &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to); r.SetXForwarded() }}
		}, true},
	}
}

// proxyVar says that this process is a proxy, and which tree it has; originVar has
// the address of the server behind it.
const (
	proxyVar  = "PENSTOCK_SAMEBYTES_TREE"
	originVar = "PENSTOCK_SAMEBYTES_ORIGIN"
)

func TestMain(m *testing.M) {
	for _, t := range trees() {
		if t.name == os.Getenv(proxyVar) {
			t.serve(os.Getenv(originVar))
			return
		}
	}
	m.Run()
}

// serve serves on one core. It prints its address, and the time that it has spent
// on the CPU for each line that it reads.
func (t tree) serve(origin string) {
	runtime.GOMAXPROCS(1)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(ln.Addr())
	pool := &balance.Pool{}
	if err := pool.Set(balance.Endpoint{Addr: origin}); err != nil {
		panic(err)
	}
	h := t.handler(&l7.Proxy{Pool: pool}, origin)
	go func() {
		if t.standard {
			_ = (&http.Server{Handler: h}).Serve(ln)
		} else {
			_ = (&l7.Server{Handler: h, Logger: slog.New(slog.DiscardHandler)}).Serve(ln)
		}
	}()
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		var u syscall.Rusage
		_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
		fmt.Println(u.Utime.Nano() + u.Stime.Nano())
	}
}

// Each tree serves what the benchmark asks for.
func TestTrees(t *testing.T) {
	origin := fixedOrigin(t)
	for _, tr := range trees() {
		t.Run(tr.name, func(t *testing.T) {
			startProxy(t, tr.name, origin).trip(t)
		})
	}
}

// BenchmarkProxyCPU is what a request by keep-alive costs the process of the proxy, in
// microseconds of CPU, user and system: with a tree of this library's handlers, with
// middleware of others in it by Wrap and without, all of it under an http.Server, and
// with the proxy of the standard library.
func BenchmarkProxyCPU(b *testing.B) {
	origin := fixedOrigin(b)
	for _, t := range trees() {
		b.Run(t.name, func(b *testing.B) {
			p := startProxy(b, t.name, origin)
			for range 500 {
				p.trip(b)
			}
			began := p.cpu(b)
			for b.Loop() {
				p.trip(b)
			}
			b.ReportMetric(float64(p.cpu(b)-began)/1e3/float64(b.N), "cpu-us/op")
			b.ReportMetric(0, "ns/op") // of three processes
		})
	}
}

// fixedOrigin is a server that sends the same reply for each request.
func fixedOrigin(b testing.TB) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = ln.Close() })
	reply := []byte("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 128\r\n\r\n" + strings.Repeat("x", 128))
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for buf := make([]byte, 4<<10); ; {
					if _, err := c.Read(buf); err != nil {
						return
					}
					if _, err := c.Write(reply); err != nil {
						return
					}
				}
			}()
		}
	}()
	return ln.Addr().String()
}

type proxy struct {
	conn net.Conn
	in   io.Writer
	out  *bufio.Reader
	buf  []byte
}

func startProxy(b testing.TB, name, origin string) *proxy {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), proxyVar+"="+name, originVar+"="+origin)
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = in.Close() // ends it
		_ = cmd.Wait()
	})
	p := &proxy{in: in, out: bufio.NewReader(out), buf: make([]byte, 4<<10)}
	var at string
	if _, err := fmt.Fscanln(p.out, &at); err != nil {
		b.Fatal(err)
	}
	if p.conn, err = net.Dial("tcp", at); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = p.conn.Close() })
	return p
}

// cpu returns the time that the proxy has spent, in nanoseconds.
func (p *proxy) cpu(b testing.TB) (ns int64) {
	if _, err := io.WriteString(p.in, "\n"); err != nil {
		b.Fatal(err)
	}
	if _, err := fmt.Fscanln(p.out, &ns); err != nil {
		b.Fatal(err)
	}
	return ns
}

func (p *proxy) trip(b testing.TB) {
	const req = "GET /some/path?q=1 HTTP/1.1\r\nHost: a.test\r\nUser-Agent: bench\r\nAccept: */*\r\nOrigin: http://a.test\r\n\r\n"
	if _, err := io.WriteString(p.conn, req); err != nil {
		b.Fatal(err)
	}
	for n := 0; ; {
		k, err := p.conn.Read(p.buf[n:])
		if err != nil {
			b.Fatal(err)
		}
		n += k
		if i := bytes.Index(p.buf[:n], []byte("\r\n\r\n")); i >= 0 && n >= i+4+128 {
			if !bytes.HasPrefix(p.buf, []byte("HTTP/1.1 200 ")) {
				b.Fatalf("%s", p.buf[:n])
			}
			return
		}
	}
}
