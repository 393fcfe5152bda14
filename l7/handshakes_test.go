// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l7"
)

// The handshakes with clients and with servers are those of l4, which take turns.
func TestHandshakesTakeTurns(t *testing.T) {
	in := make(chan string, 2)
	note := func(name string) {
		if strings.Contains(string(debug.Stack()), "l4.Handshake(") {
			in <- name
		}
	}
	origin := httptest.NewTLSServer(http.NotFoundHandler())
	defer origin.Close()
	pool := newPool(origin.Listener.Addr().String())
	up := &l7.Upstream{TLS: func(*balance.Server) *tls.Config {
		return &tls.Config{InsecureSkipVerify: true, VerifyPeerCertificate: func([][]byte, [][]*x509.Certificate) error { note("server"); return nil }}
	}}
	cert := selfSigned(t)
	srv := &l7.Server{Handler: &l7.Proxy{Pool: pool, Upstream: up}, TLSConfig: &tls.Config{
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { note("client"); return &cert, nil },
	}}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go srv.ServeTLS(ln, "", "")
	defer srv.Close()
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
	res, err := c.Get("https://" + ln.Addr().String())
	require.NoError(t, err)
	res.Body.Close()
	require.Equal(t, http.StatusNotFound, res.StatusCode)
	require.Equal(t, "client", <-in)
	require.Equal(t, "server", <-in)
}
