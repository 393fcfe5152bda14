// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"math"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/l7/l7test"
)

// A negative limit is none.
func TestNoLimits(t *testing.T) {
	h := l7.HandlerFunc(func(x *l7.Exchange) { x.Respond(200, nil, "ok") })
	synctest.Test(t, func(t *testing.T) {
		byteFront(t, fixed(h), &l7.Server{MaxFields: -1, MaxHeaderBytes: -1, MaxBodyBytes: -1}, func(t *testing.T, f *front) {
			c := f.dial(t).send(getA)
			c.wantReply(200, "ok")
			c.send("GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("X: "+strings.Repeat("y", 100)+"\r\n", 1000) + "\r\n")
			c.wantReply(200, "ok")
			c.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi").wantReply(200, "ok")
		})
	})
}

// The greatest numbers are no limits either, one by one and together.
func TestGreatestLimits(t *testing.T) {
	h := l7.HandlerFunc(func(x *l7.Exchange) { x.Respond(200, nil, "ok") })
	most := math.MaxInt
	for name, srv := range map[string]func() *l7.Server{
		"MaxFields":      func() *l7.Server { return &l7.Server{MaxFields: most} },
		"MaxHeaderBytes": func() *l7.Server { return &l7.Server{MaxHeaderBytes: most} },
		"MaxBodyBytes":   func() *l7.Server { return &l7.Server{MaxBodyBytes: math.MaxInt64} },
		"MaxRequests":    func() *l7.Server { return &l7.Server{MaxRequests: most} },
		"MaxConns":       func() *l7.Server { return &l7.Server{MaxConns: most} },
		"MaxStreams":     func() *l7.Server { return &l7.Server{MaxStreams: most} },
		"32768 streams":  func() *l7.Server { return &l7.Server{MaxStreams: 32_768} },
		"BusyStreams":    func() *l7.Server { return &l7.Server{BusyStreams: most} },
		"all": func() *l7.Server {
			return &l7.Server{MaxFields: most, MaxHeaderBytes: most, MaxBodyBytes: math.MaxInt64, MaxRequests: most, MaxConns: most, MaxStreams: most, BusyStreams: most}
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, version := range []string{"1", "h2c"} {
				synctest.Test(t, func(t *testing.T) {
					byteFront(t, fixed(h), srv(), func(t *testing.T, f *front) {
						tr := &http.Transport{Protocols: protocols(version), DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
							return f.network.DialContext(ctx, "tcp", siteAddr)
						}}
						defer tr.CloseIdleConnections()
						req, _ := http.NewRequest("POST", "http://a.test/", io.MultiReader(strings.NewReader("hi")))
						res, err := tr.RoundTrip(req)
						if err != nil {
							t.Fatalf("%s: %v", version, err)
						}
						b, err := io.ReadAll(res.Body)
						if res.Body.Close(); res.StatusCode != 200 || string(b) != "ok" || err != nil {
							t.Errorf("%s: %d %q, %v", version, res.StatusCode, b, err)
						}
					})
				})
			}
		})
	}
}

// What claims to say who the client was does not pass, whatever its length
// and spelling.
func TestForwardingFieldsAreDropped(t *testing.T) {
	fronts(t, proxyTo("10.0.0.1:80"), func(t *testing.T, f *front) {
		o := origin(t, f.network, "10.0.0.1:80")
		names := []string{"X-Forwarded-For", "x_forwarded_for", "X-FORWARDED-PROTO", "X-Forwarded-Client-Cert", "X-Forwarded-Some-Very-Long-Name-Of-A-Field", "X-Real-IP", "Forwarded"}
		var b strings.Builder
		for _, n := range names {
			b.WriteString(n + ": 6.6.6.6\r\n")
		}
		f.dial(t).send("GET / HTTP/1.1\r\nHost: a\r\n"+b.String()+"\r\n").wantReply(200, "ok")
		for _, fd := range o.Requests()[0].Header {
			if strings.Contains(fd.Value, "6.6.6.6") {
				t.Errorf("the server got %s: %s", fd.Name, fd.Value)
			}
		}
	})
}

// A reply that ends with the connection, and is cut, does not look complete
// over TLS: there is no close_notify.
func TestCutOverTLS(t *testing.T) {
	cert := selfSigned(t)
	synctest.Test(t, func(t *testing.T) {
		n := l4test.NewNetwork()
		origin(t, n, "10.0.0.1:80", l7test.Script{l7test.Send("HTTP/1.1 200 OK\r\n\r\nhello"), l7test.Wait(1), l7test.Reset()})
		ln, err := n.Listen("tcp", siteAddr)
		if err != nil {
			t.Fatal(err)
		}
		srv := &l7.Server{Handler: newProxy(n, "10.0.0.1:80"), TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}}, Logger: discardLog()}
		go srv.ServeTLS(ln, "", "")
		defer srv.Close()
		nc, err := n.DialContext(t.Context(), "tcp", siteAddr)
		if err != nil {
			t.Fatal(err)
		}
		c := tls.Client(nc, &tls.Config{InsecureSkipVerify: true})
		defer c.Close()
		io.WriteString(c, "GET / HTTP/1.0\r\n\r\n")
		b, err := io.ReadAll(c)
		if !bytes.HasSuffix(b, []byte("hello")) || err == nil {
			t.Errorf("read %q, %v; want an error", b, err)
		}
	})
}

// Close ends a connection in the middle of its TLS handshake.
func TestCloseDuringHandshake(t *testing.T) {
	cert := selfSigned(t)
	synctest.Test(t, func(t *testing.T) {
		n := l4test.NewNetwork()
		ln, err := n.Listen("tcp", siteAddr)
		if err != nil {
			t.Fatal(err)
		}
		srv := &l7.Server{Handler: http.NotFoundHandler(), TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}}, Logger: discardLog()}
		go srv.ServeTLS(ln, "", "")
		c, err := n.DialContext(t.Context(), "tcp", siteAddr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.Write([]byte{0x16, 3, 1})
		synctest.Wait()
		srv.Close()
	})
}
