// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l4/l4test"
)

// TestListenerHTTP hands connections over to an http.Server: plain ones that
// were read ahead, TLS with HTTP/2, and TLS read ahead inside.
func TestListenerHTTP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		web := new(Listener)
		hs := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "%s tls=%v from %s", r.Proto, r.TLS != nil, r.RemoteAddr)
		})}
		hs.Protocols = new(http.Protocols)
		hs.Protocols.SetHTTP1(true)
		hs.Protocols.SetHTTP2(true)
		served := make(chan error, 1)
		go func() { served <- hs.Serve(web) }()

		cfg := testConfig(t, "a.test")
		cfg.NextProtos = []string{"h2", "http/1.1"}
		router := &Router{Routes: []Route{
			{Match: HTTP1, Handler: web},
			{Match: SNI("direct.test"), Handler: &TerminateTLS{Config: cfg, Next: web}},
			{Match: TLS, Handler: &TerminateTLS{Config: cfg, Next: &Router{Routes: []Route{{Match: HTTP1, Handler: web}}}}},
		}}
		n := l4test.NewNetwork()
		ln, err := n.Listen("tcp", "10.0.0.1:80")
		require.NoError(t, err)
		s := &Server{Handler: router}
		go s.Serve(ln)

		for _, tt := range []struct {
			url, name string
			h2        bool
			want      string
		}{
			{"http://10.0.0.1:80/", "", false, "HTTP/1.1 tls=false"},
			{"https://10.0.0.1:80/", "direct.test", true, "HTTP/2.0 tls=true"},
			{"https://10.0.0.1:80/", "direct.test", false, "HTTP/1.1 tls=true"},
			{"https://10.0.0.1:80/", "inside.test", false, "HTTP/1.1 tls=true"},
		} {
			tr := &http.Transport{DialContext: n.DialContext, TLSClientConfig: &tls.Config{ServerName: tt.name, InsecureSkipVerify: true}, Protocols: new(http.Protocols)}
			tr.Protocols.SetHTTP1(!tt.h2)
			tr.Protocols.SetHTTP2(tt.h2)
			resp, err := (&http.Client{Transport: tr}).Get(tt.url)
			require.NoError(t, err, tt)
			b, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			require.Contains(t, string(b), tt.want+" from ")
			resp.Body.Close()
			tr.CloseIdleConnections()
		}
		require.NoError(t, hs.Shutdown(t.Context()))
		require.ErrorIs(t, <-served, http.ErrServerClosed)
		require.NoError(t, s.Shutdown(t.Context()), "connections that were handed over were counted to their end")
	})
}

func TestListenerClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &Listener{}
		_, b := l4test.Pipe()
		waiting := make(chan error)
		go func() { waiting <- l.ServeConn(t.Context(), b) }()
		synctest.Wait()
		require.NoError(t, l.Close())
		require.NoError(t, l.Close())
		require.ErrorIs(t, <-waiting, net.ErrClosed)
		_, err := b.Write([]byte("x"))
		require.ErrorIs(t, err, net.ErrClosed, "who waited for Accept was closed")
		_, err = l.Accept()
		require.ErrorIs(t, err, net.ErrClosed)

		l = &Listener{Address: &net.TCPAddr{Port: 1}}
		require.Equal(t, ":1", l.Addr().String())
		require.Equal(t, "l4", new(Listener).Addr().Network())
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, b = l4test.Pipe()
		require.ErrorIs(t, l.ServeConn(ctx, b), context.Canceled)
	})
}
