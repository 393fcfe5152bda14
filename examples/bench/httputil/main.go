// SPDX-License-Identifier: Apache-2.0

// Httputil is httputil.ReverseProxy as a command, set for speed: what a Go programmer
// has without a library. Package bench measures it. As examples/proxy it is built with a
// profile of itself, which .ci/profile makes.
package main

import (
	"errors"
	"flag"
	"fmt"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/signal"
	"runtime/pprof"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

func main() {
	plain := flag.String("http", "", "serve HTTP/1.1 on `ADDR`")
	secure := flag.String("tls", "", "serve HTTP/1.1 and HTTP/2 over TLS on `ADDR`")
	cert, key := flag.String("cert", "", "PEM `FILE`"), flag.String("key", "", "PEM `FILE`")
	idle := flag.Int("idle", 512, "`NUMBER` of connections to a server that are kept")
	routes := flag.Int("routes", 0, "`NUMBER` of routes, /r0/ and on; 0 means one for all")
	var to []*url.URL
	flag.Func("to", "a server, `HOST:PORT`", func(s string) error {
		to = append(to, &url.URL{Scheme: "http", Host: s})
		return nil
	})
	file := flag.String("cpuprofile", "", "write a CPU profile of the run to `FILE`")
	flag.Parse()
	if *file != "" {
		if err := profile(*file); err != nil {
			log.Fatal(err)
		}
	}
	h := handler(to, *idle, *routes)
	failed := make(chan error)
	go func() { failed <- http.ListenAndServe(*plain, h) }()
	go func() { failed <- http.ListenAndServeTLS(*secure, *cert, *key, h) }()
	log.Fatal(<-failed)
}

// profile profiles the program until SIGTERM, and ends it then.
func profile(file string) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return errors.Join(err, f.Close())
	}
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM)
	go func() {
		<-end
		pprof.StopCPUProfile()
		if err := f.Close(); err != nil {
			log.Fatal(err)
		}
		os.Exit(0)
	}()
	return nil
}

// handler takes the servers in turn.
func handler(to []*url.URL, idle, routes int) http.Handler {
	var next atomic.Uint64
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to[next.Add(1)%uint64(len(to))])
			r.Out.Host = r.In.Host
			r.SetXForwarded()
		},
		Transport:  &http.Transport{MaxIdleConnsPerHost: idle, IdleConnTimeout: 5 * time.Minute, DisableCompression: true},
		BufferPool: &buffers{},
	}
	if routes == 0 {
		return proxy
	}
	mux := http.NewServeMux()
	for i := range routes {
		mux.Handle(fmt.Sprintf("/r%d/", i), proxy)
	}
	return mux
}

// buffers keeps those of ReverseProxy.
type buffers struct{ pool sync.Pool }

func (b *buffers) Get() []byte {
	if p, ok := b.pool.Get().(*[]byte); ok {
		return *p
	}
	return make([]byte, 32<<10)
}

func (b *buffers) Put(p []byte) { b.pool.Put(&p) }
