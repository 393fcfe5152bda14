// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l4/l4test"
)

// write writes a file beside the others of a test, by a rename.
func write(t testing.TB, dir, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	require.NoError(t, os.WriteFile(path+".new", content, 0o600))
	require.NoError(t, os.Rename(path+".new", path))
	return path
}

// A clientSite is a server that verifies clients, and what it is told.
type clientSite struct {
	*testing.T
	ca       *l4test.Authority
	clients  *ClientVerifier
	server   *tls.Config
	sessions tls.ClientSessionCache // of the client that is asked for
}

func newClientSite(t *testing.T, ca *l4test.Authority, clients *ClientVerifier) *clientSite {
	t.Helper()
	require.NoError(t, clients.Load())
	return &clientSite{
		T: t, ca: ca, clients: clients, sessions: tls.NewLRUClientSessionCache(0),
		server: clients.Config(&tls.Config{Certificates: []tls.Certificate{ca.Issue("a.test")}}),
	}
}

// shake has a client with those certificates shake hands, and returns the state of the
// server's side, or why it has refused.
func (s *clientSite) shake(version uint16, certs ...tls.Certificate) (*tls.ConnectionState, error) {
	s.Helper()
	a, b := l4test.Pipe()
	var state *tls.ConnectionState
	h := &TerminateTLS{Config: s.server, Next: HandlerFunc(func(_ context.Context, c net.Conn) error {
		state = c.(*Conn).TLS()
		_, err := io.WriteString(c, "hello")
		return errors.Join(err, c.Close())
	})}
	done := make(chan error, 1)
	go func() { done <- h.ServeConn(s.Context(), b) }()
	c := tls.Client(a, &tls.Config{
		ServerName: "a.test", RootCAs: s.ca.Pool(), Certificates: certs, ClientSessionCache: s.sessions, MinVersion: version, MaxVersion: version,
	})
	_, _ = io.ReadAll(c)
	_ = c.Close()
	return state, <-done
}

var tlsVersions = []uint16{tls.VersionTLS12, tls.VersionTLS13}

// Each failure names the certificate and the reason, whatever the version.
func TestClientVerifierRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		ca := l4test.NewAuthority("authority")
		sub, lost, foreign := ca.Sub("department"), ca.Sub("lost"), l4test.NewAuthority("authority")
		good, bad, below := ca.Issue("good"), ca.Issue("bad"), sub.Issue("below")
		old := ca.Issue("old", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
		early := ca.Issue("early", func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) })
		server := ca.Issue("server", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })
		clients := &ClientVerifier{
			CAFiles: []string{write(t, dir, "ca.pem", ca.PEM())},
			CRLFiles: []string{
				write(t, dir, "ca.crl", ca.RevocationList(nil, bad, lost.Certificate)), write(t, dir, "sub.crl", sub.RevocationList(nil, ca.Issue("x"))),
			},
		}
		s := newClientSite(t, ca, clients)
		for _, version := range tlsVersions {
			for _, tt := range []struct {
				why    string
				cert   tls.Certificate
				failed string // the subject
				want   string
				is     error
			}{
				{"good", good, "", "", nil}, {"below another", below, "", "", nil},
				{"revoked", bad, "CN=bad", "revoked on 1999-12-31 (keyCompromise)", ErrRevoked},
				{"below a revoked one", lost.Issue("child"), "CN=lost", "revoked", ErrRevoked},
				{"of an authority without a list", ca.Sub("new").Issue("child"), "CN=child", "there is no list", ErrRevocationUnknown},
				{"run out", old, "CN=old", "expired", nil}, {"too early", early, "CN=early", "not yet valid", nil},
				{"of another authority of that name", foreign.Issue("good"), "CN=good", "unknown authority", nil},
				{"for servers", server, "CN=server", "incompatible key usage", nil},
			} {
				s.sessions = tls.NewLRUClientSessionCache(0)
				state, err := s.shake(version, tt.cert)
				if tt.want == "" {
					require.NoError(t, err, tt.why)
					require.NotEmpty(t, state.VerifiedChains, tt.why)
					continue
				}
				require.ErrorIs(t, err, ErrTLS, tt.why)
				require.ErrorContains(t, err, tt.want, tt.why)
				e := ClientCertErrorOf(err)
				require.NotNil(t, e, tt.why)
				require.Equal(t, tt.failed, e.Cert.Subject.String(), tt.why)
				require.Contains(t, err.Error(), fmt.Sprintf("%q", tt.failed), tt.why)
				if tt.is != nil {
					require.ErrorIs(t, err, tt.is, tt.why)
				}
			}
			_, err := s.shake(version)
			require.ErrorIs(t, err, ErrTLS)
			require.Nil(t, ClientCertErrorOf(err), "it has shown none")
		}
		s = newClientSite(t, ca, &ClientVerifier{CAFiles: clients.CAFiles, CRLFiles: clients.CRLFiles, Optional: true})
		state, err := s.shake(tls.VersionTLS13)
		require.NoError(t, err)
		require.Empty(t, state.PeerCertificates)
		s.sessions = tls.NewLRUClientSessionCache(0)
		_, err = s.shake(tls.VersionTLS13, bad)
		require.ErrorIs(t, err, ErrRevoked, "optional is not untrue")
	})
}

// Resumption gets nobody around what has changed since the full handshake: the lists,
// the authorities, the time.
func TestClientVerifierVerifiesResumedSessions(t *testing.T) {
	for _, tt := range []struct {
		why    string
		change func(dir string, ca *l4test.Authority, ann tls.Certificate, v *ClientVerifier)
		want   error
	}{
		{"nothing", func(string, *l4test.Authority, tls.Certificate, *ClientVerifier) {}, nil},
		{"revoked", func(dir string, ca *l4test.Authority, ann tls.Certificate, _ *ClientVerifier) {
			write(t, dir, "ca.crl", ca.RevocationList(nil, ann))
		}, ErrRevoked},
		{"the list has run out", func(string, *l4test.Authority, tls.Certificate, *ClientVerifier) { time.Sleep(2 * time.Hour) }, ErrRevocationUnknown},
		{"the list is broken: the old one stays", func(dir string, _ *l4test.Authority, _ tls.Certificate, _ *ClientVerifier) {
			write(t, dir, "ca.crl", []byte("x"))
		}, nil},
		{"the list is gone: the old one stays", func(dir string, _ *l4test.Authority, _ tls.Certificate, _ *ClientVerifier) {
			require.NoError(t, os.Remove(filepath.Join(dir, "ca.crl")))
		}, nil},
		{"another authority", func(dir string, _ *l4test.Authority, _ tls.Certificate, _ *ClientVerifier) {
			write(t, dir, "ca.pem", l4test.NewAuthority("authority").PEM())
		}, x509.UnknownAuthorityError{}},
	} {
		for _, version := range tlsVersions {
			t.Run(fmt.Sprint(tt.why, " ", tls.VersionName(version)), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					dir := t.TempDir()
					ca := l4test.NewAuthority("authority")
					ann := ca.Issue("ann")
					short := func(l *x509.RevocationList) { l.NextUpdate = time.Now().Add(time.Hour) }
					clients := &ClientVerifier{
						CAFiles: []string{write(t, dir, "ca.pem", ca.PEM())}, CRLFiles: []string{write(t, dir, "ca.crl", ca.RevocationList(short))},
						OnReload: func(Reload) {},
					}
					s := newClientSite(t, ca, clients)
					ctx, cancel := context.WithCancel(t.Context())
					ran := make(chan error, 1)
					go func() { ran <- clients.Run(ctx) }()
					state, err := s.shake(version, ann)
					require.NoError(t, err)
					require.False(t, state.DidResume)
					tt.change(dir, ca, ann, clients)
					time.Sleep(time.Minute)
					state, err = s.shake(version, ann)
					if tt.want == nil {
						require.NoError(t, err)
						require.True(t, state.DidResume)
					} else {
						require.Error(t, err)
						require.NotNil(t, ClientCertErrorOf(err), "%v", err)
						if _, ok := tt.want.(x509.UnknownAuthorityError); ok {
							require.ErrorContains(t, err, "unknown authority")
						} else {
							require.ErrorIs(t, err, tt.want)
						}
					}
					cancel()
					require.ErrorIs(t, <-ran, context.Canceled)
				})
			})
		}
	}
}

// With Late the handshake succeeds, and what Verify says changes while the connection is
// open, or its session is resumed.
func TestClientVerifierLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		ca := l4test.NewAuthority("authority")
		ann, foreign := ca.Issue("ann"), l4test.NewAuthority("authority").Issue("ann")
		clients := &ClientVerifier{CAs: ca.Pool(), CRLFiles: []string{write(t, dir, "ca.crl", ca.RevocationList(nil))}, Late: true}
		s := newClientSite(t, ca, clients)
		for _, version := range tlsVersions {
			s.sessions = tls.NewLRUClientSessionCache(0)
			for _, resumed := range []bool{false, true} {
				state, err := s.shake(version, foreign)
				require.NoError(t, err)
				require.Equal(t, resumed, state.DidResume)
				require.Empty(t, state.VerifiedChains)
				_, err = clients.Verify(state)
				require.ErrorContains(t, err, "unknown authority")
			}
			state, err := s.shake(version)
			require.NoError(t, err)
			if !state.DidResume {
				_, err = clients.Verify(state)
				require.ErrorIs(t, err, ErrNoClientCert)
			}
		}
		s.sessions = tls.NewLRUClientSessionCache(0)
		state, err := s.shake(tls.VersionTLS13, ann)
		require.NoError(t, err)
		chains, err := clients.Verify(state)
		require.NoError(t, err)
		require.Equal(t, "CN=authority", chains[0][1].Subject.String())
		again, err := clients.Verify(state)
		require.NoError(t, err)
		require.Same(t, &chains[0], &again[0], "it was remembered")
		require.Zero(t, testing.AllocsPerRun(100, func() { _, _ = clients.Verify(state) }))

		write(t, dir, "ca.crl", ca.RevocationList(nil, ann))
		require.NoError(t, clients.Load())
		_, err = clients.Verify(state)
		require.ErrorIs(t, err, ErrRevoked)
		write(t, dir, "ca.crl", ca.RevocationList(nil))
		require.NoError(t, clients.Load())
		_, err = clients.Verify(state)
		require.NoError(t, err)
		time.Sleep(25 * time.Hour)
		_, err = clients.Verify(state)
		require.ErrorContains(t, err, "expired", "it was remembered until then")
		_, err = clients.Verify(nil)
		require.ErrorIs(t, err, ErrNoClientCert)
		_, err = new(ClientVerifier).Verify(state)
		require.ErrorIs(t, err, errNothingLoaded)
	})
}

// A verdict is forgotten with its connection.
func TestClientVerifierForgets(t *testing.T) {
	ca := l4test.NewAuthority("authority")
	clients := &ClientVerifier{CAs: ca.Pool()}
	require.NoError(t, clients.Load())
	ann := ca.Issue("ann").Leaf
	for range 100 {
		_, err := clients.Verify(&tls.ConnectionState{PeerCertificates: []*x509.Certificate{ann}})
		require.NoError(t, err)
	}
	kept := func() (n int) {
		clients.known.m.Range(func(any, any) bool { n++; return true })
		return n
	}
	for range 100 {
		if runtime.GC(); kept() == 0 {
			return
		}
		time.Sleep(time.Millisecond) // cleanups run in a goroutine of the runtime
	}
	t.Errorf("%d verdicts are kept without a connection", kept())
}

// What the host's configuration asks for is asked as well, and each name keeps its own.
func TestClientVerifierConfig(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := l4test.NewAuthority("authority")
		clients := &ClientVerifier{CAs: ca.Pool()}
		s := newClientSite(t, ca, clients)
		asked := 0
		base := s.server.Clone()
		base.GetConfigForClient, base.Certificates = nil, nil
		inner := &tls.Config{Certificates: s.server.Certificates, NextProtos: []string{"x"}, VerifyConnection: func(tls.ConnectionState) error { asked++; return nil }}
		base.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return inner, nil }
		s.server = clients.Config(base)
		_, err := s.shake(tls.VersionTLS13, ca.Issue("ann"))
		require.NoError(t, err)
		require.Equal(t, 1, asked)
		s.sessions = tls.NewLRUClientSessionCache(0)
		_, err = s.shake(tls.VersionTLS13, l4test.NewAuthority("authority").Issue("ann"))
		require.Error(t, err)
		one, err := s.server.GetConfigForClient(&tls.ClientHelloInfo{})
		require.NoError(t, err)
		two, err := s.server.GetConfigForClient(&tls.ClientHelloInfo{})
		require.NoError(t, err)
		require.Same(t, one, two, "so that l7 knows names of the same clients")
		inner = inner.Clone()
		inner.VerifyConnection = func(tls.ConnectionState) error { return errors.New("no") }
		s.server = clients.Config(base)
		_, err = s.shake(tls.VersionTLS13, ca.Issue("ann"))
		require.ErrorContains(t, err, "no")

		unloaded := &ClientVerifier{CAs: ca.Pool()}
		s.server = unloaded.Config(&tls.Config{Certificates: inner.Certificates})
		_, err = s.shake(tls.VersionTLS13, ca.Issue("ann"))
		require.Error(t, err, "nothing is trusted before Load")
	})
}

// Parts of lists, and lists of parts (RFC 5280, sections 5.2.5 and 6.3).
func TestRevocationLists(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := l4test.NewAuthority("authority")
		uri := func(c *x509.Certificate) { c.CRLDistributionPoints = []string{"http://crl.test/1"} }
		ann, sub, other := ca.Issue("ann", uri), ca.Sub("department"), l4test.NewAuthority("authority")
		withScope := func(d distributionPoint) func(*x509.RevocationList) {
			return func(l *x509.RevocationList) {
				der, err := asn1.Marshal(d)
				require.NoError(t, err)
				l.ExtraExtensions = []pkix.Extension{{Id: oidDistributionPoint, Critical: true, Value: der}}
			}
		}
		at := func(uri string) distributionPoint {
			return distributionPoint{Point: distributionPointName{Full: []asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte(uri)}}}}
		}
		extension := func(id int, critical bool) func(*x509.RevocationList) {
			return func(l *x509.RevocationList) {
				l.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, id}, Critical: critical, Value: []byte{5, 0}}}
			}
		}
		list := ca.RevocationList
		for _, tt := range []struct {
			why  string
			list []byte
			cert tls.Certificate
			want string // of the error of reading, or of looking up; "" means good
		}{
			{"all", list(nil), ann, ""}, {"revoked", list(nil, ann), ann, "revoked"}, {"another is revoked", list(nil, sub.Certificate), ann, ""},
			{"of users", list(withScope(distributionPoint{OnlyUsers: true}), ann), ann, "revoked"},
			{"of users only", list(withScope(distributionPoint{OnlyUsers: true}), sub.Certificate), sub.Certificate, "there is no list"},
			{"of authorities", list(withScope(distributionPoint{OnlyCAs: true}), sub.Certificate), sub.Certificate, "revoked"},
			{"of authorities only", list(withScope(distributionPoint{OnlyCAs: true}), ann), ann, "there is no list"},
			{"of its point", list(withScope(at("http://crl.test/1"))), ann, ""}, {"of another point", list(withScope(at("http://crl.test/2"))), ann, "there is no list"},
			{"of a point, where it names none", list(withScope(at("http://crl.test/1"))), sub.Certificate, "there is no list"},
			{"not yet", list(func(l *x509.RevocationList) { l.ThisUpdate = time.Now().Add(time.Hour) }), ann, "begins to count"},
			{"run out", list(func(l *x509.RevocationList) { l.NextUpdate = time.Now().Add(-time.Minute) }), ann, "ran out"},
			{"run out, and it is in it", list(func(l *x509.RevocationList) { l.NextUpdate = time.Now().Add(-time.Minute) }, ann), ann, "revoked"},
			{"of another key", other.RevocationList(nil, ann), ann, "there is no list"},
			{"for attributes", list(withScope(distributionPoint{OnlyAttributes: true})), ann, "attribute certificates"},
			{"indirect", list(withScope(distributionPoint{Indirect: true})), ann, "indirect"},
			{"of some reasons", list(withScope(distributionPoint{SomeReasons: asn1.BitString{Bytes: []byte{0x40}, BitLength: 2}})), ann, "some reasons"},
			{"of nothing", list(withScope(distributionPoint{OnlyUsers: true, OnlyCAs: true})), ann, "covers nothing"},
			{"a delta", list(extension(27, true)), ann, "critical extension"}, {"unknown and critical", list(extension(99, true)), ann, "critical extension"},
			{"unknown", list(extension(99, false)), ann, ""}, {"a scope of nonsense", list(extension(28, true)), ann, "malformed"},
			{"an entry of another issuer", list(func(l *x509.RevocationList) {
				l.RevokedCertificateEntries[0].ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 29}, Critical: true, Value: []byte{5, 0}}}
			}, ann), ann, "an entry has a critical extension"},
			{"a certificate", ca.PEM(), ann, "not X509 CRL"}, {"half of it", list(nil)[:100], ann, "no block"}, {"nothing at all", nil, ann, "malformed"},
			{"half of the bytes", der(t, list(nil))[:50], ann, "malformed"}, {"bytes", der(t, list(nil, ann)), ann, "revoked"},
		} {
			lists, err := parseRevocationLists(tt.list)
			if err == nil {
				_, err = checkRevocation(lists, []*x509.Certificate{tt.cert.Leaf, ca.Leaf}, false, time.Now())
			}
			if tt.want == "" {
				require.NoError(t, err, tt.why)
			} else {
				require.ErrorContains(t, err, tt.want, tt.why)
			}
		}
		forged := der(t, list(nil))
		forged[len(forged)-1] ^= 1
		lists, err := parseRevocationLists(forged)
		require.NoError(t, err)
		_, err = checkRevocation(lists, []*x509.Certificate{ann.Leaf, ca.Leaf}, false, time.Now())
		require.ErrorContains(t, err, "signature")
		without := ca.Sub("no lists", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCertSign })
		child := without.Issue("child")
		without.Leaf.KeyUsage |= x509.KeyUsageCRLSign // or it could not make one
		lists, err = parseRevocationLists(without.RevocationList(nil))
		require.NoError(t, err)
		without.Leaf.KeyUsage = x509.KeyUsageCertSign
		_, err = checkRevocation(lists, []*x509.Certificate{child.Leaf, without.Leaf}, false, time.Now())
		require.ErrorContains(t, err, "signature")

		first, second := list(nil), list(nil, ann)
		both, err := parseRevocationLists(append(bytes.Clone(second), first...))
		require.NoError(t, err)
		require.Len(t, both, 2)
		newest := newestLists([][]*revocationList{both})
		require.Len(t, newest, 1)
		require.Len(t, newest[0].revoked, 1)
		_, err = checkRevocation(both[1:], []*x509.Certificate{sub.Issue("x").Leaf, sub.Leaf, ca.Leaf}, true, time.Now())
		require.ErrorContains(t, err, "no list")
		_, err = checkRevocation(both[1:], []*x509.Certificate{ann.Leaf, sub.Leaf, ca.Leaf}, true, time.Now())
		require.Error(t, err, "its issuer is another")
	})
}

func der(t *testing.T, text []byte) []byte {
	b, _ := pem.Decode(text)
	require.NotNil(t, b)
	return b.Bytes
}

// An older list, which an attacker or a slow mirror may bring, does not take the place of
// a newer one.
func TestRevocationListIsNotRolledBack(t *testing.T) {
	dir := t.TempDir()
	ca := l4test.NewAuthority("authority")
	ann := ca.Issue("ann")
	first, second := ca.RevocationList(nil), ca.RevocationList(nil, ann)
	path := write(t, dir, "ca.crl", second)
	clients := &ClientVerifier{CAs: ca.Pool(), CRLFiles: []string{path}}
	require.NoError(t, clients.Load())
	write(t, dir, "ca.crl", first)
	require.ErrorContains(t, clients.Load(), "older than the one in force")
	_, err := clients.Verify(&tls.ConnectionState{PeerCertificates: []*x509.Certificate{ann.Leaf}})
	require.ErrorIs(t, err, ErrRevoked)
	require.NoError(t, os.Remove(path))
	require.Error(t, clients.Load())
	_, err = clients.Verify(&tls.ConnectionState{PeerCertificates: []*x509.Certificate{ann.Leaf}})
	require.ErrorIs(t, err, ErrRevoked)
}

func TestClientVerifierSaysWhatItCannotRead(t *testing.T) {
	dir := t.TempDir()
	ca := l4test.NewAuthority("authority")
	key := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")})
	for _, tt := range []struct {
		content []byte
		want    string
	}{
		{nil, "no certificate"}, {key, "not CERTIFICATE"}, {ca.PEM()[:80], "no certificate"},
		{pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")}), "malformed"},
	} {
		clients := &ClientVerifier{CAFiles: []string{write(t, dir, "ca.pem", tt.content)}}
		require.ErrorContains(t, clients.Load(), tt.want)
		require.ErrorContains(t, clients.Load(), "ca.pem")
	}
	clients := &ClientVerifier{CAFiles: []string{write(t, dir, "ca.pem", ca.PEM())}, MaxBytes: 10}
	require.ErrorContains(t, clients.Load(), "more than 10 bytes")
	require.Error(t, new(ClientVerifier).Load())
}

func FuzzRevocationList(f *testing.F) {
	ca := l4test.NewAuthority("authority")
	ann := ca.Issue("ann")
	scope, err := asn1.Marshal(distributionPoint{OnlyUsers: true})
	require.NoError(f, err)
	f.Add(ca.RevocationList(nil, ann))
	for _, edit := range []func(*x509.RevocationList){nil, func(l *x509.RevocationList) {
		l.ExtraExtensions = []pkix.Extension{{Id: oidDistributionPoint, Critical: true, Value: scope}}
	}} {
		b, _ := pem.Decode(ca.RevocationList(edit, ann))
		f.Add(b.Bytes)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		lists, err := parseRevocationLists(b)
		if err != nil {
			return
		}
		for _, l := range lists {
			require.NotNil(t, l)
			require.False(t, l.to.IsZero())
			require.True(t, l.supersedes(l))
		}
		_, _ = checkRevocation(lists, []*x509.Certificate{ann.Leaf, ca.Leaf}, false, time.Now())
	})
}

// BenchmarkVerify is what each handshake, and each request after it, costs.
func BenchmarkVerify(b *testing.B) {
	dir := b.TempDir()
	ca := l4test.NewAuthority("authority")
	many := func(l *x509.RevocationList) {
		for i := range 100_000 {
			l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: big.NewInt(int64(i + 1)), RevocationTime: time.Now()})
		}
	}
	clients := &ClientVerifier{CAs: ca.Pool(), CRLFiles: []string{write(b, dir, "ca.crl", ca.RevocationList(many))}}
	require.NoError(b, clients.Load())
	ann := ca.Issue("ann").Leaf
	cs := &tls.ConnectionState{PeerCertificates: []*x509.Certificate{ann}}
	b.Run("first", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = clients.Verify(&tls.ConnectionState{PeerCertificates: []*x509.Certificate{ann}})
		}
	})
	b.Run("again", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = clients.Verify(cs)
		}
	})
}
