// SPDX-License-Identifier: Apache-2.0

package health

import (
	"context"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/penstock-lb/penstock/balance"
)

// request makes the request, without what head adds.
func (p *HTTP) request(ctx context.Context, e balance.Endpoint) (*http.Request, error) {
	scheme := "http"
	if p.Connect.TLS != nil {
		scheme = "https"
	}
	host := p.Host
	if host == "" {
		host, _ = p.field("Host")
	}
	if host == "" {
		host = hostOf(e.Addr)
	}
	method, path := or(p.Method, http.MethodGet), or(p.Path, "/")
	target := path
	if method == http.MethodOptions && path == "*" {
		target = "/"
	}
	req, err := http.NewRequestWithContext(ctx, method, scheme+"://"+host+target, strings.NewReader(p.Body))
	if err != nil || target[0] != '/' || !p.validFields() {
		return nil, &Error{Code: CodeInternal, Step: "HTTP", Text: "the request cannot be made: " + printable(host+path), Err: err}
	}
	if target != path {
		req.URL = &url.URL{Scheme: scheme, Host: host, Path: "*"} // RFC 9110, section 9.3.7
	}
	if p.Body == "" {
		req.Body = http.NoBody
	}
	for f := range p.fields {
		if !strings.EqualFold(f.Name, "Host") {
			req.Header.Add(f.Name, f.Value)
		}
	}
	if _, ok := p.field("User-Agent"); !ok {
		req.Header.Set("User-Agent", "penstock")
	}
	return req, nil
}

// hostOf returns the Host of an endpoint's address: without the zone of an IPv6 address,
// which means nothing to the server (RFC 6874, section 4).
func hostOf(addr string) string {
	if strings.HasPrefix(addr, "unix:") {
		return "localhost"
	}
	if host, port, err := net.SplitHostPort(addr); err == nil && strings.Contains(host, ":") {
		host, _, _ = strings.Cut(host, "%")
		return net.JoinHostPort(host, port)
	}
	return addr
}

// fields yields those of Header, then Fields.
func (p *HTTP) fields(yield func(Field) bool) {
	for _, name := range slices.Sorted(maps.Keys(p.Header)) {
		for _, v := range p.Header[name] {
			if !yield(Field{name, v}) {
				return
			}
		}
	}
	for _, f := range p.Fields {
		if !yield(f) {
			return
		}
	}
}

// field returns the first value of a field that was given, and whether it was.
func (p *HTTP) field(name string) (string, bool) {
	for f := range p.fields {
		if strings.EqualFold(f.Name, name) {
			return f.Value, true
		}
	}
	return "", false
}

func (p *HTTP) validFields() bool {
	for f := range p.fields {
		if !httpguts.ValidHeaderFieldName(f.Name) || !httpguts.ValidHeaderFieldValue(f.Value) {
			return false
		}
	}
	return true
}

// head returns the request as HTTP/1.1 sends it, body included. Not by
// [http.Request.Write], which changes names and their order: some servers are probed
// because they care.
func (p *HTTP) head(req *http.Request) []byte {
	var b []byte
	line := func(name, value string) { b = append(append(append(append(b, name...), ": "...), value...), "\r\n"...) }
	own := func(name, value string) {
		if _, given := p.field(name); !given {
			line(name, value)
		}
	}
	b = append(b, req.Method+" "+req.URL.RequestURI()+" HTTP/1.1\r\n"...)
	line("Host", req.URL.Host)
	own("User-Agent", "penstock")
	own("Connection", "close")
	if p.Body != "" || req.Method == http.MethodPost || req.Method == http.MethodPut || req.Method == http.MethodPatch {
		own("Content-Length", strconv.Itoa(len(p.Body)))
	}
	for f := range p.fields {
		if !strings.EqualFold(f.Name, "Host") {
			line(f.Name, f.Value)
		}
	}
	return append(append(b, "\r\n"...), p.Body...)
}
