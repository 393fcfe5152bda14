// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/tls"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4"
)

// A Front is one port for many names.
type Front struct {
	Pass         map[string]string // name, or *.name, to the server that has its certificate
	Certificates l4.Certificates   // of the names that end here; may be replaced at any time
	Dial         l4.DialFunc       // nil means the network
}

// web is the HTTP server behind the names that end here.
func (f *Front) web() *http.Server {
	return &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil {
			http.Redirect(w, r, "https://"+r.Host+r.RequestURI, http.StatusPermanentRedirect)
			return
		}
		fmt.Fprintf(w, "%s is served here, to %s\n", r.Host, r.RemoteAddr)
	})}
}

// router decides by the first bytes of a connection; what ends here comes out
// of local.
func (f *Front) router(local *l4.Listener) (*l4.Router, error) {
	r := new(l4.Router)
	// Names come before wildcards, as * sorts before letters and digits.
	for _, name := range slices.Backward(slices.Sorted(maps.Keys(f.Pass))) {
		pool := &balance.Pool{Name: name}
		if err := pool.Set(balance.Endpoint{Addr: f.Pass[name]}); err != nil {
			return nil, err
		}
		r.Routes = append(r.Routes, l4.Route{Match: l4.SNI(name), Handler: &l4.Proxy{Pool: pool, Dial: f.Dial}})
	}
	config := &tls.Config{GetCertificate: f.Certificates.Get, NextProtos: []string{"h2", "http/1.1"}}
	r.Routes = append(r.Routes,
		l4.Route{Match: l4.TLS, Handler: &l4.TerminateTLS{Config: config, Next: local}},
		l4.Route{Match: l4.HTTP1, Handler: local},
	)
	return r, nil
}
