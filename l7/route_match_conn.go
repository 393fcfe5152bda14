// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"crypto/tls"
	"crypto/x509"
	"net/netip"
	"strings"
)

// RemoteIn matches the address of the other end of the connection (or that of
// its PROXY header). IPv4 addresses mapped into IPv6 are compared as IPv4.
type RemoteIn []netip.Prefix

// Match implements [Matcher].
func (p RemoteIn) Match(x *Exchange) bool { return within(p, x.Remote.Addr()) }

// ClientIn matches the address of the client, which a trusted proxy may have
// named: see Exchange.Client.
type ClientIn []netip.Prefix

// Match implements [Matcher].
func (p ClientIn) Match(x *Exchange) bool { return within(p, x.Client) }

// LocalIn matches the local address of the connection.
type LocalIn []netip.Prefix

// Match implements [Matcher].
func (p LocalIn) Match(x *Exchange) bool { return within(p, x.Local.Addr()) }

// within reports whether one of the prefixes contains a.
func within(prefixes []netip.Prefix, a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	for _, p := range prefixes {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// LocalPort matches the local port of the connection.
type LocalPort uint16

// Match implements [Matcher].
func (p LocalPort) Match(x *Exchange) bool { return x.Local.Port() == uint16(p) }

// RemotePorts matches the port of the other end, both bounds included.
type RemotePorts struct{ From, To uint16 }

// Match implements [Matcher].
func (p RemotePorts) Match(x *Exchange) bool {
	return p.From <= x.Remote.Port() && x.Remote.Port() <= p.To && x.Remote.IsValid()
}

// SNI matches the server name of the TLS handshake, under the rules of
// [Host]. Without TLS nothing matches, not even "*".
type SNI string

// Match implements [Matcher].
func (s SNI) Match(x *Exchange) bool {
	if x.TLS == nil {
		return false
	}
	want, have := Host(s).clean(), x.TLS.ServerName
	if suffix, ok := strings.CutPrefix(want, "*"); ok {
		n := len(have) - len(suffix)
		return n > 0 && equalFold(have[n:], suffix) || want == "*"
	}
	return equalFold(want, strings.TrimSuffix(have, "."))
}

// ALPN matches the protocol negotiated in the TLS handshake, such as "h2". ""
// matches TLS without one.
type ALPN string

// Match implements [Matcher].
func (a ALPN) Match(x *Exchange) bool {
	return x.TLS != nil && x.TLS.NegotiatedProtocol == string(a)
}

// JA4 matches clients whose TLS has that fingerprint (see [Exchange.JA4]).
type JA4 string

// Match implements [Matcher].
func (j JA4) Match(x *Exchange) bool { return x.ja4 == string(j) && j != "" }

// TLS matches TLS connections of a version from Min to Max, both included (such
// as tls.VersionTLS13); 0 means no bound.
type TLS struct{ Min, Max uint16 }

// Match implements [Matcher].
func (t TLS) Match(x *Exchange) bool {
	return x.TLS != nil && x.TLS.Version >= t.Min && (t.Max == 0 || x.TLS.Version <= t.Max)
}

// ClientCert matches clients with a verified certificate
// (tls.VerifyClientCertIfGiven or stricter). Subject and Issuer are common
// names; empty ones match any.
type ClientCert struct {
	Subject string
	Issuer  string
	Test    func(*x509.Certificate) bool // nil accepts all

	// Unverified also matches certificates that were not verified. They prove
	// nothing.
	Unverified bool
}

// Match implements [Matcher].
func (c ClientCert) Match(x *Exchange) bool {
	cert := clientCert(x.TLS, c.Unverified)
	return cert != nil &&
		(c.Subject == "" || c.Subject == cert.Subject.CommonName) &&
		(c.Issuer == "" || c.Issuer == cert.Issuer.CommonName) &&
		(c.Test == nil || c.Test(cert))
}

func clientCert(cs *tls.ConnectionState, unverified bool) *x509.Certificate {
	switch {
	case cs == nil:
		return nil
	case len(cs.VerifiedChains) > 0 && len(cs.VerifiedChains[0]) > 0:
		return cs.VerifiedChains[0][0]
	case unverified && len(cs.PeerCertificates) > 0:
		return cs.PeerCertificates[0]
	}
	return nil
}
