// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4/l4test"
)

// The tests of this file are named after the rows of HAProxy's own tests that
// they play: C for connections, T for TLS. See attach_test.go for C13.

// received runs a header through SendProxy and AcceptProxy.
func received(t *testing.T, send *SendProxy) *ProxyHeader {
	t.Helper()
	client, front := l4test.Pipe()
	near, far := l4test.Pipe()
	defer func() {
		for _, c := range []net.Conn{client, front, near, far} {
			c.Close()
		}
	}()
	_, err := send.Handshake(t.Context(), front, near, nil)
	require.NoError(t, err)
	var h *ProxyHeader
	accept := &AcceptProxy{Trusted: MustParsePrefixes("0.0.0.0/0"), Next: HandlerFunc(func(_ context.Context, c net.Conn) error {
		h = ProxyHeaderOf(c)
		return nil
	})}
	require.NoError(t, accept.ServeConn(t.Context(), far))
	require.NotNil(t, h)
	return h
}

// TestC8_SendTLVs: the host's own extensions arrive, an empty one too.
func TestC8_SendTLVs(t *testing.T) {
	h := received(t, &SendProxy{Extra: func(net.Conn, *balance.Server) []TLV {
		return []TLV{{0xE1, []byte("foo")}, {Type: 0xE2}}
	}})
	v, ok := h.TLV(0xE1)
	require.True(t, ok)
	require.Equal(t, "foo", string(v))
	v, ok = h.TLV(0xE2)
	require.True(t, ok, "present")
	require.Empty(t, v)
}

// TestC10_TLVValidation puts an HTTP server behind headers that are right, and
// that are not.
func TestC10_TLVValidation(t *testing.T) {
	authority := "\x02\x00\x06a.test"
	const request = "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n"
	for _, tt := range []struct {
		name, in string
		want     string // status line; empty if closed
	}{
		{"valid", v2(0x21, 0x11, inet4+authority) + request, "HTTP/1.1 200 OK"},
		{"bytes after the header", v2(0x21, 0x11, inet4+authority) + "\x00" + request, "HTTP/1.1 400 Bad Request"},
		{"extension longer than the header", v2(0x21, 0x11, inet4+"\x02\x00\x07a.test") + request, ""},
		{"dangling byte", v2(0x21, 0x11, inet4+authority+"\x02") + request, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				web := new(Listener)
				hs := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {})}
				go hs.Serve(web)
				defer hs.Close()
				client, server := l4test.Pipe()
				accept := &AcceptProxy{Trusted: MustParsePrefixes("0.0.0.0/0"), Next: web}
				done := make(chan error, 1)
				go func() { done <- accept.ServeConn(t.Context(), server) }()
				io.WriteString(client, tt.in)
				line, _ := bufio.NewReader(client).ReadString('\n')
				require.Equal(t, tt.want, strings.TrimSpace(line))
				if err := <-done; tt.want == "" {
					require.ErrorIs(t, err, ErrProxyHeader)
				} else {
					require.NoError(t, err)
				}
				client.Close()
			})
		})
	}
}

// TestC11_ReadTLVs: values of any type are there byte by byte, and one that was
// not sent is absent.
func TestC11_ReadTLVs(t *testing.T) {
	long := strings.Repeat("\x00\xffab", 32) // 128 bytes
	h := received(t, &SendProxy{Checksum: true, Extra: func(net.Conn, *balance.Server) []TLV {
		return []TLV{{0xEA, []byte("\x01vpce-08d2bf15fac5001c9")}, {0xEE, []byte("\x01\x02\x03\x04")}, {0xE7, []byte(long)}}
	}})
	for typ, want := range map[TLVType]string{0xEA: "\x01vpce-08d2bf15fac5001c9", 0xEE: "\x01\x02\x03\x04", 0xE7: long} {
		v, ok := h.TLV(typ)
		require.True(t, ok)
		require.Equal(t, want, string(v))
	}
	_, ok := h.TLV(0xE8)
	require.False(t, ok)
}

// TestC15_ResumeTLS connects 21 times over a TLS hop: after the first, every
// handshake resumes the session.
func TestC15_ResumeTLS(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for name, front := range map[string]bool{"towards the server": false, "from the client": true} {
			t.Run(tls.VersionName(version)+" "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n := l4test.NewNetwork()
					cfg := testConfig(t, "a.test")
					cfg.MaxVersion = version
					o := startOrigin(t, n, "10.0.0.1:443", cfg, 0)
					roots := x509.NewCertPool()
					roots.AddCert(cfg.Certificates[0].Leaf)
					trust := &tls.Config{RootCAs: roots, ServerName: "a.test"}
					p := &Proxy{Pool: poolOf(t, "10.0.0.1:443"), Dial: n.DialContext}
					if front { // the hop passes through, the client resumes with its server
						trust.ClientSessionCache = tls.NewLRUClientSessionCache(1)
					} else {
						p.Handshake = (&OriginateTLS{Config: trust}).Handshake
					}
					s := &Server{Handler: p, Logger: quiet}
					wait := serve(s, listen(t, n, "10.0.0.9:80"))
					resumed := 0
					for range 21 {
						var c net.Conn = dial(t, n, "10.0.0.9:80")
						if front {
							c = tls.Client(c, trust)
						}
						wantEcho(t, c, "ping")
						if <-o.first; (<-o.states).DidResume {
							resumed++
						}
						c.Close()
					}
					require.Equal(t, 20, resumed)
					require.NoError(t, s.Shutdown(t.Context()))
					require.ErrorIs(t, wait(), ErrServerClosed)
				})
			})
		}
	}
}

// TestT1_ALPN negotiates with TerminateTLS.AnyALPN: the server's first that the
// client has, else none.
func TestT1_ALPN(t *testing.T) {
	h1, h2 := "http/1.1", "h2"
	protos := map[string][]string{"none": nil, "h1": {h1}, "h2": {h2}, "both": {h2, h1}, "odd": {"odd"}}
	want := map[[2]string]string{ // client, server
		{"h1", "h1"}: h1, {"h1", "both"}: h1, {"both", "h1"}: h1,
		{"h2", "h2"}: h2, {"h2", "both"}: h2, {"both", "h2"}: h2, {"both", "both"}: h2,
		{"odd", "odd"}: "odd",
	}
	for client, offered := range protos {
		for server, taken := range protos {
			cfg := testConfig(t, "a.test")
			cfg.NextProtos = taken
			wrapped := &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return cfg, nil }}
			for _, c := range []*tls.Config{cfg, wrapped} {
				got := make(chan string, 1)
				h := &TerminateTLS{Config: c, AnyALPN: true, Next: HandlerFunc(func(_ context.Context, c net.Conn) error {
					got <- c.(*Conn).TLS().NegotiatedProtocol
					return c.Close()
				})}
				a, b := l4test.Pipe()
				done := make(chan error, 1)
				go func() { done <- h.ServeConn(t.Context(), b) }()
				require.NoError(t, tls.Client(a, &tls.Config{InsecureSkipVerify: true, NextProtos: offered}).Handshake())
				require.NoError(t, <-done)
				require.Equal(t, want[[2]string{client, server}], <-got, "%s to %s", client, server)
				a.Close()
			}
		}
	}
	// Without it a client that has nothing in common is refused, as RFC 7301 asks.
	cfg := testConfig(t, "a.test")
	cfg.NextProtos = []string{h1}
	a, b := l4test.Pipe()
	done := make(chan error, 1)
	go func() { done <- (&TerminateTLS{Config: cfg, Next: echoes}).ServeConn(t.Context(), b) }()
	require.Error(t, tls.Client(a, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{h2}}).Handshake())
	require.ErrorIs(t, <-done, ErrTLS)
	a.Close()
}

// TestT6_CertificateFilters: of two kinds of key the client's signature schemes
// choose, and a name taken out of a wildcard is refused.
func TestT6_CertificateFilters(t *testing.T) {
	rsaCert, ecdsaCert := testCert(t, rsaKey(t), "*.a.test"), testCert(t, nil, "*.a.test")
	one := testCert(t, nil, "own.a.test")
	certs := &Certificates{Strict: true, Except: []string{"Secret.a.test", "own.a.test"}}
	require.NoError(t, certs.Set(rsaCert, ecdsaCert, one))
	both := []tls.SignatureScheme{tls.PSSWithSHA256, tls.ECDSAWithP256AndSHA256}
	for _, tt := range []struct {
		name    string
		schemes []tls.SignatureScheme
		want    *tls.Certificate
	}{
		{"www.a.test", both, &ecdsaCert},
		{"www.a.test", both[:1], &rsaCert},
		{"www.a.test", both[1:], &ecdsaCert},
		{"own.a.test", both, &one},
		{"secret.a.test", both, nil},
		{"SECRET.A.TEST.", both, nil},
	} {
		got, err := certs.Get(&tls.ClientHelloInfo{
			ServerName: tt.name, SignatureSchemes: tt.schemes, SupportedVersions: []uint16{tls.VersionTLS13},
			SupportedCurves: []tls.CurveID{tls.CurveP256}, CipherSuites: []uint16{tls.TLS_AES_128_GCM_SHA256},
		})
		if tt.want == nil {
			require.NoError(t, err, tt.name)
			require.Nil(t, got, tt.name)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, tt.want.Certificate, got.Certificate, "%s, %v", tt.name, tt.schemes)
	}
	lenient := &Certificates{Except: []string{"secret.a.test"}}
	require.NoError(t, lenient.Set(one, rsaCert))
	got, err := askCertificate(t, lenient, &tls.Config{ServerName: "secret.a.test"})
	require.NoError(t, err)
	require.Equal(t, one.Certificate, got.Certificate, "the first of all")
}
