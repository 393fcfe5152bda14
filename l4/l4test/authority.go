// SPDX-License-Identifier: Apache-2.0

package l4test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"sync/atomic"
	"time"
)

// An Authority issues certificates, and lists of those that it has revoked, for tests of
// TLS. They count from an hour ago for a day, by the clock of the bubble of
// testing/synctest in which they are made. All methods may be called at once. They panic
// where a certificate cannot be made.
type Authority struct {
	tls.Certificate            // its own, with those of the authorities above it but the first
	Root            *Authority // the first one, that is trusted; it may be this one

	lists atomic.Int64
}

// NewAuthority returns an authority that has signed its own certificate.
func NewAuthority(name string) *Authority {
	a := &Authority{}
	a.Certificate = issue(name, nil, []func(*x509.Certificate){authority})
	a.Root = a
	return a
}

// Sub returns an authority below a. The edits change its certificate before that is
// signed.
func (a *Authority) Sub(name string, edits ...func(*x509.Certificate)) *Authority {
	return &Authority{Certificate: a.Issue(name, append([]func(*x509.Certificate){authority}, edits...)...), Root: a.Root}
}

func authority(c *x509.Certificate) {
	c.IsCA, c.BasicConstraintsValid = true, true
	c.KeyUsage, c.ExtKeyUsage, c.DNSNames = x509.KeyUsageCertSign|x509.KeyUsageCRLSign, nil, nil
}

// Issue returns a certificate for a name, for servers and clients, with those between it
// and the first authority. The edits change it before it is signed.
func (a *Authority) Issue(name string, edits ...func(*x509.Certificate)) tls.Certificate {
	return issue(name, a, edits)
}

func issue(name string, a *Authority, edits []func(*x509.Certificate)) tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	must(err)
	now := time.Now()
	c := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, edit := range edits {
		edit(c)
	}
	parent, signer := c, crypto.PrivateKey(key)
	if a != nil {
		parent, signer = a.Leaf, a.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer)
	must(err)
	leaf, err := x509.ParseCertificate(der)
	must(err)
	cert := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
	if a != nil && a.Root != a {
		cert.Certificate = append(cert.Certificate, a.Certificate.Certificate...)
	}
	return cert
}

// RevocationList returns a list of the certificates, in PEM, with a number above those
// of the lists before. Edit changes it before it is signed; nil means as it is.
func (a *Authority) RevocationList(edit func(*x509.RevocationList), revoked ...tls.Certificate) []byte {
	now := time.Now()
	l := &x509.RevocationList{
		Number: big.NewInt(a.lists.Add(1)), ThisUpdate: now.Add(-time.Hour), NextUpdate: now.Add(24 * time.Hour),
	}
	for _, c := range revoked {
		l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{
			SerialNumber: c.Leaf.SerialNumber, RevocationTime: now.Add(-time.Minute), ReasonCode: 1,
		})
	}
	if edit != nil {
		edit(l)
	}
	der, err := x509.CreateRevocationList(rand.Reader, l, a.Leaf, a.PrivateKey.(crypto.Signer))
	must(err)
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
}

// PEM returns the authority's own certificate.
func (a *Authority) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Leaf.Raw})
}

// Pool returns a pool with the first authority.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.Root.Leaf)
	return pool
}

// CertificatePEM returns the certificates of c and its key, in PEM, as files have them.
func CertificatePEM(c tls.Certificate) (certs, key []byte) {
	for _, der := range c.Certificate {
		certs = append(certs, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	must(err)
	return certs, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
