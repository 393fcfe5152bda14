// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"cmp"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/url"

	"github.com/penstock-lb/penstock"
	"github.com/penstock-lb/penstock/balance"
)

// To returns a handler that forwards to the server of a URL, or to those of
// several that differ in host and port only:
//
//	http.Handle("/", l7.To("https://a.example/base"))
//
// It is short for these literals, with the values of that URL:
//
//	pool := &balance.Pool{Name: "a.example"}
//	err := pool.Set(balance.Endpoint{Name: "a.example", Addr: "a.example:443"})
//	...
//	&l7.Rewrite{
//		AddPrefix: "/base",     // the path of the URL
//		Host:      "a.example", // of a single URL; left out to keep the client's Host
//		Next: &l7.Proxy{
//			Pool: pool,
//			Upstream: &l7.Upstream{ // of https: verified TLS
//				TLS: func(*balance.Server) *tls.Config { return new(tls.Config) },
//			},
//		},
//	}
//
// With one URL, its host replaces the Host of the request. To keep the client's Host,
// write the literals without Rewrite.Host. With several URLs the client's Host is kept,
// since the servers do the same work.
//
// Make the handler once, and not for each request: it has a pool and connections.
//
// A URL is http or https, with a host, and without user, query and fragment. Check
// finds what is wrong with the URLs, as it does with a literal: [Server.Serve] returns
// it, and without a Server requests are answered 500.
func To(urls ...string) Handler {
	t := new(forwarder)
	var m penstock.Mistakes
	m.If(len(urls) == 0, "To.URLs", urls, "must be one URL or more")
	var first *url.URL
	var endpoints []balance.Endpoint
	for i, s := range urls {
		field := fmt.Sprintf("To.URLs[%d]", i)
		u, ok := parseServerURL(s)
		m.If(!ok, field, s, "must be a URL of http or https with a host, and with a path at most")
		if first == nil {
			first = u
		}
		m.If(ok && (u.Scheme != first.Scheme || u.EscapedPath() != first.EscapedPath()), field, s, "must have the scheme and the path of the first one")
		if ok {
			port := map[string]string{"http": "80", "https": "443"}[u.Scheme]
			endpoints = append(endpoints, balance.Endpoint{Name: u.Host, Addr: net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), port))})
		}
	}
	if t.bad = m.Err(); t.bad != nil {
		return t
	}
	pool := &balance.Pool{Name: first.Host}
	if t.bad = pool.Set(endpoints...); t.bad != nil {
		return t
	}
	up := new(Upstream)
	if first.Scheme == "https" {
		up.TLS = func(*balance.Server) *tls.Config { return new(tls.Config) }
	}
	t.to = Rewrite{AddPrefix: first.EscapedPath(), Next: &Proxy{Pool: pool, Upstream: up}}
	if len(urls) == 1 {
		t.to.Host = first.Host
	}
	return t
}

// parseServerURL parses the URL of a server; ok is false if it is not one.
func parseServerURL(s string) (*url.URL, bool) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || !validHost(u.Host) ||
		u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || u.Path != "" && !pathOK(u.EscapedPath()) {
		return nil, false
	}
	return u, true
}

// forwarder is the handler of To.
type forwarder struct {
	to  Rewrite
	bad error // what is wrong with the URLs; nil if nothing is

	checked
}

// ServeExchange implements [Handler].
func (t *forwarder) ServeExchange(x *Exchange) {
	if t.bad != nil {
		x.misconfigured(t.bad)
		return
	}
	t.to.ServeExchange(x)
}

// ServeHTTP implements [http.Handler].
func (t *forwarder) ServeHTTP(w http.ResponseWriter, r *http.Request) { ServeHTTP(t, w, r) }

// Check returns what is wrong with the URLs.
func (t *forwarder) Check() error { return checkAll(t) }

func (t *forwarder) check(c *checks) {
	if c.Add("", t.bad); t.bad == nil {
		c.in("To", &t.to)
	}
}
