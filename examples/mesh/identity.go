// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/tls"
	"crypto/x509"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// A Source is where identities come from: a workloadapi.X509Source, which follows the
// SPIFFE Workload API, so that each handshake uses the documents of now.
type Source interface {
	x509svid.Source
	x509bundle.Source
}

// serverConfig accepts clients whose identity allow accepts.
func serverConfig(s Source, allow tlsconfig.Authorizer) *tls.Config {
	return withoutSessions(tlsconfig.MTLSServerConfig(s, s, allow))
}

// clientConfig connects to servers whose identity allow accepts.
func clientConfig(s Source, allow tlsconfig.Authorizer) *tls.Config {
	return withoutSessions(tlsconfig.MTLSClientConfig(s, s, allow))
}

// withoutSessions has each connection begin with a full handshake. The configurations of
// go-spiffe verify in VerifyPeerCertificate, which crypto/tls does not call for a session
// that is resumed: it would outlive its identity, and the authority of that.
func withoutSessions(c *tls.Config) *tls.Config {
	c.SessionTicketsDisabled = true
	return c
}

// hasID reports whether a certificate, which was verified, is of that identity.
func hasID(id spiffeid.ID) func(*x509.Certificate) bool {
	return func(c *x509.Certificate) bool {
		is, err := x509svid.IDFromCert(c)
		return err == nil && is == id
	}
}
