// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// speaker is an HTTP server that names the protocol it was asked by. Over TLS
// file holds its certificate.
func speaker(t *testing.T, set func(*http.Protocols), secure bool) (url, file string) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/sick" {
			w.WriteHeader(http.StatusTeapot)
		}
		fmt.Fprint(w, r.Proto)
	}))
	s.Config.Protocols = new(http.Protocols)
	set(s.Config.Protocols)
	t.Cleanup(s.Close)
	if !secure {
		s.Start()
		return s.URL, ""
	}
	s.EnableHTTP2 = s.Config.Protocols.HTTP2()
	s.StartTLS()
	file = filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600))
	return s.URL, file
}

func TestServersAreSpokenWithAsTheirSchemeSays(t *testing.T) {
	http1 := func(p *http.Protocols) { p.SetHTTP1(true) }
	both := func(p *http.Protocols) { p.SetHTTP1(true); p.SetHTTP2(true) }
	h2c := func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) }
	plain, _ := speaker(t, http1, false)
	prior, _ := speaker(t, h2c, false)
	secure, ca := speaker(t, both, true)
	old, oldCA := speaker(t, http1, true)
	for _, c := range []struct{ flags, want string }{
		{"-to " + plain, "HTTP/1.1"},
		{"-to " + strings.TrimPrefix(plain, "http://"), "HTTP/1.1"},
		{"-to " + strings.Replace(prior, "http", "h2c", 1), "HTTP/2.0"},
		{"-to " + secure + " -ca " + ca, "HTTP/2.0"},
		{"-to " + old + " -ca " + oldCA, "HTTP/1.1"},
		{"-to " + secure + " -insecure", "HTTP/2.0"},
	} {
		addr := start(t, strings.Fields("-http 127.0.0.1:0 -check-path /up "+c.flags)...)
		for _, h2 := range []bool{false, true} {
			_, proto := fetch(t, "http://"+addr["-http"]+"/", h2)
			require.Equal(t, c.want, proto, c.flags)
		}
	}
}

// TestServersOfManyProtocolsShareAPool meets each of three in turn.
func TestServersOfManyProtocolsShareAPool(t *testing.T) {
	plain, _ := speaker(t, func(p *http.Protocols) { p.SetHTTP1(true) }, false)
	prior, _ := speaker(t, func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) }, false)
	addr := start(t, "-http", "127.0.0.1:0", "-check-interval", "0", "-balance", "roundrobin", "-to", plain, "-to", strings.Replace(prior, "http", "h2c", 1))
	met := map[string]int{}
	for range 10 {
		_, proto := fetch(t, "http://"+addr["-http"]+"/", false)
		met[proto]++
	}
	require.Equal(t, map[string]int{"HTTP/1.1": 5, "HTTP/2.0": 5}, met)
}

// TestServersAreVerified has a proxy refuse a certificate that nobody vouches for.
func TestServersAreVerified(t *testing.T) {
	secure, _ := speaker(t, func(p *http.Protocols) { p.SetHTTP2(true) }, true)
	addr := start(t, "-http", "127.0.0.1:0", "-check-interval", "0", "-to", secure)
	resp, err := http.Get("http://" + addr["-http"] + "/")
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, http.StatusBadGateway, resp.StatusCode)
}

// TestServersAreCheckedByTheirScheme probes a path that is fine and one that is not.
func TestServersAreCheckedByTheirScheme(t *testing.T) {
	prior, _ := speaker(t, func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) }, false)
	secure, ca := speaker(t, func(p *http.Protocols) { p.SetHTTP1(true) }, true)
	for _, args := range []string{"-to " + strings.Replace(prior, "http", "h2c", 1), "-to " + secure + " -ca " + ca} {
		o, err := ParseOptions(strings.Fields("-http :0 "+args), t.Output())
		require.NoError(t, err)
		secure, err := o.clientTLS()
		require.NoError(t, err)
		e := o.Endpoints()[0]
		require.NoError(t, probes{"/up", secure}.Probe(t.Context(), e), args)
		require.ErrorContains(t, probes{"/sick", secure}.Probe(t.Context(), e), "418", args)
	}
}
