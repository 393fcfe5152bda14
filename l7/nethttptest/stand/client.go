// SPDX-License-Identifier: Apache-2.0

package stand

//lint:file-ignore SA1019 the tests set what is deprecated, too

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l7"
	"golang.org/x/net/idna"
)

// clients has the transports that stand in for each http.Transport.
type clients struct {
	mu sync.Mutex
	of map[*http.Transport]*client
}

// client has an l7.Transport for each server, as a pool is of one service.
type client struct {
	from *http.Transport
	of   map[string]*l7.Transport // by scheme and address
}

func (c *clients) get(t *http.Transport, scheme, addr string) *l7.Transport {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := c.of[t]
	if v == nil {
		v = &client{from: t, of: make(map[string]*l7.Transport)}
		c.of[t] = v
	}
	key := scheme + "://" + addr
	if v.of[key] == nil {
		v.of[key] = v.to(scheme, addr)
	}
	return v.of[key]
}

func (c *clients) roundTrip(t *http.Transport, r *http.Request, real func(*http.Request) (*http.Response, error)) (*http.Response, error) {
	if r.URL == nil || r.URL.Scheme != "http" && r.URL.Scheme != "https" || r.URL.Host == "" {
		return real(r)
	}
	host, port := r.URL.Hostname(), r.URL.Port()
	if a, err := idna.Lookup.ToASCII(host); err == nil {
		host = a
	}
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[r.URL.Scheme]
	}
	to := c.get(t, r.URL.Scheme, net.JoinHostPort(host, port))
	if !t.DisableKeepAlives {
		return to.RoundTrip(r)
	}
	last := *r
	last.Close = true
	resp, err := to.RoundTrip(&last)
	if resp != nil {
		resp.Request = r
	}
	return resp, err
}

func (c *clients) closeIdle(t *http.Transport) {
	c.mu.Lock()
	var all []*l7.Transport
	if v := c.of[t]; v != nil {
		for _, o := range v.of {
			all = append(all, o)
		}
	}
	c.mu.Unlock()
	for _, o := range all {
		o.CloseIdleConnections()
	}
}

// to makes a transport that does what the fields of the http.Transport say, where
// there is something of that kind.
func (v *client) to(scheme, addr string) *l7.Transport {
	t := v.from
	u := &l7.Upstream{Dial: v.dial(scheme), Protocols: v.protocols(), MaxIdle: t.MaxIdleConnsPerHost, IdleTimeout: t.IdleConnTimeout}
	if t.DisableKeepAlives {
		u.MaxIdle = -1
	}
	if scheme == "https" && t.DialTLSContext == nil && t.DialTLS == nil {
		u.TLS = func(*balance.Server) *tls.Config {
			if t.TLSClientConfig == nil {
				return new(tls.Config)
			}
			return t.TLSClientConfig.Clone()
		}
	}
	pool := &balance.Pool{}
	if err := pool.Set(balance.Endpoint{Addr: addr, MaxConns: t.MaxConnsPerHost}); err != nil {
		panic(err)
	}
	return &l7.Transport{Pool: pool, Upstream: u, HeaderTimeout: t.ResponseHeaderTimeout}
}

func (v *client) dial(scheme string) func(ctx context.Context, network, addr string) (net.Conn, error) {
	t := v.from
	switch {
	case scheme == "https" && t.DialTLSContext != nil:
		return t.DialTLSContext
	case scheme == "https" && t.DialTLS != nil:
		return func(_ context.Context, network, addr string) (net.Conn, error) { return t.DialTLS(network, addr) }
	case t.DialContext != nil:
		return t.DialContext
	case t.Dial != nil:
		return func(_ context.Context, network, addr string) (net.Conn, error) { return t.Dial(network, addr) }
	}
	return nil
}

func (v *client) protocols() *http.Protocols {
	t := v.from
	if t.Protocols != nil {
		return t.Protocols
	}
	p := new(http.Protocols)
	p.SetHTTP1(true)
	custom := t.TLSClientConfig != nil || t.Dial != nil || t.DialContext != nil || t.DialTLS != nil || t.DialTLSContext != nil
	p.SetHTTP2(t.ForceAttemptHTTP2 || t.TLSNextProto["h2"] != nil || t.TLSNextProto == nil && !custom)
	return p
}
