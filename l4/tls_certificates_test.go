// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"crypto/tls"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l4/l4test"
)

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
		got, err := askCertificate(t, strict, &tls.Config{ServerName: name, InsecureSkipVerify: true})
		require.NoError(t, err, "an error would be sent as internal_error")
		require.Equal(t, ok, got != nil, name)
	}
	got, err := askCertificate(t, new(Certificates), &tls.Config{ServerName: "a.test"})
	require.NoError(t, err)
	require.Nil(t, got)
	n := 0
	for range certs.All() {
		n++
	}
	require.Equal(t, 4, n)
}

// TestCertificatesUnrecognizedName: the alert is that of RFC 6066, section 3, in
// either version, and the server's error says what was asked for.
func TestCertificatesUnrecognizedName(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		synctest.Test(t, func(t *testing.T) {
			certs := &Certificates{Strict: true}
			require.NoError(t, certs.Set(testCert(t, nil, "a.test")))
			a, b := l4test.Pipe()
			done := make(chan error, 1)
			h := &TerminateTLS{Config: &tls.Config{GetCertificate: certs.Get}, Next: echoes}
			go func() { done <- h.ServeConn(t.Context(), b) }()
			err := tls.Client(a, &tls.Config{ServerName: "b.test", MaxVersion: version}).Handshake()
			require.ErrorContains(t, err, "unrecognized name")
			err = <-done
			require.ErrorIs(t, err, ErrTLS)
			require.ErrorIs(t, err, ErrNoCertificate)
			require.ErrorContains(t, err, `it asks for "b.test"`)
		})
	}
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

// TestT7_CertificatesSwap: a set that fails changes nothing, one that works is
// used by the next handshake.
func TestT7_CertificatesSwap(t *testing.T) {
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

// TestClientCertificates has a server ask for a certificate of one authority: it is shown
// the one that it can verify, the new one after Set, and none if there is none.
func TestClientCertificates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, other := l4test.NewAuthority("authority"), l4test.NewAuthority("other")
		certs := new(Certificates)
		show := func() (string, error) {
			client, server := l4test.Pipe()
			seen := make(chan string)
			go func() {
				s := tls.Server(server, &tls.Config{Certificates: []tls.Certificate{ca.Issue("a.test")}, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: ca.Pool()})
				name := "nothing"
				if s.Handshake() == nil && len(s.ConnectionState().PeerCertificates) > 0 {
					name = s.ConnectionState().PeerCertificates[0].DNSNames[0]
				}
				_ = s.Close()
				seen <- name
			}()
			c := tls.Client(client, &tls.Config{ServerName: "a.test", RootCAs: ca.Pool(), GetClientCertificate: certs.GetClient})
			err := c.Handshake()
			_ = c.Close()
			return <-seen, err
		}
		_, err := show()
		require.ErrorContains(t, err, "no client certificate")
		for _, step := range []struct {
			set  []tls.Certificate
			want string
		}{
			{[]tls.Certificate{other.Issue("other"), ca.Issue("one")}, "one"},
			{[]tls.Certificate{other.Issue("other"), ca.Issue("two"), ca.Issue("three")}, "two"},
			{[]tls.Certificate{other.Issue("other")}, "nothing"},
		} {
			require.NoError(t, certs.Set(step.set...))
			got, err := show()
			require.NoError(t, err)
			require.Equal(t, step.want, got)
		}
	})
}
