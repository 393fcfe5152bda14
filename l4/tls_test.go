// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4/l4test"
)

// testCert is a self-signed certificate for the names, which is its own CA.
func testCert(t testing.TB, key crypto.Signer, names ...string) tls.Certificate {
	t.Helper()
	if key == nil {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		require.NoError(t, err)
		key = k
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: names[0]},
		DNSNames:     names,
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IsCA:         true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	leaf, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func rsaKey(t testing.TB) *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	return k
}

func testConfig(t testing.TB, names ...string) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{testCert(t, nil, names...)}}
}

// handshaken is both ends of a connection after the handshake.
func handshaken(t *testing.T, server, client *tls.Config) (c, s *tls.Conn) {
	t.Helper()
	a, b := l4test.Pipe()
	c, s = tls.Client(a, client), tls.Server(b, server)
	done := make(chan error, 1)
	go func() { done <- s.Handshake() }()
	require.NoError(t, c.Handshake())
	require.NoError(t, <-done)
	return c, s
}

// askCertificate asks certs as a client would that supports what cfg says.
func askCertificate(t *testing.T, certs *Certificates, cfg *tls.Config) (*tls.Certificate, error) {
	t.Helper()
	info := stdClientHello(clientHello(t, cfg))
	require.NotNil(t, info)
	return certs.Get(info)
}

func TestCertificates(t *testing.T) {
	a, wild, first := testCert(t, nil, "a.test", "A2.test"), testCert(t, nil, "*.w.test"), testCert(t, nil, "first.test")
	certs := new(Certificates)
	require.NoError(t, certs.Set(first, a, wild, testCert(t, nil, "a.test")))
	for name, want := range map[string]*tls.Certificate{
		"a.test": &a, "A.TEST": &a, "a2.test": &a,
		"x.w.test": &wild, "y.x.w.test": &first, "w.test": &first,
		"other.test": &first, "": &first,
	} {
		got, err := askCertificate(t, certs, &tls.Config{ServerName: name, InsecureSkipVerify: true})
		require.NoError(t, err, name)
		require.Equal(t, want.Certificate, got.Certificate, name)
	}
	strict := &Certificates{Strict: true}
	require.NoError(t, strict.Set(first, a, wild))
	for name, ok := range map[string]bool{"a.test": true, "x.w.test": true, "other.test": false, "": false} {
		_, err := askCertificate(t, strict, &tls.Config{ServerName: name, InsecureSkipVerify: true})
		require.Equal(t, ok, err == nil, name)
		if !ok {
			require.ErrorIs(t, err, ErrNoCertificate)
		}
	}
	_, err := askCertificate(t, new(Certificates), &tls.Config{ServerName: "a.test"})
	require.ErrorIs(t, err, ErrNoCertificate)
	n := 0
	for range certs.All() {
		n++
	}
	require.Equal(t, 4, n)
}

// TestCertificatesByKey: ECDSA if the client can, else RSA; neither is used
// for a name it does not have.
func TestCertificatesByKey(t *testing.T) {
	rsaCert, ecdsaCert := testCert(t, rsaKey(t), "a.test"), testCert(t, nil, "a.test")
	certs := new(Certificates)
	require.NoError(t, certs.Set(rsaCert, ecdsaCert))
	rsaOnly := []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
	for _, tt := range []struct {
		name   string
		suites []uint16
		want   tls.Certificate
	}{
		{"a.test", nil, ecdsaCert},
		{"a.test", rsaOnly, rsaCert},
		{"other.test", nil, ecdsaCert}, // the first certificate stands for its names
		{"other.test", rsaOnly, rsaCert},
	} {
		got, err := askCertificate(t, certs, &tls.Config{ServerName: tt.name, CipherSuites: tt.suites, MaxVersion: tls.VersionTLS12})
		require.NoError(t, err)
		require.Equal(t, tt.want.Certificate, got.Certificate, "%v", tt)
	}
}

// TestCertificatesSwap: a set that fails changes nothing, one that works is
// used by the next handshake.
func TestCertificatesSwap(t *testing.T) {
	before, after := testCert(t, nil, "a.test"), testCert(t, nil, "a.test")
	after.Leaf = nil // is parsed
	certs := &Certificates{Strict: true}
	ask := func(name string) *tls.Certificate {
		c, _ := askCertificate(t, certs, &tls.Config{ServerName: name})
		return c
	}
	require.NoError(t, certs.Set(before))
	require.Error(t, certs.Set(after, tls.Certificate{}))
	require.Error(t, certs.Set(after, tls.Certificate{Certificate: [][]byte{{1}}, PrivateKey: rsaKey(t)}))
	require.Equal(t, before.Certificate, ask("a.test").Certificate)
	require.NoError(t, certs.Set(after, testCert(t, nil, "b.test")))
	require.Equal(t, after.Certificate, ask("a.test").Certificate)
	require.NotNil(t, ask("b.test"))
	require.NoError(t, certs.Set())
	require.Nil(t, ask("a.test"))
}

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

func TestTerminateTLSFailures(t *testing.T) {
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

// origin serves TLS on a Network and says what it saw.
type origin struct {
	states chan tls.ConnectionState
	first  chan []byte // bytes before TLS
}

func startOrigin(t *testing.T, n *l4test.Network, addr string, cfg *tls.Config, header int) *origin {
	ln, err := n.Listen("tcp", addr)
	require.NoError(t, err)
	o := &origin{states: make(chan tls.ConnectionState, 10), first: make(chan []byte, 10)}
	s := &Server{Logger: slog.New(slog.DiscardHandler), Handler: HandlerFunc(func(ctx context.Context, c net.Conn) error {
		b := make([]byte, header)
		if _, err := io.ReadFull(c, b); err != nil {
			c.Close()
			return err
		}
		o.first <- b
		return (&TerminateTLS{Config: cfg, Next: HandlerFunc(func(ctx context.Context, c net.Conn) error {
			o.states <- *c.(*Conn).TLS()
			return echoes(ctx, c)
		})}).ServeConn(ctx, c)
	})}
	go s.Serve(ln)
	t.Cleanup(func() { s.Close() })
	return o
}

func poolOf(t *testing.T, addrs ...string) *balance.Pool {
	p := new(balance.Pool)
	var all []balance.Endpoint
	for _, a := range addrs {
		all = append(all, balance.Endpoint{Addr: a})
	}
	require.NoError(t, p.Set(all...))
	return p
}

func TestOriginateTLS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := l4test.NewNetwork()
		cfg := testConfig(t, "a.test")
		cfg.NextProtos, cfg.ClientAuth = []string{"h2"}, tls.RequestClientCert
		one := startOrigin(t, n, "10.0.0.1:443", cfg, 0)
		two := startOrigin(t, n, "10.0.0.2:443", cfg, 0)
		roots := x509.NewCertPool()
		roots.AddCert(cfg.Certificates[0].Leaf)
		pool := poolOf(t, "10.0.0.1:443", "10.0.0.2:443")
		mine := testCert(t, nil, "proxy")
		own := &tls.Config{RootCAs: roots, ServerName: "a.test", Certificates: []tls.Certificate{mine}}
		o := &OriginateTLS{
			Config: &tls.Config{RootCAs: roots, ServerName: "a.test"},
			PerServer: func(s *balance.Server) *tls.Config {
				if s.Addr() == "10.0.0.2:443" {
					return own
				}
				return nil
			},
		}
		dial := func(addr string, client net.Conn) (net.Conn, error) {
			c, err := n.DialContext(t.Context(), "tcp", addr)
			require.NoError(t, err)
			return o.Handshake(t.Context(), client, c, pool.Server(addr))
		}
		plain, end := l4test.Pipe()
		defer plain.Close()
		defer end.Close()
		for i := range 3 {
			for _, tt := range []struct {
				addr string
				o    *origin
				cert bool
			}{{"10.0.0.1:443", one, false}, {"10.0.0.2:443", two, true}} {
				c, err := dial(tt.addr, plain)
				require.NoError(t, err)
				_, err = io.WriteString(c, "x")
				require.NoError(t, err)
				_, err = io.ReadFull(c, make([]byte, 1)) // the ticket comes before it
				require.NoError(t, err)
				state := <-tt.o.states
				require.Equal(t, "a.test", state.ServerName)
				require.Equal(t, tt.cert, len(state.PeerCertificates) == 1)
				require.Equal(t, i > 0, state.DidResume, "a session is resumed with the server it began with")
				require.NoError(t, c.Close())
				<-tt.o.first
			}
		}
		// The name is the client's to choose, if the host says so; a wrong one fails.
		o.ServerName = func(net.Conn, *balance.Server) string { return "b.test" }
		_, err := dial("10.0.0.1:443", plain)
		require.ErrorIs(t, err, ErrTLS)
		var wrong x509.HostnameError
		require.ErrorAs(t, err, &wrong)
		// Without any name it is the server's address that must be in the certificate.
		o.ServerName, o.Config = nil, &tls.Config{RootCAs: roots}
		_, err = dial("10.0.0.1:443", plain)
		require.ErrorAs(t, err, &wrong)
		require.Equal(t, "10.0.0.1", wrong.Host)
	})
}

// TestReencryptALPN shows that what a client agreed on is asked of the server.
func TestReencryptALPN(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := l4test.NewNetwork()
		for _, tt := range []struct {
			client string
			server []string
			ok     bool
		}{
			{"h2", []string{"h2", "http/1.1"}, true},
			{"http/1.1", []string{"h2", "http/1.1"}, true},
			{"http/1.1", nil, true},
			{"h2", nil, false},
			{"h2", []string{"http/1.1"}, false},
		} {
			addr := fmt.Sprintf("10.0.0.1:%d", 1000+len(tt.client)*10+len(tt.server))
			cfg := testConfig(t, "a.test")
			cfg.NextProtos = tt.server
			startOrigin(t, n, addr, cfg, 0)
			front := testConfig(t, "a.test")
			front.NextProtos = []string{tt.client}
			c, client := handshaken(t, front, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{tt.client}})
			up, err := n.DialContext(t.Context(), "tcp", addr)
			require.NoError(t, err)
			o := &OriginateTLS{Config: &tls.Config{InsecureSkipVerify: true}}
			got, err := o.Handshake(t.Context(), NewConn(client), up, poolOf(t, addr).Server(addr))
			require.Equal(t, tt.ok, err == nil, "%v: %v", tt, err)
			if err == nil {
				require.Contains(t, []string{tt.client, ""}, got.(*tls.Conn).ConnectionState().NegotiatedProtocol)
			}
			c.Close()
			client.Close()
			up.Close()
		}
	})
}

// TestSendProxyBeforeTLS chains both: the header is in the clear, in front.
func TestSendProxyBeforeTLS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := l4test.NewNetwork()
		header := v2(0x21, 0x11, "\xc0\x00\x02\x01\xc0\x00\x02\x02\xc0\x00\x00\x50")
		o := startOrigin(t, n, "10.0.0.1:443", testConfig(t, "a.test"), len(header))
		client, end := l4test.Pipe()
		up, err := n.DialContext(t.Context(), "tcp", "10.0.0.1:443")
		require.NoError(t, err)
		h := Handshakes((&SendProxy{}).Handshake, (&OriginateTLS{Config: &tls.Config{InsecureSkipVerify: true}}).Handshake)
		c, err := h(t.Context(), end, up, poolOf(t, "10.0.0.1:443").Server("10.0.0.1:443"))
		require.NoError(t, err)
		require.Equal(t, header, string(<-o.first))
		<-o.states
		for _, c := range []net.Conn{c, client, end} {
			c.Close()
		}
		failed := errors.New("failed")
		_, err = Handshakes(func(context.Context, net.Conn, net.Conn, *balance.Server) (net.Conn, error) { return nil, failed }, h)(t.Context(), end, up, nil)
		require.ErrorIs(t, err, failed)
	})
}

func TestSendProxyExtensions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sent := func(p *SendProxy, client net.Conn) ProxyHeader {
			a, b := l4test.Pipe()
			defer a.Close()
			defer b.Close()
			_, err := p.Handshake(t.Context(), client, a, nil)
			require.NoError(t, err)
			require.NoError(t, a.CloseWrite())
			wire, err := io.ReadAll(b)
			require.NoError(t, err)
			h, n, err := ParseProxyHeader(wire)
			require.NoError(t, err)
			require.Len(t, wire, n)
			return h
		}
		full := &SendProxy{
			Checksum: true, Details: true,
			UniqueID: func(net.Conn) []byte { return []byte("id-1") },
			Extra:    func(net.Conn, *balance.Server) []TLV { return []TLV{{0xE1, []byte("foo")}, {0xE2, nil}} },
		}
		cfg := testConfig(t, "a.test")
		cfg.NextProtos = []string{"h2"}
		c, s := handshaken(t, cfg, &tls.Config{ServerName: "a.test", InsecureSkipVerify: true, NextProtos: []string{"h2"}})
		defer c.Close()
		defer s.Close()
		for _, client := range []net.Conn{s, NewConn(s)} {
			h := sent(full, client)
			require.Equal(t, s.RemoteAddr().String(), h.Source.String())
			require.Equal(t, "id-1", string(must(h.TLV(TLVUniqueID))))
			require.Equal(t, "a.test", string(must(h.TLV(TLVAuthority))))
			require.Equal(t, "h2", string(must(h.TLV(TLVALPN))))
			require.Equal(t, "foo", string(must(h.TLV(0xE1))))
			require.Empty(t, must(h.TLV(0xE2)))
			require.Len(t, must(h.TLV(TLVCRC32C)), 4)
			ssl, ok := h.SSL()
			require.True(t, ok)
			require.Equal(t, "TLSv1.3", string(must(ssl.TLV(TLVSSLVersion))))
		}

		// Passed through: the name is in what the router has read ahead.
		passed := NewConn(&scriptConn{})
		first := clientHello(t, &tls.Config{ServerName: "b.test"})
		passed.nc.(*scriptConn).in.Reset(first)
		_, err := passed.Peek(len(first))
		require.NoError(t, err)
		h := sent(full, passed)
		require.Equal(t, "b.test", string(must(h.TLV(TLVAuthority))))
		require.Nil(t, h.Source, "a connection without addresses")

		h = sent(&SendProxy{Version: 1, Checksum: true, Details: true}, s)
		require.Equal(t, 1, h.Version)
		require.Equal(t, s.RemoteAddr().String(), h.Source.String())
	})
}
