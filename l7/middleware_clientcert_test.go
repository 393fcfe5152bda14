// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l4/l4test"
)

// A certSite is a server that asks clients for certificates, with a handler in front of
// one that tells what arrives.
type certSite struct {
	*testing.T
	net     *l4test.Network
	ca      *l4test.Authority
	dir     string
	records []Record
	refused []error // handshakes
	arrived http.Header
	trailer http.Header
}

// onCertSite runs test over HTTP/1 and HTTP/2.
func onCertSite(t *testing.T, clients func(s *certSite) *l4.ClientVerifier, handler func(s *certSite, v *l4.ClientVerifier, next http.Handler) http.Handler, test func(s *certSite, v *l4.ClientVerifier, proto string)) {
	for _, proto := range []string{"http/1.1", "h2"} {
		t.Run(proto, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &certSite{T: t, net: l4test.NewNetwork(), ca: l4test.NewAuthority("authority"), dir: t.TempDir()}
				v := clients(s)
				require.NoError(t, v.Load())
				origin, err := s.net.Listen("tcp", "10.1.0.1:80")
				require.NoError(t, err)
				backend := &Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					_, _ = io.Copy(io.Discard, r.Body)
					s.arrived, s.trailer = r.Header, r.Trailer
				})}
				go backend.Serve(origin)
				pool := new(balance.Pool)
				require.NoError(t, pool.Set(balance.Endpoint{Addr: "10.1.0.1:80"}))
				gateway := &Server{
					TLSConfig: v.Config(&tls.Config{Certificates: []tls.Certificate{s.ca.Issue("a.test")}, NextProtos: []string{proto}}), JA4: true,
					Handler: handler(s, v, &Proxy{Pool: pool, Upstream: &Upstream{Dial: s.net.DialContext}}),
					OnHandshakeError: func(_ netip.AddrPort, err error) {
						s.refused = append(s.refused, err)
						panic("the host's")
					},
					OnDone: func(r *Record) { s.records = append(s.records, *r) },
				}
				ln, err := s.net.Listen("tcp", "10.0.0.1:443")
				require.NoError(t, err)
				go gateway.ServeTLS(ln, "", "")
				defer func() {
					require.NoError(t, gateway.Close())
					require.NoError(t, backend.Close())
				}()
				test(s, v, proto)
			})
		})
	}
}

// client returns a client with a certificate, whose sessions are resumed.
func (s *certSite) client(proto string, certs ...tls.Certificate) *http.Client {
	tr := &http.Transport{
		DialContext: s.net.DialContext, Protocols: new(http.Protocols),
		TLSClientConfig: &tls.Config{ServerName: "a.test", RootCAs: s.ca.Pool(), ClientSessionCache: tls.NewLRUClientSessionCache(0), NextProtos: []string{proto},
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				if len(certs) == 0 {
					return new(tls.Certificate), nil
				}
				return &certs[0], nil
			}},
	}
	tr.Protocols.SetHTTP1(proto != "h2")
	tr.Protocols.SetHTTP2(proto == "h2")
	s.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// get asks for a page and returns the status and the body.
func (s *certSite) get(c *http.Client, edit func(*http.Request)) (int, string) {
	s.Helper()
	r, err := http.NewRequestWithContext(s.Context(), "GET", "https://10.0.0.1/", nil)
	require.NoError(s, err)
	r.Host = "a.test"
	if edit != nil {
		edit(r)
	}
	s.arrived, s.trailer = nil, nil
	resp, err := c.Do(r)
	require.NoError(s, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(s, err)
	synctest.Wait()
	return resp.StatusCode, string(b)
}

func (s *certSite) write(name string, b []byte) string {
	path := filepath.Join(s.dir, name)
	require.NoError(s, os.WriteFile(path+".new", b, 0o600))
	require.NoError(s, os.Rename(path+".new", path))
	return path
}

// With Late, a page says what is wrong; a certificate that is revoked ends in the middle
// of its connection, and its session is of no use either.
func TestVerifyClientAnswersWithAPage(t *testing.T) {
	page := HandlerFunc(func(x *Exchange) {
		text := "no certificate"
		if e, ok := errors.AsType[*l4.ClientCertError](x.Record.Err); ok {
			text = e.Cert.Subject.CommonName + " is wrong"
		}
		if (ClientCert{}).Match(x) {
			text = "matches"
		}
		x.Respond(403, nil, text)
	})
	onCertSite(t, func(s *certSite) *l4.ClientVerifier {
		return &l4.ClientVerifier{CAs: s.ca.Pool(), CRLFiles: []string{s.write("ca.crl", s.ca.RevocationList(nil))}, Late: true}
	}, func(_ *certSite, v *l4.ClientVerifier, next http.Handler) http.Handler {
		return &VerifyClient{Clients: v, Refuse: page, Next: &Access{Allow: ClientCert{Issuer: "authority"}, Next: &ForwardClientCert{XFCC: XFCCSet, Subject: true, Next: next}}}
	}, func(s *certSite, v *l4.ClientVerifier, proto string) {
		last := func() *Record { return &s.records[len(s.records)-1] }
		status, body := s.get(s.client(proto), nil)
		require.Equal(s, "403 no certificate", fmt.Sprint(status, " ", body))
		require.ErrorIs(s, last().Err, l4.ErrNoClientCert)
		require.Equal(s, "VerifyClient: refused", last().Decision)
		require.Equal(s, l4.Denied, last().Termination.Cause)

		forger := s.client(proto, l4test.NewAuthority("authority").Issue("ann"))
		for range 2 { // the second time over a resumed session
			status, body = s.get(forger, func(r *http.Request) { r.Header.Set("X-Forwarded-Client-Cert", "Subject=\"CN=ann\"") })
			require.Equal(s, "403 ann is wrong", fmt.Sprint(status, " ", body))
			require.Nil(s, s.arrived)
			forger.CloseIdleConnections()
		}

		cert := s.ca.Issue("ann")
		ann := s.client(proto, cert)
		status, _ = s.get(ann, nil)
		require.Equal(s, 200, status)
		require.Contains(s, s.arrived.Get("X-Forwarded-Client-Cert"), `Subject="CN=ann"`)
		require.Equal(s, "VerifyClient: verified; ForwardClientCert: told", last().Decision)
		require.Len(s, last().JA4, 36)

		s.write("ca.crl", s.ca.RevocationList(nil, cert))
		require.NoError(s, v.Load())
		for range 2 { // on its connection, and then over a resumed session
			status, body = s.get(ann, nil)
			require.Equal(s, "403 ann is wrong", fmt.Sprint(status, " ", body))
			require.ErrorIs(s, last().Err, l4.ErrRevoked)
			ann.CloseIdleConnections()
		}
	})
}

// A certificate that was good in the handshake is looked at for each request.
func TestVerifyClientRefusesOpenConnections(t *testing.T) {
	onCertSite(t, func(s *certSite) *l4.ClientVerifier {
		s.refused = nil
		return &l4.ClientVerifier{CAs: s.ca.Pool(), CRLFiles: []string{s.write("ca.crl", s.ca.RevocationList(nil))}, Optional: true}
	}, func(_ *certSite, v *l4.ClientVerifier, next http.Handler) http.Handler {
		return &VerifyClient{Clients: v, Next: next}
	}, func(s *certSite, v *l4.ClientVerifier, proto string) {
		cert := s.ca.Issue("ann")
		ann, nobody := s.client(proto, cert), s.client(proto)
		status, _ := s.get(ann, nil)
		require.Equal(s, 200, status)
		status, _ = s.get(nobody, nil)
		require.Equal(s, 200, status, "it is optional")
		require.Equal(s, "VerifyClient: no certificate", s.records[1].Decision)
		s.write("ca.crl", s.ca.RevocationList(nil, cert))
		require.NoError(s, v.Load())
		status, _ = s.get(ann, nil)
		require.Equal(s, 403, status)
		ann.CloseIdleConnections()
		r, err := http.NewRequestWithContext(s.Context(), "GET", "https://10.0.0.1/", nil)
		require.NoError(s, err)
		_, err = ann.Do(r)
		require.Error(s, err, "its session does not help")
		synctest.Wait()
		require.Len(s, s.refused, 1)
		require.ErrorIs(s, s.refused[0], l4.ErrRevoked)
		require.ErrorContains(s, s.refused[0], `"CN=ann"`)
	})
}

// Handlers of net/http find in Request.TLS what VerifyClient has found, also those that a
// connection of HTTP/1 was handed over to.
func TestVerifyClientTellsNetHTTP(t *testing.T) {
	for _, late := range []bool{true, false} {
		onCertSite(t, func(s *certSite) *l4.ClientVerifier {
			return &l4.ClientVerifier{CAs: s.ca.Pool(), CRLFiles: []string{s.write("ca.crl", s.ca.RevocationList(nil))}, Late: late}
		}, func(_ *certSite, v *l4.ClientVerifier, _ http.Handler) http.Handler {
			foreign := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, len(r.TLS.VerifiedChains)) })
			return &VerifyClient{Clients: v, Refuse: foreign, Next: foreign}
		}, func(s *certSite, v *l4.ClientVerifier, proto string) {
			cert := s.ca.Issue("ann")
			ann := s.client(proto, cert)
			for range 2 { // the second one is on the standard front from its beginning
				_, chains := s.get(ann, nil)
				require.Equal(s, "1", chains)
			}
			s.write("ca.crl", s.ca.RevocationList(nil, cert))
			require.NoError(s, v.Load())
			_, chains := s.get(ann, nil)
			require.Equal(s, "0", chains)
		})
	}
}

// Chains that the handshake has found and the verifier does not count are not found by
// what comes after it.
func TestVerifyClientDropsChains(t *testing.T) {
	ca, wider := l4test.NewAuthority("authority"), l4test.NewAuthority("wider")
	leaf := ca.Issue("ann").Leaf
	clients := &l4.ClientVerifier{CAs: ca.Pool()}
	require.NoError(t, clients.Load())
	counts := []*x509.Certificate{leaf, ca.Leaf}
	for _, shaken := range [][][]*x509.Certificate{nil, {counts}, {{leaf, wider.Leaf}, counts}, {{leaf, wider.Leaf}}} {
		x := &Exchange{TLS: &tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}, VerifiedChains: shaken}}
		was := x.TLS
		h := &VerifyClient{Clients: clients, Next: HandlerFunc(func(x *Exchange) {
			require.Equal(t, [][]*x509.Certificate{counts}, x.TLS.VerifiedChains)
		})}
		h.ServeExchange(x)
		require.Equal(t, "VerifyClient: verified", x.Record.Decision)
		require.Equal(t, shaken, was.VerifiedChains, "the connection's own state stays")
		require.Equal(t, len(shaken) == 1 && &shaken[0][0] == &counts[0], x.TLS == was, "it is copied only if there is a difference")
	}
}

// Servers get our word about the certificate, in whatever form a request claims another.
func TestForwardClientCertNoWayAround(t *testing.T) {
	names := []string{"Client-Cert", "client_cert", "CLIENT-CERT", "Client_Cert", "Client-Cert-Chain", "client_cert-chain", "X-Forwarded-Client-Cert", "x_forwarded_client_cert", "X-Forwarded_Client-Cert"}
	for _, shows := range []bool{true, false} {
		onCertSite(t, func(s *certSite) *l4.ClientVerifier {
			return &l4.ClientVerifier{CAs: s.ca.Pool(), Optional: true}
		}, func(_ *certSite, _ *l4.ClientVerifier, next http.Handler) http.Handler {
			return &ForwardClientCert{Standard: true, Chain: true, XFCC: XFCCAppend, Trust: ClientCert{Subject: "edge"}, Subject: true, Next: next}
		}, func(s *certSite, _ *l4.ClientVerifier, proto string) {
			var certs []tls.Certificate
			if shows {
				certs = append(certs, s.ca.Sub("department").Issue("ann"))
			}
			c := s.client(proto, certs...)
			check := func(what string) {
				s.Helper()
				require.NotNil(s, s.arrived, what)
				for _, h := range []http.Header{s.arrived, s.trailer} {
					for name, values := range h {
						if len(values) == 0 || !strings.Contains(strings.ReplaceAll(strings.ToLower(name), "_", "-"), "client-cert") {
							continue
						}
						require.True(s, shows && len(values) == 1, "%s: %s: %q", what, name, values)
						require.NotContains(s, values[0], "root", what)
					}
				}
				if !shows {
					return
				}
				require.Equal(s, byteSequence(certs[0].Certificate[0]), s.arrived.Get("Client-Cert"), what)
				require.Equal(s, byteSequence(certs[0].Certificate[1]), s.arrived.Get("Client-Cert-Chain"), what)
				require.Contains(s, s.arrived.Get("X-Forwarded-Client-Cert"), `;Subject="CN=ann"`, what)
			}
			for _, name := range names {
				for _, values := range [][]string{{"root"}, {":root:", ":root:"}, {""}, {`Hash=1;Subject="CN=root"`}, {`Subject="CN=root`}} {
					s.get(c, func(r *http.Request) { r.Header[name] = values })
					check(fmt.Sprintf("%s: %q", name, values))
				}
				s.get(c, func(r *http.Request) {
					r.Method, r.Body, r.ContentLength = "POST", io.NopCloser(strings.NewReader("abc")), -1
					r.Trailer = http.Header{name: {"root"}}
				})
				check("trailer " + name)
			}
			if proto == "h2" {
				return
			}
			for _, name := range names { // a client that names our field in Connection would have it dropped
				s.arrived = nil
				dial, err := s.net.DialContext(s.Context(), "tcp", "10.0.0.1:443")
				require.NoError(s, err)
				cfg := c.Transport.(*http.Transport).TLSClientConfig.Clone()
				raw := tls.Client(dial, cfg)
				_, err = io.WriteString(raw, "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close, "+name+"\r\n"+name+": root\r\n\r\n")
				require.NoError(s, err)
				_, _ = io.ReadAll(raw)
				raw.Close()
				synctest.Wait()
				check("Connection: " + name)
			}
		})
	}
}

// What a proxy of ours says goes on; XFCC says what becomes of it.
func TestForwardClientCertTrust(t *testing.T) {
	edge, ann := exchangeCert(t, "edge"), exchangeCert(t, "ann")
	claim := byteSequence([]byte("theirs"))
	hash := sha256.Sum256(edge.PeerCertificates[0].Raw)
	ours := "Hash=" + hex.EncodeToString(hash[:])
	for _, tt := range []struct {
		why  string
		h    *ForwardClientCert
		tls  *tls.ConnectionState
		sent []string
		want []string
		told string
	}{
		{"sanitize", &ForwardClientCert{}, edge, []string{"X-Forwarded-Client-Cert", "Hash=1", "Client-Cert", claim}, nil, "none told"},
		{"set", &ForwardClientCert{XFCC: XFCCSet}, edge, []string{"X-Forwarded-Client-Cert", "Hash=1"}, []string{"X-Forwarded-Client-Cert", ours}, "told"},
		{"append", &ForwardClientCert{XFCC: XFCCAppend}, edge, []string{"X-Forwarded-Client-Cert", "Hash=1"}, []string{"X-Forwarded-Client-Cert", "Hash=1," + ours}, "passed on"},
		{"append two lines", &ForwardClientCert{XFCC: XFCCAppend}, edge, []string{"X-Forwarded-Client-Cert", "Hash=1", "x-forwarded-client-cert", `Subject="a\",b"`}, []string{"X-Forwarded-Client-Cert", `Hash=1, Subject="a\",b",` + ours}, "passed on"},
		{"append to nothing", &ForwardClientCert{XFCC: XFCCAppend}, edge, nil, []string{"X-Forwarded-Client-Cert", ours}, "told"},
		{"append to an open quote", &ForwardClientCert{XFCC: XFCCAppend}, edge, []string{"X-Forwarded-Client-Cert", `Subject="a`}, []string{"X-Forwarded-Client-Cert", ours}, "told"},
		{"append to an escaped one", &ForwardClientCert{XFCC: XFCCAppend}, edge, []string{"X-Forwarded-Client-Cert", `Subject="a\"`}, []string{"X-Forwarded-Client-Cert", ours}, "told"},
		{"forward", &ForwardClientCert{XFCC: XFCCForward}, edge, []string{"X-Forwarded-Client-Cert", "Hash=1"}, []string{"X-Forwarded-Client-Cert", "Hash=1"}, "passed on"},
		{"forward of others", &ForwardClientCert{XFCC: XFCCForward}, ann, []string{"X-Forwarded-Client-Cert", "Hash=1"}, nil, "none told"},
		{"forward by another spelling", &ForwardClientCert{XFCC: XFCCForward}, edge, []string{"X_Forwarded_Client_Cert", "Hash=1"}, nil, "none told"},
		{"standard", &ForwardClientCert{Standard: true, Chain: true}, edge, []string{"Client-Cert", claim, "Client-Cert-Chain", claim, "client-cert-chain", claim}, []string{"Client-Cert", claim, "Client-Cert-Chain", claim + ", " + claim}, "passed on"},
		{"standard, twice", &ForwardClientCert{Standard: true}, edge, []string{"Client-Cert", claim, "Client-Cert", claim}, nil, "none told"},
		{"standard, malformed", &ForwardClientCert{Standard: true}, edge, []string{"Client-Cert", "theirs"}, nil, "none told"},
		{"standard, silent", &ForwardClientCert{Standard: true, Chain: true}, edge, nil, nil, "none told"},
		{"standard, a chain alone", &ForwardClientCert{Standard: true, Chain: true}, edge, []string{"Client-Cert-Chain", claim}, nil, "none told"},
		{"both, silent", &ForwardClientCert{Standard: true, XFCC: XFCCAppend}, edge, nil, []string{"X-Forwarded-Client-Cert", ours}, "told"},
		{"standard of others", &ForwardClientCert{Standard: true}, ann, []string{"Client-Cert", claim}, []string{"Client-Cert", byteSequence(ann.PeerCertificates[0].Raw)}, "told"},
		{"without TLS", &ForwardClientCert{Standard: true, XFCC: XFCCSet}, nil, []string{"Client-Cert", claim, "X-Forwarded-Client-Cert", "Hash=1"}, nil, "none told"},
		{"not verified", &ForwardClientCert{Standard: true}, &tls.ConnectionState{PeerCertificates: ann.PeerCertificates}, nil, nil, "none told"},
		{"verified elsewhere", &ForwardClientCert{Standard: true, Unverified: true}, &tls.ConnectionState{PeerCertificates: ann.PeerCertificates}, nil, []string{"Client-Cert", byteSequence(ann.PeerCertificates[0].Raw)}, "told"},
	} {
		tt.h.Trust = ClientCert{Subject: "edge"}
		x := parsedExchange(t, tt.sent...)
		x.TLS = tt.tls
		var got []string
		tt.h.Next = HandlerFunc(func(x *Exchange) {
			for name, value := range x.Header.All() {
				got = append(got, name, value)
			}
			require.Zero(t, x.Header.Len() > 0 && x.Header.list[0].kind == kindForwarded, "it is ours now")
		})
		tt.h.ServeExchange(x)
		require.Equal(t, tt.want, got, tt.why)
		require.Equal(t, "ForwardClientCert: "+tt.told, x.Record.Decision, tt.why)
	}
}

// parsedExchange has fields as they came from a client.
func parsedExchange(t *testing.T, fields ...string) *Exchange {
	x := &Exchange{}
	for i := 0; i < len(fields); i += 2 {
		x.Header.list = append(x.Header.list, Field{Name: fields[i], Value: fields[i+1], kind: kindOf(fields[i]), checked: true})
	}
	return x
}

func exchangeCert(t *testing.T, name string, edits ...func(*x509.Certificate)) *tls.ConnectionState {
	ca := l4test.NewAuthority("authority")
	leaf := ca.Issue(name, edits...).Leaf
	return &tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}, VerifiedChains: [][]*x509.Certificate{{leaf, ca.Leaf}}}
}

// Names in a certificate never end their element, nor the quotes around it.
func TestForwardClientCertEscapes(t *testing.T) {
	spiffe, err := url.Parse("spiffe://a.test/b;c=d,e%22")
	require.NoError(t, err)
	h := &ForwardClientCert{XFCC: XFCCSet, By: "spiffe://a.test/gateway", Subject: true, Cert: true, Chain: true, URI: true, DNS: true}
	for _, name := range []string{`a",URI=spiffe://root`, `a\`, `a\"`, `a\\",Hash=0`, "a\r\nb", "bücher", "", " a ", "#a", `"`, "a;b=c"} {
		cs := exchangeCert(t, "x", func(c *x509.Certificate) {
			c.Subject = pkix.Name{CommonName: name, Organization: []string{"o, p", `"q"`}}
			c.URIs, c.DNSNames = []*url.URL{spiffe}, []string{"a.test", `b"c,d`}
		})
		text := h.fields(cs, cs.PeerCertificates[0]).xfcc
		require.True(t, validXFCC(text), text)
		require.True(t, validValue(text), text)
		_, rest, ok := strings.Cut(text, `;Subject="`)
		require.True(t, ok)
		subject, rest, ok := strings.Cut(rest, `"`)
		require.True(t, ok)
		require.False(t, strings.HasSuffix(subject, `\`), "whatever a reader takes for an escape: %s", subject)
		require.Equal(t, `;URI="spiffe://a.test/b;c=d,e%22";DNS=a.test;DNS="b%22c,d"`, rest)
		_, cert, _ := strings.Cut(text, `;Cert="`)
		cert, _, _ = strings.Cut(cert, `"`)
		plain, err := url.PathUnescape(cert)
		require.NoError(t, err)
		block, _ := pem.Decode([]byte(plain))
		require.Equal(t, cs.PeerCertificates[0].Raw, block.Bytes)
		require.True(t, strings.HasPrefix(text, "By=spiffe://a.test/gateway;Hash="))
	}
	require.Equal(t, `CN=b\C3\BCcher`, escapedName(pkix.Name{CommonName: "bücher"}))
	require.Equal(t, `CN=a\22\,b\5C`, escapedName(pkix.Name{CommonName: `a",b\`}))
}

func FuzzValidXFCC(f *testing.F) {
	f.Add(`By=a;Hash=b;Subject="CN=a\",b";URI=,By=c`)
	f.Add(`Subject="a`)
	f.Fuzz(func(t *testing.T, s string) {
		if !validXFCC(s) {
			return
		}
		// What is appended is outside of quotes, by a reader that knows escapes.
		quoted := false
		for i := 0; i < len(s); i++ {
			switch {
			case quoted && s[i] == '\\':
				i++
			case s[i] == '"':
				quoted = !quoted
			}
		}
		require.False(t, quoted, s)
	})
}

// It works under an http.Server, as any handler does.
func TestForwardClientCertUnderNetHTTP(t *testing.T) {
	cs := exchangeCert(t, "ann")
	var got string
	h := &ForwardClientCert{Standard: true, Next: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r.Header.Get("Client-Cert") })}
	r := httptest.NewRequest("GET", "/", nil)
	r.TLS = cs
	r.Header["Client_Cert"] = []string{"root"}
	h.ServeHTTP(httptest.NewRecorder(), r)
	require.Equal(t, byteSequence(cs.PeerCertificates[0].Raw), got)
	b, err := base64.StdEncoding.DecodeString(strings.Trim(got, ":"))
	require.NoError(t, err)
	require.Equal(t, cs.PeerCertificates[0].Raw, b)
}

// A PROXY header is found under TLS that the server ends itself, and so is a fingerprint
// that was made before.
func TestTLSBehindL4KeepsWhatWasFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := l4test.NewNetwork()
		ca := l4test.NewAuthority("authority")
		var header *l4.ProxyHeader
		var ja4 string
		s := &Server{
			TLSConfig: &tls.Config{Certificates: []tls.Certificate{ca.Issue("a.test")}},
			Handler:   HandlerFunc(func(x *Exchange) { header, ja4 = x.ProxyHeader(), x.JA4(); x.Respond(204, nil, "") }),
		}
		ln, err := n.Listen("tcp", "10.0.0.1:443")
		require.NoError(t, err)
		behind := new(l4.Listener)
		front := &l4.Server{Handler: &l4.AcceptProxy{Trusted: l4.MustParsePrefixes("0.0.0.0/0"), Next: &l4.Router{Routes: []l4.Route{{Match: l4.Not(l4.JA4("none")), Handler: behind}}}}}
		go front.Serve(ln)
		go s.ServeTLS(behind, "", "")
		tr := &http.Transport{TLSClientConfig: &tls.Config{ServerName: "a.test", RootCAs: ca.Pool()}, DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := n.DialContext(ctx, network, addr)
			if err == nil {
				_, err = io.WriteString(c, "PROXY TCP4 192.0.2.9 192.0.2.8 1 2\r\n")
			}
			return c, err
		}}
		resp, err := (&http.Client{Transport: tr}).Get("https://10.0.0.1/")
		require.NoError(t, err)
		resp.Body.Close()
		require.NotNil(t, header)
		require.Len(t, ja4, 36)
		tr.CloseIdleConnections()
		require.NoError(t, s.Close())
		require.NoError(t, front.Close())
	})
}

func BenchmarkClientCert(b *testing.B) {
	ca := l4test.NewAuthority("authority")
	leaf := ca.Issue("ann").Leaf
	clients := &l4.ClientVerifier{CAs: ca.Pool()}
	require.NoError(b, clients.Load())
	next := HandlerFunc(func(*Exchange) {})
	verified := &tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}, VerifiedChains: [][]*x509.Certificate{{leaf, ca.Leaf}}}
	late := &tls.ConnectionState{PeerCertificates: verified.PeerCertificates}
	for _, bb := range []struct {
		name string
		h    Handler
		tls  *tls.ConnectionState
	}{
		{"verify", &VerifyClient{Clients: clients, Next: next}, verified}, {"verify late", &VerifyClient{Clients: clients, Next: next}, late},
		{"forward RFC 9440", &ForwardClientCert{Standard: true, Next: next}, verified}, {"forward XFCC", &ForwardClientCert{XFCC: XFCCSet, Subject: true, Next: next}, verified},
	} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			x := &Exchange{}
			x.Header.reset()
			for b.Loop() {
				x.Header.reset()
				x.TLS, x.Record.Decision = bb.tls, ""
				bb.h.ServeExchange(x)
			}
		})
	}
}
