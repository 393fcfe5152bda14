// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/penstock-lb/penstock/l7"
)

// An authority is Pebble, the test server of Let's Encrypt, which validates as that does:
// it looks names up, and connects to the ports of the challenges.
type authority struct {
	directory string
	tls       *x509.CertPool // of the directory
	roots     *x509.CertPool // of the certificates
}

// newAuthority starts Pebble. All names lead to loopback.
func newAuthority(t *testing.T, httpPort, httpsPort int) authority {
	t.Helper()
	t.Setenv("PEBBLE_VA_NOSLEEP", "1")
	t.Setenv("PEBBLE_WFE_NONCEREJECT", "0")
	ln, _ := listen(t)
	resolver := &dns.Server{Listener: ln, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		a := new(dns.Msg)
		a.SetReply(q)
		if q.Question[0].Qtype == dns.TypeA {
			a.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.IPv4(127, 0, 0, 1)}}
		}
		_ = w.WriteMsg(a)
	})}
	go resolver.ActivateAndServe()
	t.Cleanup(func() { _ = resolver.Shutdown() })

	quiet, store := log.New(io.Discard, "", 0), db.NewMemoryStore()
	issuer := ca.New(quiet, store, "", "ecdsa", 0, 1, map[string]ca.Profile{"default": {}})
	checks := va.New(quiet, httpPort, httpsPort, true, ln.Addr().String(), store)
	front := wfe.New(quiet, store, checks, issuer, []string{"pebble.test"}, true, false, 0, 0)
	server := httptest.NewTLSServer(front.Handler())
	t.Cleanup(server.Close)
	a := authority{server.URL + wfe.DirectoryPath, x509.NewCertPool(), x509.NewCertPool()}
	a.tls.AddCert(server.Certificate())
	a.roots.AddCert(issuer.GetRootCert(0).Cert)
	return a
}

func listen(t *testing.T) (net.Listener, int) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { ln.Close() })
	return ln, ln.Addr().(*net.TCPAddr).Port
}

// Each challenge alone is enough for a certificate, which is kept for the next start.
func TestACME(t *testing.T) {
	for _, tt := range []struct {
		name                     string
		withoutHTTP, withoutALPN bool
	}{{"HTTP-01", false, true}, {"TLS-ALPN-01", true, false}} {
		t.Run(tt.name, func(t *testing.T) {
			web, webPort := listen(t)
			api, apiPort := listen(t)
			a := newAuthority(t, webPort, apiPort)
			g := &Gateway{
				Names: []string{"www.example.test"}, Handler: l7.HandlerFunc(func(x *l7.Exchange) { x.Respond(200, nil, "hello") }),
				Email: "admin@example.test", Directory: a.directory, Roots: a.tls, Dir: t.TempDir(), Logger: zap.NewNop(), WithoutHTTP: tt.withoutHTTP, WithoutALPN: tt.withoutALPN,
			}
			stop := start(t, g, web, api)
			resp := get(t, a, api)
			require.Equal(t, "HTTP/2.0", resp.Proto)
			serial := resp.TLS.PeerCertificates[0].SerialNumber
			require.True(t, time.Until(resp.TLS.PeerCertificates[0].NotAfter) > time.Hour)

			plain := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
			r, err := http.NewRequest("GET", "http://"+web.Addr().String()+"/a?b", nil)
			require.NoError(t, err)
			r.Host = "www.example.test"
			redirect, err := plain.Do(r)
			require.NoError(t, err)
			redirect.Body.Close()
			require.Equal(t, "https://www.example.test/a?b", redirect.Header.Get("Location"))
			stop()

			// Another start takes it from Dir.
			web, _ = listen(t)
			api, _ = listen(t)
			stop = start(t, g, web, api)
			require.Equal(t, serial, get(t, a, api).TLS.PeerCertificates[0].SerialNumber)
			stop()
		})
	}
}

// A certificate is renewed while it is in use: the new one replaces the old, and no
// handshake fails meanwhile. Nothing here depends on how quickly that happens.
func TestRenewal(t *testing.T) {
	web, webPort := listen(t)
	api, apiPort := listen(t)
	a := newAuthority(t, webPort, apiPort)
	g := &Gateway{
		Names: []string{"www.example.test"}, Handler: l7.HandlerFunc(func(x *l7.Exchange) { x.Respond(200, nil, "hello") }),
		Email: "admin@example.test", Directory: a.directory, Roots: a.tls, Dir: t.TempDir(), Logger: zap.NewNop(),
		CheckEvery: 200 * time.Millisecond, RenewalWindow: 0.99999999, // as soon as it is a second old
	}
	stop := start(t, g, web, api)
	shown := []*x509.Certificate{get(t, a, api).TLS.PeerCertificates[0]}
	for limit := time.Now().Add(2 * time.Minute); len(shown) < 3; time.Sleep(10 * time.Millisecond) { // a look at it now and then
		require.True(t, time.Now().Before(limit), "only %d certificates", len(shown))
		c, err := tls.Dial("tcp", api.Addr().String(), &tls.Config{RootCAs: a.roots, ServerName: "www.example.test"})
		require.NoError(t, err)
		cert := c.ConnectionState().PeerCertificates[0]
		require.NoError(t, c.Close())
		if last := shown[len(shown)-1]; !cert.Equal(last) {
			require.False(t, slices.ContainsFunc(shown, cert.Equal), "an old certificate is shown again")
			require.False(t, cert.NotAfter.Before(last.NotAfter))
			shown = append(shown, cert)
		}
	}
	stop()
}

// start serves, and returns what ends it.
func start(t *testing.T, g *Gateway, web, api net.Listener) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- g.Serve(ctx, web, api) }()
	return func() {
		cancel()
		require.NoError(t, <-served)
	}
}

// get asks for a page over HTTPS, until there is a certificate.
func get(t *testing.T, a authority, ln net.Listener) *http.Response {
	t.Helper()
	tr := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: a.roots}, ForceAttemptHTTP2: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", ln.Addr().String())
		},
	}
	defer tr.CloseIdleConnections()
	for limit := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) { // until it has come
		resp, err := (&http.Client{Transport: tr}).Get("https://www.example.test/")
		if err == nil {
			resp.Body.Close()
			return resp
		}
		require.True(t, time.Now().Before(limit), "%v", err)
	}
}

func TestWithoutConsent(t *testing.T) {
	require.Error(t, run(t.Context(), &Gateway{Names: []string{"a.test"}, Email: "a@a.test"}, "127.0.0.1:0", "127.0.0.1:0", false))
	require.Error(t, run(t.Context(), &Gateway{Names: []string{""}, Email: "a@a.test"}, "127.0.0.1:0", "127.0.0.1:0", true))
	require.Error(t, run(t.Context(), &Gateway{Names: []string{"a.test"}}, "127.0.0.1:0", "127.0.0.1:0", true))
}
