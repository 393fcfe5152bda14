// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l4/l4test"
)

func certificate(t *testing.T, name string) tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestFront(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := l4test.NewNetwork()
		for addr, name := range map[string]string{"10.0.0.1:443": "one", "10.0.0.2:443": "two"} {
			ln, err := n.Listen("tcp", addr)
			require.NoError(t, err)
			config := &tls.Config{Certificates: []tls.Certificate{certificate(t, name)}}
			s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "%s passed", name) })}
			go s.Serve(tls.NewListener(ln, config))
			t.Cleanup(func() { s.Close() })
		}
		f := &Front{Dial: n.DialContext, Pass: map[string]string{"*.b.test": "10.0.0.2:443", "a.b.test": "10.0.0.1:443", "a.test": "10.0.0.1:443"}}
		require.NoError(t, f.Certificates.Set(certificate(t, "local.test")))
		ln, err := n.Listen("tcp", "10.0.0.9:443")
		require.NoError(t, err)
		ctx, stop := context.WithCancelCause(t.Context())
		done := make(chan error, 1)
		go func() { done <- f.Serve(ctx, ln) }()

		for url, want := range map[string]string{
			"https://a.test":     "one passed",
			"https://a.b.test":   "one passed",
			"https://c.b.test":   "two passed",
			"https://local.test": "local.test is served here",
			"http://a.test/x?y":  "308 https://a.test/x?y",
		} {
			client := &http.Client{
				Transport: &http.Transport{
					DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
						return n.DialContext(ctx, "tcp", "10.0.0.9:443")
					},
					TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
					DisableKeepAlives: true,
				},
				CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			}
			resp, err := client.Get(url)
			require.NoError(t, err, url)
			b, err := io.ReadAll(resp.Body)
			require.NoError(t, err, url)
			resp.Body.Close()
			require.Contains(t, fmt.Sprintf("%s %d %s", b, resp.StatusCode, resp.Header.Get("Location")), want, url)
		}
		stop(fmt.Errorf("interrupt: %w", context.Canceled)) // such as the cause that signal.NotifyContext has
		require.NoError(t, <-done)
	})
}
