// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
)

// certFor makes a certificate for names, signed by itself, and what trusts it.
func certFor(t *testing.T, names ...string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
		NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<32, 0), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, _ := x509.ParseCertificate(der)
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, roots
}

// A tcpOrigin is an http.Server on a network in memory.
type tcpOrigin struct {
	conns atomic.Int32 // accepted
	gone  atomic.Int32 // and closed
	srv   *http.Server
}

func (o *tcpOrigin) open() int32 { return o.conns.Load() - o.gone.Load() }

// startOrigin serves h at addr: over TLS if cfg is not nil, and HTTP/2 if two.
func startOrigin(t *testing.T, n *l4test.Network, addr string, cfg *tls.Config, two bool, h http.HandlerFunc) *tcpOrigin {
	t.Helper()
	ln, err := n.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	o := &tcpOrigin{}
	p := new(http.Protocols)
	p.SetHTTP1(true)
	p.SetHTTP2(two)
	p.SetUnencryptedHTTP2(two)
	o.srv = &http.Server{Handler: h, Protocols: p, TLSConfig: cfg, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0),
		ConnState: func(_ net.Conn, s http.ConnState) {
			switch s {
			case http.StateNew:
				o.conns.Add(1)
			case http.StateClosed:
				o.gone.Add(1)
			}
		}}
	if cfg != nil {
		go o.srv.ServeTLS(ln, "", "")
	} else {
		go o.srv.Serve(ln)
	}
	t.Cleanup(func() { o.srv.Close() })
	return o
}

func protocols(names ...string) *http.Protocols {
	p := new(http.Protocols)
	for _, n := range names {
		switch n {
		case "1":
			p.SetHTTP1(true)
		case "2":
			p.SetHTTP2(true)
		case "h2c":
			p.SetUnencryptedHTTP2(true)
		}
	}
	return p
}

// fetch does one request with tr and returns status, protocol and body.
func fetch(t *testing.T, tr *l7.Transport, url string) string {
	t.Helper()
	res, err := tr.RoundTrip(get(url))
	if err != nil {
		return "error: " + err.Error()
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return "error: " + err.Error()
	}
	return fmt.Sprintf("%d %s", res.StatusCode, b)
}

// What is spoken over TLS is the best of what both sides know.
func TestUpstreamALPN(t *testing.T) {
	for _, tc := range []struct {
		client []string // Protocols; nil means the default
		two    bool     // the server speaks HTTP/2
		want   string
	}{
		{nil, true, "200 HTTP/1.1"},
		{[]string{"1", "2"}, true, "200 HTTP/2.0"},
		{[]string{"1", "2"}, false, "200 HTTP/1.1"},
		{[]string{"2"}, true, "200 HTTP/2.0"},
		{[]string{"2"}, false, "error"},
	} {
		t.Run(fmt.Sprint(tc.client, tc.two), func(t *testing.T) {
			cert, roots := certFor(t, "api.test")
			withTransport(t, []string{one}, func(t *testing.T, n *l4test.Network, tr *l7.Transport) {
				o := startOrigin(t, n, one, &tls.Config{Certificates: []tls.Certificate{cert}}, tc.two, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Proto) })
				tr.Upstream.TLS = func(*balance.Server) *tls.Config {
					return &tls.Config{RootCAs: roots, ServerName: "api.test"}
				}
				if tc.client != nil {
					tr.Upstream.Protocols = protocols(tc.client...)
				}
				for range 3 {
					if got := fetch(t, tr, "https://api.test/"); !strings.HasPrefix(got, tc.want) {
						t.Errorf("got %q; want %q", got, tc.want)
					}
				}
				if c := o.conns.Load(); tc.want != "error" && c != 1 {
					t.Errorf("%d connections; want 1", c)
				}
			})
		})
	}
}

// A certificate that is not valid is not worked around: not in plain text, not
// by another server under the same name.
func TestUpstreamDistrust(t *testing.T) {
	cert, _ := certFor(t, "api.test")
	_, others := certFor(t, "api.test")
	for _, tc := range []struct {
		name  string
		conns int32 // that the second server gets
	}{
		{"api.test", 0},
		{"", 1}, // each under the name of its own address
	} {
		withTransport(t, []string{"a.test:443", "b.test:443"}, func(t *testing.T, n *l4test.Network, tr *l7.Transport) {
			var hits atomic.Int32
			cfg := &tls.Config{Certificates: []tls.Certificate{cert}}
			listen := map[string]string{"a.test:443": "10.0.0.1:443", "b.test:443": "10.0.0.2:443"}
			serve := func(w http.ResponseWriter, r *http.Request) { hits.Add(1) }
			startOrigin(t, n, "10.0.0.1:443", cfg, false, serve)
			b := startOrigin(t, n, "10.0.0.2:443", cfg, false, serve)
			tr.Upstream.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
				return n.DialContext(ctx, network, listen[addr])
			}
			tr.Upstream.TLS = func(*balance.Server) *tls.Config { return &tls.Config{RootCAs: others, ServerName: tc.name} }
			if got := fetch(t, tr, "https://x/"); !strings.Contains(got, "certificate") {
				t.Errorf("got %q; want an error about the certificate", got)
			}
			synctest.Wait()
			if hits.Load() != 0 || b.conns.Load() != tc.conns {
				t.Errorf("name %q: %d requests, %d connections to the second server; want 0, %d", tc.name, hits.Load(), b.conns.Load(), tc.conns)
			}
		})
	}
}

// Sessions are resumed and client certificates renewed, without being asked.
func TestUpstreamResumption(t *testing.T) {
	cert, roots := certFor(t, "api.test")
	withTransport(t, []string{one}, func(t *testing.T, n *l4test.Network, tr *l7.Transport) {
		startOrigin(t, n, one, &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequestClientCert}, false, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Connection", "close")
			fmt.Fprint(w, r.TLS.DidResume, " ", len(r.TLS.PeerCertificates))
		})
		var asked atomic.Int32
		tr.Upstream.TLS = func(*balance.Server) *tls.Config {
			return &tls.Config{RootCAs: roots, ServerName: "api.test", GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				asked.Add(1)
				return &cert, nil
			}}
		}
		for i, want := range []string{"200 false 1", "200 true 1", "200 true 1"} {
			if got := fetch(t, tr, "https://api.test/"); got != want {
				t.Errorf("request %d = %q; want %q", i, got, want)
			}
		}
		if asked.Load() == 0 {
			t.Error("nobody asked for the client certificate")
		}
	})
}

// Connections are shared only by requests for which they would be opened in
// the same way.
func TestUpstreamIdentity(t *testing.T) {
	cert, roots := certFor(t, "a.test", "b.test")
	for _, two := range []bool{false, true} {
		withTransport(t, []string{one}, func(t *testing.T, n *l4test.Network, tr *l7.Transport) {
			o := startOrigin(t, n, one, &tls.Config{Certificates: []tls.Certificate{cert}}, two, func(w http.ResponseWriter, r *http.Request) {
				io.WriteString(w, r.TLS.ServerName+" "+r.RemoteAddr)
			})
			tr.Upstream.TLS = func(*balance.Server) *tls.Config { return &tls.Config{RootCAs: roots} }
			tr.Upstream.TLSName = l7.HostOnly
			tr.Upstream.Protocols = protocols("1", "2")
			a := fetch(t, tr, "https://a.test/")
			b := fetch(t, tr, "https://b.test:8443/")
			if a2 := fetch(t, tr, "https://a.test:99/"); a2 != a || !strings.HasPrefix(a, "200 a.test ") {
				t.Errorf("a.test got %q, then %q", a, a2)
			}
			if b2 := fetch(t, tr, "https://b.test/"); b2 != b || !strings.HasPrefix(b, "200 b.test ") {
				t.Errorf("b.test got %q, then %q", b, b2)
			}
			if c := o.conns.Load(); c != 2 {
				t.Errorf("%d connections; want 2", c)
			}
		})
	}
}

// A PROXY header comes first on a connection, which is then only for requests
// of the same client.
func TestUpstreamProxyHeader(t *testing.T) {
	fronts(t, func(n *l4test.Network) http.Handler {
		p := newProxy(n, one)
		p.Upstream.ProxyHeader = func(x *l7.Exchange, _ *balance.Server) *l4.ProxyHeader {
			return &l4.ProxyHeader{Version: 1, Source: net.TCPAddrFromAddrPort(x.Remote), Destination: net.TCPAddrFromAddrPort(x.Local)}
		}
		return p
	}, func(t *testing.T, f *front) {
		ln, err := f.network.Listen("tcp", one)
		if err != nil {
			t.Fatal(err)
		}
		var conns sync.Map
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				b := make([]byte, 256)
				k, _ := c.Read(b)
				line, _, _ := strings.Cut(string(b[:k]), "\r\n")
				conns.Store(line, true)
				c.Close()
			}
		}()
		defer ln.Close()
		a, b := f.dial(t), f.dial(t)
		a.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").reply("GET")
		b.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").reply("GET")
		synctest.Wait()
		for _, c := range []*rawConn{a, b} {
			port := c.LocalAddr().(*net.TCPAddr).Port
			want := fmt.Sprintf("PROXY TCP4 192.0.2.1 192.0.2.80 %d 80", port)
			if _, ok := conns.Load(want); !ok {
				t.Errorf("no connection began with %q", want)
			}
		}
	})
}

// Many requests share a connection of HTTP/2; it goes when the server says so.
func TestUpstreamStreams(t *testing.T) {
	withTransport(t, []string{one}, func(t *testing.T, n *l4test.Network, tr *l7.Transport) {
		tr.Upstream.Protocols = protocols("h2c")
		gate := make(chan struct{})
		o := startOrigin(t, n, one, nil, true, func(w http.ResponseWriter, r *http.Request) {
			<-gate
			io.WriteString(w, r.Proto)
		})
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if got := fetch(t, tr, "http://api.test/"); got != "200 HTTP/2.0" {
					t.Errorf("got %q", got)
				}
			})
		}
		synctest.Wait()
		if c := o.conns.Load(); c != 1 {
			t.Errorf("%d connections for 50 requests; want 1", c)
		}
		go o.srv.Shutdown(t.Context()) // GOAWAY: what is under way ends well
		synctest.Wait()
		close(gate)
		wg.Wait()
	})
}

// A server that goes down loses its connections of HTTP/2, too.
func TestUpstreamStreamsCut(t *testing.T) {
	withTransport(t, []string{one}, func(t *testing.T, n *l4test.Network, tr *l7.Transport) {
		tr.Upstream.Protocols = protocols("h2c")
		o := startOrigin(t, n, one, nil, true, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/hang" {
				<-r.Context().Done()
			}
		})
		tr.Retry = l7.Retry{Tries: 1}
		s := tr.Pool.Server(one)
		var got string
		done := make(chan struct{})
		go func() { defer close(done); got = fetch(t, tr, "http://api.test/hang") }()
		synctest.Wait()
		s.Cut(true, "test")
		<-done
		if !strings.Contains(got, "server was cut: test") {
			t.Errorf("a cut request ended with %q", got)
		}
		if got := fetch(t, tr, "http://api.test/"); got != "200 " || o.conns.Load() != 2 {
			t.Errorf("then %q, over connection %d", got, o.conns.Load())
		}
	})
}
