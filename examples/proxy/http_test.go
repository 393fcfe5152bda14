// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestHTTP(t *testing.T) {
	cert, key := certificate(t)
	for _, front := range []string{"byte", "standard"} {
		t.Run(front, func(t *testing.T) {
			addr := start(t, "-front", front, "-http", "127.0.0.1:0", "-tls", "127.0.0.1:0", "-cert", cert, "-key", key,
				"-check-path", "/up", "-to", origin(t, "a"))
			for _, c := range []struct {
				scheme, flag string
				h2           bool
			}{
				{"http", "-http", false},
				{"http", "-http", true},
				{"https", "-tls", false},
				{"https", "-tls", true},
			} {
				proto, body := fetch(t, c.scheme+"://"+addr[c.flag]+"/path?q", c.h2)
				want := "a POST " + addr[c.flag] + "/path?q 5 [127.0.0.1] [" + c.scheme + "] [" + addr[c.flag] + "]"
				require.Equal(t, want, body)
				require.Equal(t, c.h2, proto == "HTTP/2.0", proto)
			}
		})
	}
}

// TestHashingKeepsAClientOnItsServer has one client meet one of three servers.
func TestHashingKeepsAClientOnItsServer(t *testing.T) {
	for _, name := range []string{"ring", "maglev", "rendezvous"} {
		addr := start(t, "-http", "127.0.0.1:0", "-balance", name, "-to", origin(t, "a"), "-to", origin(t, "b"), "-to", origin(t, "c"))
		_, first := fetch(t, "http://"+addr["-http"]+"/", false)
		for range 10 {
			_, next := fetch(t, "http://"+addr["-http"]+"/", false)
			require.Equal(t, first, next, name)
		}
	}
}

// fetch posts "hello" over a connection of its own.
func fetch(t *testing.T, url string, h2 bool) (proto, body string) {
	var p http.Protocols
	p.SetHTTP1(!h2)
	p.SetHTTP2(h2)
	p.SetUnencryptedHTTP2(h2)
	tr := &http.Transport{Protocols: &p, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr}).Post(url, "text/plain", strings.NewReader("hello"))
	require.NoError(t, err)
	defer resp.Body.Close()
	all, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.Proto, string(all)
}

// certificate writes a self-signed one for 127.0.0.1.
func certificate(t *testing.T) (cert, key string) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{{127, 0, 0, 1}}}
	public, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	require.NoError(t, err)
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	require.NoError(t, err)
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	require.NoError(t, os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: public}), 0o600))
	require.NoError(t, os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600))
	return cert, key
}
