// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4/l4test"
)

// TestTLSThreeWays relays TLS as it is, without its TLS, and with another:
// each a line.
func TestTLSThreeWays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := l4test.NewNetwork()
		front, back := testConfig(t, "front.test"), testConfig(t, "back.test")
		roots := x509.NewCertPool()
		roots.AddCert(front.Certificates[0].Leaf)
		roots.AddCert(back.Certificates[0].Leaf)

		shout := HandlerFunc(func(_ context.Context, c net.Conn) error {
			defer c.Close()
			b, err := io.ReadAll(c) // until the client's half is closed
			fmt.Fprintf(c, "%s! tls=%v", b, tlsStateOf(c) != nil)
			return err
		})
		serveOn := func(addr string, h Handler) {
			ln, err := n.Listen("tcp", addr)
			require.NoError(t, err)
			s := &Server{Handler: h, Logger: quiet}
			go s.Serve(ln)
			t.Cleanup(func() { s.Close() })
		}
		serveOn("10.0.0.1:80", shout)
		serveOn("10.0.0.1:443", &TerminateTLS{Config: back, Next: shout})
		plain := &Proxy{Pool: poolOf(t, "10.0.0.1:80"), Dial: n.DialContext}
		secure := &Proxy{Pool: poolOf(t, "10.0.0.1:443"), Dial: n.DialContext}
		classes := make(chan balance.Class, 100)
		observed := &balance.Pool{OnOutcome: []func(*balance.Server, balance.Outcome){
			func(_ *balance.Server, o balance.Outcome) { classes <- o.Class },
		}}
		require.NoError(t, observed.Set(balance.Endpoint{Addr: "10.0.0.1:443"}))
		anew := &Proxy{
			Pool: observed, Dial: n.DialContext,
			Handshake: (&OriginateTLS{Config: &tls.Config{RootCAs: roots, ServerName: "back.test"}}).Handshake,
		}
		serveOn("10.0.0.9:443", &Router{Routes: []Route{
			{Match: SNI("back.test"), Handler: secure},                                                                     // passthrough
			{Match: SNI("front.test"), Handler: &TerminateTLS{Config: front, Next: plain}},                                 // offload
			{Match: All(TLS, ALPN("anew")), Handler: &TerminateTLS{Config: front, Next: anew}},                             // re-encryption
			{Match: HTTP1, Handler: anew},                                                                                  // TLS added
			{Match: FirstBytes("\x00bad"), Handler: &Proxy{Pool: anew.Pool, Dial: anew.Dial, Handshake: wrongName(roots)}}, // never in the clear
		}})
		connect := func() net.Conn {
			c, err := n.DialContext(t.Context(), "tcp", "10.0.0.9:443")
			require.NoError(t, err)
			return c
		}
		ask := func(c net.Conn, data string) string {
			_, err := io.WriteString(c, data)
			require.NoError(t, err)
			require.NoError(t, c.(interface{ CloseWrite() error }).CloseWrite())
			b, err := io.ReadAll(c)
			require.NoError(t, err)
			c.Close()
			return string(b)
		}
		secured := func(name string, alpn ...string) net.Conn {
			return tls.Client(connect(), &tls.Config{RootCAs: roots, ServerName: name, NextProtos: alpn, InsecureSkipVerify: name == "x.test"})
		}
		require.Equal(t, "a! tls=true", ask(secured("back.test"), "a"))
		require.Equal(t, "b! tls=false", ask(secured("front.test"), "b"))
		require.Equal(t, "c! tls=true", ask(secured("x.test", "anew"), "c"))
		require.Equal(t, "GET / HTTP/1.1\r\n! tls=true", ask(connect(), "GET / HTTP/1.1\r\n"))

		synctest.Wait() // for the outcomes of those above
		c := connect()
		_, err := io.WriteString(c, "\x00bad")
		require.NoError(t, err)
		_, err = io.ReadAll(c)
		require.Error(t, err, "a server that cannot be verified gets nothing, and the client a reset")
		synctest.Wait()
		var last balance.Class
		for len(classes) > 0 {
			last = <-classes
		}
		require.Equal(t, balance.TLSFailed, last)
		c.Close()
	})
}

func wrongName(roots *x509.CertPool) HandshakeFunc {
	return (&OriginateTLS{Config: &tls.Config{RootCAs: roots, ServerName: "wrong.test"}}).Handshake
}

// TestProxyChain sends a header through two proxies: the last server learns
// of the first client.
func TestProxyChain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := l4test.NewNetwork()
		var servers []*Server
		serveOn := func(addr string, h Handler) {
			ln, err := n.Listen("tcp", addr)
			require.NoError(t, err)
			s := &Server{Handler: h}
			servers = append(servers, s)
			go s.Serve(ln)
		}
		accept := func(next Handler) Handler { return &AcceptProxy{Trusted: MustParsePrefixes("0.0.0.0/0"), Next: next} }
		relay := func(to string, send *SendProxy) Handler {
			return &Proxy{Pool: poolOf(t, to), Dial: n.DialContext, Handshake: send.Handshake}
		}
		serveOn("10.0.0.3:80", accept(HandlerFunc(func(_ context.Context, c net.Conn) error {
			defer c.Close()
			b, err := io.ReadAll(c)
			fmt.Fprintf(c, "%s from %v to %v", b, c.RemoteAddr(), c.LocalAddr())
			return err
		})))
		serveOn("10.0.0.2:80", accept(relay("10.0.0.3:80", &SendProxy{Checksum: true})))
		serveOn("10.0.0.1:80", relay("10.0.0.2:80", &SendProxy{Version: 1}))
		c, err := n.DialContext(t.Context(), "tcp", "10.0.0.1:80")
		require.NoError(t, err)
		io.WriteString(c, "hello")
		c.(*l4test.Conn).CloseWrite()
		b, err := io.ReadAll(c)
		require.NoError(t, err)
		require.Equal(t, fmt.Sprintf("hello from %v to 10.0.0.1:80", c.LocalAddr()), string(b))
		c.Close()
		for _, s := range servers {
			require.NoError(t, s.Shutdown(t.Context()))
		}
	})
}
