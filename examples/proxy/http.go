// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/tls"
	"net"
	"net/http"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l7"
)

// httpFronts returns the fronts of -http and -tls. They share their connections
// to the servers.
func (o *Options) httpFronts(pool *balance.Pool) []front {
	var all []front
	handler := o.handler(pool)
	config := l4.ListenConfig{DeferAccept: time.Second} // as ListenAndServe
	if o.HTTP != "" {
		s := o.httpServer(handler)
		all = append(all, front{flag: "-http", addr: o.HTTP, config: config, server: s, serve: s.Serve})
	}
	if o.TLS != "" {
		s := o.httpServer(handler)
		all = append(all, front{flag: "-tls", addr: o.TLS, config: config, server: s, serve: func(ln net.Listener) error {
			return s.ServeTLS(ln, o.Cert, o.Key)
		}})
	}
	return all
}

// handler forwards every request to the pool.
func (o *Options) handler(pool *balance.Pool) http.Handler {
	proxy := &l7.Proxy{Pool: pool, Upstream: o.upstream(), HeaderTimeout: o.Timeout, BodyTimeout: o.Timeout, StreamTimeout: o.Timeout}
	if _, hashes := policyOf(o.Balance); !hashes {
		return proxy
	}
	return l7.HandlerFunc(func(x *l7.Exchange) {
		x.Balance.Key = balance.HashAddr(x.Client)
		l7.Serve(proxy, x)
	})
}

// An httpServer is a *l7.Server or a *http.Server: their methods are the same.
type httpServer interface {
	server
	Serve(net.Listener) error
	ServeTLS(ln net.Listener, cert, key string) error
}

func (o *Options) httpServer(h http.Handler) httpServer {
	if o.Front == "byte" {
		return &l7.Server{Handler: h, ReadHeaderTimeout: o.Timeout, BodyTimeout: o.Timeout,
			SendTimeout: o.Timeout, IdleTimeout: o.Timeout, StreamTimeout: o.Timeout}
	}
	var p http.Protocols
	p.SetHTTP1(true)
	p.SetHTTP2(true)
	p.SetUnencryptedHTTP2(true)
	// curl --http1.0 offers nothing but the last.
	offer := &tls.Config{NextProtos: []string{"h2", "http/1.1", "http/1.0"}}
	return &http.Server{Handler: h, Protocols: &p, TLSConfig: offer, MaxHeaderBytes: 32 << 10, ReadHeaderTimeout: o.Timeout, IdleTimeout: o.Timeout}
}
