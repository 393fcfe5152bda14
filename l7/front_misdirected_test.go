// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
)

// perName asks for client certificates by name: of secure.test, and of
// other.test by another authority.
func perName(t *testing.T) *tls.Config {
	cert := selfSigned(t)
	pool, other := x509.NewCertPool(), x509.NewCertPool()
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	pool.AddCert(leaf)
	foreign, err := x509.ParseCertificate(selfSigned(t).Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	other.AddCert(foreign)
	base := &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2", "http/1.1"}}
	verified := base.Clone()
	verified.ClientAuth, verified.VerifyConnection = tls.RequireAnyClientCert, func(tls.ConnectionState) error { return nil }
	base.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		if h.Conn.RemoteAddr() == nil || len(h.SupportedVersions) == 0 {
			return nil, errors.New("not a hello")
		}
		c := base.Clone()
		c.GetConfigForClient = nil
		switch h.ServerName {
		case "secure.test", "also-secure.test":
			c.ClientAuth, c.ClientCAs = tls.RequireAnyClientCert, pool
		case "verified.test", "also-verified.test":
			return verified, nil
		case "copied.test": // whose func may be another
			return verified.Clone(), nil
		case "other.test":
			c.ClientAuth, c.ClientCAs = tls.RequireAnyClientCert, other
		case "broken.test":
			return nil, errors.New("no such name")
		case "panic.test":
			panic("boom")
		case "open.test":
			return nil, nil // as it is
		}
		return c, nil
	}
	return base
}

// ask asks over TLS for host, on a connection for sni.
func askTLS(t *testing.T, n *l4test.Network, two bool, sni, host string, more ...string) (status []int) {
	t.Helper()
	conf := &tls.Config{InsecureSkipVerify: true, ServerName: sni, Certificates: []tls.Certificate{selfSigned(t)}}
	tr := &http.Transport{DialContext: newFrontOn(n).dialContext, Protocols: protocols("1"), TLSClientConfig: conf}
	if two {
		tr.Protocols = protocols("2")
	}
	defer tr.CloseIdleConnections()
	for _, h := range append([]string{host}, more...) {
		url := "https://" + sni + "/"
		if sni == "" {
			url = "https://192.0.2.80/" // for which net/http sends none
		}
		req, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = h
		res, err := tr.RoundTrip(req)
		if err != nil {
			t.Errorf("%s for %s: %v", sni, h, err)
			return nil
		}
		_, _ = io.Copy(io.Discard, res.Body)
		res.Body.Close()
		status = append(status, res.StatusCode)
	}
	return status
}

// A client certificate that is asked of the clients of one name is not got
// around by asking for another name in the handshake.
func TestClientCertificateIsNotEvadedByName(t *testing.T) {
	for _, tc := range []struct {
		sni, host string
		want      int
	}{
		{"open.test", "open.test", 200},
		{"open.test", "OPEN.test.:443", 200},
		{"open.test", "another.test", 200},
		{"open.test", "secure.test", 421},
		{"open.test", "SECURE.test:443", 421},
		{"open.test", "secure.test.", 421},
		{"open.test", "broken.test", 421},
		{"open.test", "panic.test", 421},
		{"", "secure.test", 421},
		{"", "open.test", 200},
		{"", "192.0.2.80", 200},
		{"open.test", "192.0.2.80", 200},
		{"secure.test", "secure.test", 200},
		{"secure.test", "open.test", 200},
		{"secure.test", "also-secure.test", 200},
		{"secure.test", "other.test", 421},
		{"verified.test", "also-verified.test", 200},
		{"verified.test", "copied.test", 421},
	} {
		for _, two := range []bool{false, true} {
			for _, foreign := range []bool{false, true} {
				synctest.Test(t, func(t *testing.T) {
					n := l4test.NewNetwork()
					ln, err := n.Listen("tcp", siteAddr)
					if err != nil {
						t.Fatal(err)
					}
					srv := &l7.Server{TLSConfig: perName(t), Logger: discardLog(), Handler: l7.HandlerFunc(func(x *l7.Exchange) { x.Respond(200, nil, "ok") })}
					if foreign {
						srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })
					}
					done := make(chan error, 1)
					go func() { done <- srv.ServeTLS(ln, "", "") }()
					// Three on one connection: a 421 does not end it, nor is it forgotten.
					own := cmpHost(tc.sni)
					got := append(askTLS(t, n, two, tc.sni, tc.host, tc.host, own), askTLS(t, n, two, tc.sni, own, tc.host, own)...)
					if want := []int{tc.want, tc.want, 200, 200, tc.want, 200}; !slices.Equal(got, want) {
						t.Errorf("SNI %q, Host %q, HTTP/2 %v, foreign %v: %v; want %v", tc.sni, tc.host, two, foreign, got, want)
					}
					synctest.Wait()
					_ = srv.Close()
					<-done
					time.Sleep(time.Second)
				})
			}
		}
	}
}

func cmpHost(sni string) string {
	if sni == "" {
		return "192.0.2.80"
	}
	return sni
}

// AnyHost and a configuration for all leave it to the host.
func TestMisdirectedIsNotAskedForInVain(t *testing.T) {
	for name, change := range map[string]func(s *l7.Server){
		"AnyHost":           func(s *l7.Server) { s.AnyHost = true },
		"one configuration": func(s *l7.Server) { s.TLSConfig.GetConfigForClient = nil },
		"one for all requests": func(s *l7.Server) {
			s.TLSConfig.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return nil, nil }
		},
	} {
		for _, two := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n := l4test.NewNetwork()
					ln, err := n.Listen("tcp", siteAddr)
					if err != nil {
						t.Fatal(err)
					}
					srv := &l7.Server{TLSConfig: perName(t), Logger: discardLog(), Handler: l7.HandlerFunc(func(x *l7.Exchange) { x.Respond(200, nil, "ok") })}
					change(srv)
					done := make(chan error, 1)
					go func() { done <- srv.ServeTLS(ln, "", "") }()
					if got := askTLS(t, n, two, "open.test", "secure.test"); len(got) != 1 || got[0] != 200 {
						t.Errorf("= %v", got)
					}
					synctest.Wait()
					_ = srv.Close()
					<-done
					time.Sleep(time.Second)
				})
			})
		}
	}
}

// Misdirected is the same by choice, on an http.Server too.
func TestMisdirected(t *testing.T) {
	h := &l7.Misdirected{Next: l7.HandlerFunc(func(x *l7.Exchange) { x.Respond(200, nil, "ok") })}
	wild := &l7.Misdirected{Next: h.Next, Same: func(sni, host string) bool {
		return strings.HasSuffix(sni, ".a.test") && strings.HasSuffix(host, ".a.test")
	}}
	for _, tc := range []struct {
		h         *l7.Misdirected
		sni, host string
		want      int
	}{
		{h, "a.test", "a.test", 200},
		{h, "a.test", "A.test:8443", 200},
		{h, "a.test", "b.test", 421},
		{h, "", "b.test", 421},
		{h, "", "192.0.2.80", 200},
		{wild, "x.a.test", "Y.a.test", 200},
		{wild, "x.a.test", "b.test", 421},
	} {
		for _, two := range []bool{false, true} {
			for _, host := range []bool{false, true} {
				synctest.Test(t, func(t *testing.T) {
					n := l4test.NewNetwork()
					ln, err := n.Listen("tcp", siteAddr)
					if err != nil {
						t.Fatal(err)
					}
					cfg := &tls.Config{Certificates: []tls.Certificate{selfSigned(t)}}
					done := make(chan error, 1)
					var stop func() error
					if host {
						srv := &http.Server{Handler: tc.h, TLSConfig: cfg, ErrorLog: quietLog()}
						stop = srv.Close
						go func() { done <- srv.ServeTLS(ln, "", "") }()
					} else {
						srv := &l7.Server{Handler: tc.h, TLSConfig: cfg, Logger: discardLog()}
						stop = srv.Close
						go func() { done <- srv.ServeTLS(ln, "", "") }()
					}
					if got := askTLS(t, n, two, tc.sni, tc.host); len(got) != 1 || got[0] != tc.want {
						t.Errorf("SNI %q, Host %q, HTTP/2 %v, http.Server %v: %v; want %d", tc.sni, tc.host, two, host, got, tc.want)
					}
					synctest.Wait()
					_ = stop()
					<-done
					time.Sleep(time.Second)
				})
			}
		}
	}
	fronts(t, fixed(h), func(t *testing.T, f *front) {
		f.dial(t).send("GET / HTTP/1.1\r\nHost: b\r\n\r\n").wantReply(200, "ok") // no TLS
	})
}
