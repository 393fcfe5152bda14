// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l4/l4test"
)

// TestHTTP3 gets a page of a server through the gateway, by TCP and by QUIC.
func TestHTTP3(t *testing.T) {
	ca := l4test.NewAuthority("authority")
	cert := ca.Issue("localhost", func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)} })
	certPEM, keyPEM := l4test.CertificatePEM(cert)
	dir := t.TempDir()
	write := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, b, 0o600))
		return path
	}
	certFile, keyFile, caFile := write("cert.pem", certPEM), write("key.pem", keyPEM), write("ca.pem", ca.PEM())
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "hello "+r.Header.Get("X-Forwarded-Proto"))
	}))
	defer server.Close()

	free, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr := free.Addr().String()
	require.NoError(t, free.Close())
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, addr, certFile, keyFile, []string{server.Listener.Addr().String()}) }()

	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.Pool()}}}
	var res *http.Response
	require.Eventually(t, func() bool {
		res, err = client.Get("https://" + addr)
		return err == nil
	}, 10*time.Second, 10*time.Millisecond)
	res.Body.Close()
	_, port, _ := net.SplitHostPort(addr)
	require.Equal(t, `h3=":`+port+`"; ma=3600`, res.Header.Get("Alt-Svc"))

	var out bytes.Buffer
	require.NoError(t, fetch(t.Context(), "https://"+addr, caFile, &out))
	require.Equal(t, "HTTP/3.0 200 OK\nhello https", out.String())
	require.ErrorContains(t, fetch(t.Context(), "https://"+addr, "none.pem", &out), "-ca")
	client.CloseIdleConnections()
	stop()
	require.NoError(t, <-ended)
	require.ErrorContains(t, serve(t.Context(), "127.0.0.1:0", certFile, keyFile, []string{""}), "-to")
}
