// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l4/l4test"
)

// echoes sends back what it reads.
var echoes = HandlerFunc(func(_ context.Context, c net.Conn) error {
	defer c.Close()
	_, err := io.Copy(c, c)
	return err
})

func TestTerminateTLS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := testCert(t, nil, "client")
		pool := x509.NewCertPool()
		pool.AddCert(ca.Leaf)
		cfg := testConfig(t, "a.test")
		cfg.NextProtos, cfg.ClientCAs, cfg.ClientAuth = []string{"h2"}, pool, tls.RequireAndVerifyClientCert
		var state *tls.ConnectionState
		h := &TerminateTLS{Config: cfg, Next: &Router{Routes: []Route{{
			Match: All(SNI("a.test"), ALPN("h2"), FirstBytes("hello")),
			Handler: HandlerFunc(func(ctx context.Context, c net.Conn) error {
				state = c.(*Conn).TLS()
				return echoes(ctx, c)
			}),
		}}}}
		a, b := l4test.Pipe()
		done := make(chan error, 1)
		go func() { done <- h.ServeConn(t.Context(), b) }()
		c := tls.Client(a, &tls.Config{
			ServerName: "a.test", InsecureSkipVerify: true, NextProtos: []string{"h2"}, Certificates: []tls.Certificate{ca},
		})
		_, err := io.WriteString(c, "hello")
		require.NoError(t, err)
		require.NoError(t, c.CloseWrite())
		got, err := io.ReadAll(c)
		require.NoError(t, err)
		require.Equal(t, "hello", string(got))
		require.NoError(t, <-done)
		require.Equal(t, "client", state.PeerCertificates[0].Subject.CommonName)
	})
}

func TestT4_TerminateTLSFailures(t *testing.T) {
	for _, tt := range []struct {
		why  string
		edit func(*tls.Config)
		do   func(*l4test.Conn)
		want string // the letters in the record
		err  bool
	}{
		{why: "no TLS", do: func(c *l4test.Conn) { io.WriteString(c, "GET / HTTP/1.1\r\n\r\n") }, want: "PR", err: true},
		{why: "silence", do: func(*l4test.Conn) { time.Sleep(11 * time.Second) }, want: "cR", err: true},
		{why: "half a hello", do: func(c *l4test.Conn) { io.WriteString(c, "\x16\x03\x01"); c.CloseWrite() }, want: "CR", err: true},
		{why: "a look at the port", do: func(c *l4test.Conn) { c.CloseWrite() }, want: "CR"},
		{
			why: "no client certificate", edit: func(c *tls.Config) { c.ClientAuth = tls.RequireAnyClientCert; c.MaxVersion = tls.VersionTLS12 },
			do: func(c *l4test.Conn) { tls.Client(c, &tls.Config{InsecureSkipVerify: true}).Handshake() }, want: "PR", err: true,
		},
		{
			why: "no certificate for the name", edit: func(c *tls.Config) { c.Certificates = nil; c.GetCertificate = (&Certificates{Strict: true}).Get },
			do: func(c *l4test.Conn) { tls.Client(c, &tls.Config{ServerName: "x.test"}).Handshake() }, want: "PR", err: true,
		},
		{why: "not trusted by the client", do: func(c *l4test.Conn) { tls.Client(c, &tls.Config{ServerName: "a.test"}).Handshake() }, want: "CR", err: true},
	} {
		t.Run(tt.why, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := testConfig(t, "a.test")
				if tt.edit != nil {
					tt.edit(cfg)
				}
				h := &TerminateTLS{Config: cfg, Next: echoes}
				n := l4test.NewNetwork()
				ln, err := n.Listen("tcp", "10.0.0.1:443")
				require.NoError(t, err)
				records, errs := make(chan string, 1), make(chan error, 1)
				s := &Server{
					Handler: HandlerFunc(func(ctx context.Context, c net.Conn) error { errs <- h.ServeConn(ctx, c); return nil }),
					OnDone:  func(r *Record) { records <- r.Termination.String() },
				}
				go s.Serve(ln)
				c, err := n.DialContext(t.Context(), "tcp", "10.0.0.1:443")
				require.NoError(t, err)
				tt.do(c.(*l4test.Conn))
				require.Equal(t, tt.want, <-records)
				if err := <-errs; tt.err {
					require.ErrorIs(t, err, ErrTLS)
				} else {
					require.NoError(t, err)
				}
				c.Close()
				require.NoError(t, s.Close())
			})
		})
	}
}
