// SPDX-License-Identifier: Apache-2.0

package l7test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// A Bypass is a request in a form that may get by a decision about access: of an odd
// method, with an encoded path, with fields that pass for others, and so on.
// [Bypasses] has them; a gateway must decide about each as about the plain one, or
// refuse it.
type Bypass struct {
	Name    string
	Method  string
	Target  string
	Proto   string // "HTTP/1.1", or "HTTP/1.0"
	Header  []Field
	Body    string
	Trailer []Field // goes with a body in chunks

	again bool // the request follows another one on its connection
}

// Bypasses returns the requests for a path, each with the fields given by name and
// value, such as credentials that are good or not. User is a field that the gateway
// tells servers the user in, such as X-User: the requests claim it, for "root".
func Bypasses(path, user string, fields ...string) []Bypass {
	var own []Field
	for i := 0; i+1 < len(fields); i += 2 {
		own = append(own, Field{fields[i], fields[i+1]})
	}
	var all []Bypass
	add := func(name string, change func(b *Bypass)) {
		b := Bypass{Name: name, Method: http.MethodGet, Target: path, Proto: "HTTP/1.1", Header: append([]Field(nil), own...)}
		change(&b)
		all = append(all, b)
	}
	with := func(name string, fields ...string) {
		add(name, func(b *Bypass) {
			for i := 0; i+1 < len(fields); i += 2 {
				b.Header = append(b.Header, Field{fields[i], fields[i+1]})
			}
		})
	}
	with("plain")
	for _, m := range []string{"HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "PRI", "get", "Get", "GETT", "X"} {
		add("method "+m, func(b *Bypass) { b.Method = m })
	}
	add("CONNECT", func(b *Bypass) { b.Method, b.Target = "CONNECT", "a.example:443" })
	add("OPTIONS *", func(b *Bypass) { b.Method, b.Target = "OPTIONS", "*" })
	add("body", func(b *Bypass) { b.Method, b.Body = "POST", "abc" })
	add("body of GET", func(b *Bypass) { b.Body = "abc" })
	add("HTTP/1.0", func(b *Bypass) { b.Proto = "HTTP/1.0" })
	add("HTTP/1.0 POST", func(b *Bypass) { b.Proto, b.Method, b.Body = "HTTP/1.0", "POST", "abc" })
	for _, t := range []string{"http://a.example" + path, "https://a.example" + path, "http://127.0.0.1" + path, "HTTP://A.EXAMPLE:80" + path} {
		add("absolute form "+t, func(b *Bypass) { b.Target = t })
	}
	for _, t := range encodings(path) {
		add("target "+t, func(b *Bypass) { b.Target = t })
	}
	add("behind another", func(b *Bypass) { b.again = true })

	with("empty Authorization", "Authorization", "")
	with("two lines of Authorization", "Authorization", "Basic Og==", "Authorization", "Bearer x")
	with("Authorization in capitals", "AUTHORIZATION", "BASIC Og==")
	with("Authorization without a value", "Authorization", "Basic")
	with("credentials for proxies", "Proxy-Authorization", "Basic cm9vdDpyb290")
	with("empty Cookie", "Cookie", "")
	with("two lines of Cookie", "Cookie", "session=", "Cookie", "session=x")
	with("websocket", "Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
	with("h2c", "Connection", "Upgrade, HTTP2-Settings", "Upgrade", "h2c", "HTTP2-Settings", "AAMAAABkAAQAoAAAAAIAAAAA")
	with("another upgrade", "Connection", "Upgrade", "Upgrade", "tls")
	with("early data", "Early-Data", "1")
	add("Expect", func(b *Bypass) {
		b.Method, b.Body, b.Header = "POST", "abc", append(b.Header, Field{"Expect", "100-continue"})
	})
	for _, name := range []string{"Authorization", "Cookie", user} {
		with("hop by hop "+name, "Connection", "close, "+name)
	}
	for _, name := range []string{"X-Forwarded-For", "X-Real-IP", "X-Forwarded-Host", "X-Client-IP", "True-Client-IP", "X_Forwarded_For"} {
		with(name, name, "127.0.0.1")
	}
	with("Forwarded", "Forwarded", "for=127.0.0.1;host=a.example;proto=https")
	for _, name := range []string{"X-Original-URL", "X-Rewrite-URL", "X-Forwarded-Uri", "X-Original-URI"} {
		with(name, name, "/")
	}
	with("override of the method", "X-HTTP-Method-Override", "OPTIONS", "X-Forwarded-Method", "OPTIONS")
	with("certificate as a field", "X-SSL-Client-Verify", "SUCCESS", "X-Forwarded-Client-Cert", "By=a;Subject=\"CN=root\"", "Client-Cert", ":AAAA:")

	dashed := strings.ReplaceAll(user, "-", "_")
	for _, name := range []string{user, strings.ToLower(user), strings.ToUpper(user), dashed, strings.ToLower(dashed)} {
		with("claims "+name, name, "root")
		with("claims "+name+" twice", name, "root", name, "root")
	}
	with("claims nothing", user, "")
	add("claims in a trailer", func(b *Bypass) {
		b.Method, b.Body, b.Trailer = "POST", "abc", []Field{{user, "root"}, {dashed, "root"}}
	})
	return all
}

// encodings are other ways to write a path.
func encodings(path string) []string {
	last := path[len(path)-1]
	head := path[:len(path)-1]
	return []string{
		path + "?", path + "?a=b", path + "/", path + "//", "/" + path, "/." + path, "/x/.." + path, "/x/%2e%2e" + path, "/x/%2E%2e" + path,
		"/%2e" + path, "/%2f" + path[1:], path + "/.", path + "/..", path + "/..;/", path + ";a=b", path + "%00", path + "%20", path + ".", path + "/%2e%2e/x",
		head + fmt.Sprintf("%%%02x", last), head + fmt.Sprintf("%%25%02x", last), strings.ToUpper(path), "/\\" + path[1:], path + "\\", path + "%5c", path + "%c0%af",
		path + "?" + path, path + "?access_token=x&access_token=",
	}
}

// HTTP1 sends the request to host over a connection, which it closes, and returns all
// that came back, within ten seconds.
func (b *Bypass) HTTP1(c net.Conn, host string) (string, error) {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	var w strings.Builder
	if b.again {
		w.WriteString("OPTIONS * HTTP/1.1\r\nHost: " + host + "\r\n\r\n")
	}
	w.WriteString(b.Method + " " + b.Target + " " + b.Proto + "\r\nHost: " + host + "\r\n")
	closes := true
	for _, f := range b.Header {
		w.WriteString(f.Name + ": " + f.Value + "\r\n")
		closes = closes && f.Name != "Connection"
	}
	if closes {
		w.WriteString("Connection: close\r\n")
	}
	switch {
	case len(b.Trailer) > 0:
		w.WriteString("Transfer-Encoding: chunked\r\n\r\n")
		fmt.Fprintf(&w, "%x\r\n%s\r\n0\r\n", len(b.Body), b.Body)
		for _, f := range b.Trailer {
			w.WriteString(f.Name + ": " + f.Value + "\r\n")
		}
		w.WriteString("\r\n")
	case b.Body != "":
		w.WriteString("Content-Length: " + strconv.Itoa(len(b.Body)) + "\r\n\r\n" + b.Body)
	default:
		w.WriteString("\r\n")
	}
	if _, err := io.WriteString(c, w.String()); err != nil {
		return "", err
	}
	if cw, ok := c.(interface{ CloseWrite() error }); ok && !closes {
		_ = cw.CloseWrite()
	}
	text, err := io.ReadAll(bufio.NewReader(c))
	return string(text), err
}

// Request returns the request as net/http sends it, over HTTP/2 too; ok is false if it
// cannot be sent so, as its form is one of HTTP/1.
func (b *Bypass) Request(host string) (r *http.Request, ok bool) {
	if b.again || b.Proto != "HTTP/1.1" || b.Method == http.MethodConnect || b.Target[0] != '/' || strings.HasPrefix(b.Target, "//") {
		return nil, false
	}
	path, query, _ := strings.Cut(b.Target, "?")
	r = &http.Request{
		Method: b.Method, Host: host, Header: make(http.Header), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		URL: &url.URL{Scheme: "http", Host: host, Opaque: path, RawQuery: query},
	}
	if b.Body != "" {
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader(b.Body)), int64(len(b.Body))
	}
	for _, f := range b.Header {
		switch f.Name {
		case "Connection", "Upgrade", "HTTP2-Settings", "Expect":
			return nil, false
		}
		if strings.TrimSpace(f.Value) != f.Value { // for which a server resets the stream, and net/http tries again for ever
			return nil, false
		}
		r.Header.Add(f.Name, f.Value)
	}
	for _, f := range b.Trailer {
		if r.Trailer == nil {
			r.Trailer = make(http.Header)
		}
		r.Trailer[http.CanonicalHeaderKey(f.Name)] = []string{f.Value}
		r.ContentLength = -1
	}
	return r, true
}
