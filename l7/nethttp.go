// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"context"
	"crypto/tls"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// newRequest builds a request for net/http.
func (x *Exchange) newRequest(ctx context.Context) *http.Request {
	r := new(http.Request)
	x.buildRequest(r, ctx)
	return r
}

// buildRequest is newRequest into an r that is there.
func (x *Exchange) buildRequest(r *http.Request, ctx context.Context) {
	major, minor := x.Proto()
	*r = http.Request{
		Method: x.Method, Proto: x.protoName(), ProtoMajor: major, ProtoMinor: minor,
		Header: make(http.Header, len(x.Header.list)), Host: x.Host,
		ContentLength: x.ContentLength, Body: http.NoBody,
		RemoteAddr: x.Remote.String(), RequestURI: x.Path + x.Query, TLS: x.TLS,
	}
	if x.ContentLength != 0 {
		r.Body = io.NopCloser(bodyReader{x})
	}
	if r.RequestURI == "" { // of CONNECT
		r.URL, r.RequestURI = &url.URL{Host: x.Host}, x.Host
	} else if u, err := url.ParseRequestURI(r.RequestURI); err == nil {
		r.URL = u
	} else {
		r.URL = &url.URL{Path: x.Path, RawQuery: strings.TrimPrefix(x.Query, "?")}
	}
	addFields(r.Header, &x.Header)
	*r = *r.WithContext(ctx)
}

// applyTo applies the exchange's edits to r. Connection fields stay as net/http
// has them. Body is the input of the filters.
func (x *Exchange) applyTo(r *http.Request, body io.Reader) {
	r.Method, r.Host, r.TLS = x.Method, x.Host, x.TLS
	if path, ok := strings.CutSuffix(r.RequestURI, x.Query); !ok || path != x.Path {
		target := x.Path + x.Query
		if u, err := url.ParseRequestURI(target); err == nil {
			r.URL.Path, r.URL.RawPath, r.URL.RawQuery = u.Path, u.RawPath, u.RawQuery
			r.RequestURI = target
		}
	}
	if x.Header.changed() {
		h := make(http.Header, len(r.Header))
		for name, values := range r.Header {
			if k := kindOf(name); k.owned() || k == kindExpect {
				h[name] = values
			}
		}
		addFields(h, &x.Header)
		r.Header = h
	}
	if len(x.filters) > 0 {
		r.Body, r.ContentLength = io.NopCloser(x.filtered(body)), x.ContentLength
		if r.Header["Content-Length"] != nil { // the map is that of a handler around
			r.Header = maps.Clone(r.Header)
			delete(r.Header, "Content-Length")
		}
	}
}

func addFields(h http.Header, f *Fields) {
	for i := range f.list {
		if fd := &f.list[i]; !fd.kind.owned() {
			name := http.CanonicalHeaderKey(fd.Name)
			h[name] = append(h[name], fd.Value)
		}
	}
}

// addrPort returns the address of a TCP connection, zero for any other.
func addrPort(a net.Addr) netip.AddrPort {
	switch a := a.(type) {
	case *net.TCPAddr:
		ap := a.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	case nil:
		return netip.AddrPort{}
	}
	ap, _ := netip.ParseAddrPort(a.String())
	return ap
}

// tlsState returns the TLS state of a connection after its handshake, nil if it
// is plain text.
func tlsState(c net.Conn) *tls.ConnectionState {
	t, ok := c.(interface{ ConnectionState() tls.ConnectionState })
	if !ok {
		return nil
	}
	st := t.ConnectionState()
	return &st
}
