// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
)

func anyName(string) bool { return true }

func hello(name string) *tls.ClientHelloInfo { return &tls.ClientHelloInfo{ServerName: name} }

// A client that trusts the authority talks to the server through the gateway.
func TestIntercept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	ca, err := authority(dir)
	require.NoError(t, err)
	again, err := authority(dir)
	require.NoError(t, err)
	require.Equal(t, ca.Leaf.Raw, again.Leaf.Raw, "it is kept")
	info, err := os.Stat(filepath.Join(dir, "ca.key"))
	require.NoError(t, err)
	require.EqualValues(t, 0o600, info.Mode().Perm())

	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.URL.Path) }))
	defer origin.Close()
	records := make(chan l7.Record, 1)
	s, err := server(ca, []string{"api.example=" + origin.URL}, func(r *l7.Record) { records <- *r })
	require.NoError(t, err)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- serve(ctx, s, ln) }()

	roots := x509.NewCertPool()
	roots.AddCert(ca.Leaf)
	tr := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", ln.Addr().String())
		},
	}
	resp, err := (&http.Client{Transport: tr}).Get("https://API.example/x")
	require.NoError(t, err)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, "HTTP/2.0 /x", resp.Proto+" "+string(body))
	r := <-records
	require.Equal(t, "api.example /x", r.Route+" "+r.Path)
	require.Len(t, r.JA4, 36)
	_, err = (&http.Client{Transport: tr}).Get("https://other.example/")
	require.ErrorContains(t, err, "unrecognized name")
	tr.CloseIdleConnections()
	cancel()
	require.NoError(t, <-served)

	_, err = server(ca, []string{"x"}, nil)
	require.ErrorContains(t, err, "not NAME=URL")
	_, err = server(ca, []string{"a=b"}, nil)
	require.Error(t, err)
}

// However many ask at once, a name is minted once; the cache is bounded, and nothing is
// served that is about to run out.
func TestMint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &Mint{Authority: l4test.NewAuthority("authority").Certificate, Allow: anyName, Max: 2}
		var certs sync.Map
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				c, err := m.Get(hello("A.test."))
				if err == nil {
					certs.Store(c, true)
				}
			})
		}
		wg.Wait()
		n := 0
		certs.Range(func(any, any) bool { n++; return true })
		require.Equal(t, 1, n)
		get := func(name string) *tls.Certificate {
			c, err := m.Get(hello(name))
			require.NoError(t, err)
			return c
		}
		a, b := get("a.test"), get("b.test")
		require.Equal(t, []string{"a.test"}, a.Leaf.DNSNames)
		require.Same(t, a, get("a.test"))
		get("c.test") // b.test was used least recently
		require.Same(t, a, get("a.test"))
		require.NotSame(t, b, get("b.test"))
		require.Len(t, m.byName, 2)
		require.Equal(t, 2, m.recent.Len())
		kept := get("b.test")
		time.Sleep(lasts - spare - time.Minute)
		require.Same(t, kept, get("b.test"))
		time.Sleep(2 * time.Minute)
		require.NotSame(t, kept, get("b.test"))
	})
}

func TestMintRefuses(t *testing.T) {
	m := &Mint{Authority: l4test.NewAuthority("authority").Certificate, Allow: func(name string) bool { return name == "a.test" }}
	for _, name := range []string{"", "b.test", "x.a.test", "*"} {
		c, err := m.Get(hello(name))
		require.NoError(t, err)
		require.Nil(t, c)
	}
	m = &Mint{Allow: anyName} // without an authority
	_, err := m.Get(hello("a.test"))
	require.Error(t, err)
	require.Empty(t, m.byName, "a failure is not kept")
}

func BenchmarkMint(b *testing.B) {
	m := &Mint{Authority: l4test.NewAuthority("authority").Certificate, Allow: anyName}
	b.Run("kept", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = m.Get(hello("a.test"))
		}
	})
	b.Run("new", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			_, _ = m.Get(hello(fmt.Sprint(i, ".test")))
		}
	})
}
