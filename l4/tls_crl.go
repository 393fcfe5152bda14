// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"sync/atomic"
	"time"
)

// A revocationList is a certificate revocation list (RFC 5280, section 5) that covers
// its certificates completely: neither a delta list nor an indirect one. It does not
// change.
type revocationList struct {
	issuer   []byte // DER of its name
	keyID    []byte // of the issuer's key; nil if the list does not say
	number   *big.Int
	from, to time.Time
	revoked  map[string]revocation // by the bytes of the serial number
	scope    []byte                // DER of what it covers; nil means all
	uris     []string              // it covers certificates that name one of them; empty means all
	only     byte                  // 'u' users' certificates, 'a' authorities'; 0 means both

	signed *x509.RevocationList              // what a signature is checked of
	signer atomic.Pointer[[sha256.Size]byte] // of the public key that has signed it; nil if not yet checked
}

type revocation struct {
	at     time.Time
	reason int
}

// The extensions of lists and of their entries (RFC 5280, sections 5.2 and 5.3).
var (
	oidCRLNumber         = asn1.ObjectIdentifier{2, 5, 29, 20}
	oidReasonCode        = asn1.ObjectIdentifier{2, 5, 29, 21}
	oidInvalidityDate    = asn1.ObjectIdentifier{2, 5, 29, 24}
	oidDistributionPoint = asn1.ObjectIdentifier{2, 5, 29, 28}
	oidAuthorityKeyID    = asn1.ObjectIdentifier{2, 5, 29, 35}
)

// parseRevocationLists reads a list in DER, or any number of them in PEM.
func parseRevocationLists(b []byte) ([]*revocationList, error) {
	if !bytes.Contains(b, []byte("-----BEGIN ")) {
		l, err := parseRevocationList(b)
		return []*revocationList{l}, err
	}
	var all []*revocationList
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "X509 CRL" {
			return nil, fmt.Errorf("a block of PEM is %q, not X509 CRL", block.Type)
		}
		l, err := parseRevocationList(block.Bytes)
		if err != nil {
			return nil, err
		}
		all = append(all, l)
	}
	if len(all) == 0 {
		return nil, errors.New("no block of PEM is complete")
	}
	return all, nil
}

func parseRevocationList(der []byte) (*revocationList, error) {
	p, err := x509.ParseRevocationList(der)
	if err != nil {
		return nil, err
	}
	l := &revocationList{
		issuer: p.RawIssuer, keyID: p.AuthorityKeyId, number: p.Number, from: p.ThisUpdate, to: p.NextUpdate,
		revoked: make(map[string]revocation, len(p.RevokedCertificateEntries)),
		signed: &x509.RevocationList{
			RawTBSRevocationList: p.RawTBSRevocationList, Signature: p.Signature, SignatureAlgorithm: p.SignatureAlgorithm,
		},
	}
	if l.to.IsZero() {
		return nil, errors.New("the list does not say when the next one comes (RFC 5280, section 5.1.2.5)")
	}
	for _, e := range p.Extensions {
		switch {
		case e.Id.Equal(oidDistributionPoint):
			err = l.readScope(e.Value)
		case e.Critical && !e.Id.Equal(oidCRLNumber) && !e.Id.Equal(oidAuthorityKeyID):
			err = fmt.Errorf("the list has a critical extension that is not known, %v (a delta list has 2.5.29.27)", e.Id)
		}
		if err != nil {
			return nil, err
		}
	}
	for i := range p.RevokedCertificateEntries {
		e := &p.RevokedCertificateEntries[i]
		for _, x := range e.Extensions {
			if x.Critical && !x.Id.Equal(oidReasonCode) && !x.Id.Equal(oidInvalidityDate) {
				return nil, fmt.Errorf("an entry has a critical extension that is not known, %v (an indirect list has 2.5.29.29)", x.Id)
			}
		}
		l.revoked[string(e.SerialNumber.Bytes())] = revocation{e.RevocationTime, e.ReasonCode}
	}
	return l, nil
}

// distributionPoint is the IssuingDistributionPoint of RFC 5280, section 5.2.5.
type distributionPoint struct {
	Point          distributionPointName `asn1:"optional,tag:0"`
	OnlyUsers      bool                  `asn1:"optional,tag:1"`
	OnlyCAs        bool                  `asn1:"optional,tag:2"`
	SomeReasons    asn1.BitString        `asn1:"optional,tag:3"`
	Indirect       bool                  `asn1:"optional,tag:4"`
	OnlyAttributes bool                  `asn1:"optional,tag:5"`
}

type distributionPointName struct {
	Full     []asn1.RawValue `asn1:"optional,tag:0"`
	Relative asn1.RawValue   `asn1:"optional,tag:1"`
}

func (l *revocationList) readScope(der []byte) error {
	var d distributionPoint
	if rest, err := asn1.Unmarshal(der, &d); err != nil || len(rest) > 0 {
		return errors.New("the issuing distribution point of the list is malformed")
	}
	switch {
	case d.Indirect:
		return errors.New("the list is an indirect one, which is not supported")
	case d.SomeReasons.BitLength > 0:
		return errors.New("the list covers some reasons only, which is not supported")
	case d.OnlyAttributes:
		return errors.New("the list covers attribute certificates only")
	case len(d.Point.Relative.FullBytes) > 0:
		return errors.New("the list has a distribution point relative to its issuer, which is not supported")
	case d.OnlyUsers && d.OnlyCAs:
		return errors.New("the list covers nothing")
	case d.OnlyUsers:
		l.only = 'u'
	case d.OnlyCAs:
		l.only = 'a'
	}
	const uri = 6 // the tag of a uniformResourceIdentifier (section 4.2.1.6)
	for _, name := range d.Point.Full {
		if name.Class == asn1.ClassContextSpecific && name.Tag == uri {
			l.uris = append(l.uris, string(name.Bytes))
		}
	}
	if len(d.Point.Full) > 0 && len(l.uris) == 0 {
		return errors.New("the list has a distribution point that is no URI, which is not supported")
	}
	l.scope = der
	return nil
}

// supersedes reports whether l is about what o is about.
func (l *revocationList) supersedes(o *revocationList) bool {
	return bytes.Equal(l.issuer, o.issuer) && bytes.Equal(l.keyID, o.keyID) && bytes.Equal(l.scope, o.scope)
}

// olderThan reports whether o was issued after l.
func (l *revocationList) olderThan(o *revocationList) bool {
	if l.number != nil && o.number != nil {
		return l.number.Cmp(o.number) < 0
	}
	return l.from.Before(o.from)
}

// covers reports whether the list would have cert, which issuer has signed.
func (l *revocationList) covers(cert, issuer *x509.Certificate) bool {
	if !bytes.Equal(l.issuer, cert.RawIssuer) || l.only == 'u' && cert.IsCA || l.only == 'a' && !cert.IsCA {
		return false
	}
	if len(l.keyID) > 0 && len(issuer.SubjectKeyId) > 0 && !bytes.Equal(l.keyID, issuer.SubjectKeyId) {
		return false
	}
	named := func(uri string) bool { return slices.Contains(cert.CRLDistributionPoints, uri) }
	return len(l.uris) == 0 || slices.ContainsFunc(l.uris, named)
}

// signedBy reports whether the issuer has signed the list. The last that has is
// remembered: that takes as long as the list is.
func (l *revocationList) signedBy(issuer *x509.Certificate) error {
	key := sha256.Sum256(issuer.RawSubjectPublicKeyInfo)
	if was := l.signer.Load(); was != nil && *was == key {
		if issuer.KeyUsage != 0 && issuer.KeyUsage&x509.KeyUsageCRLSign == 0 { // of this certificate for the key
			return errors.New("the issuer may not sign lists")
		}
		return nil
	}
	if err := l.signed.CheckSignatureFrom(issuer); err != nil {
		return err
	}
	l.signer.Store(&key)
	return nil
}

// checkRevocation looks up each certificate of a verified chain but the authority that
// is trusted, that below it first; only the client's if leafOnly is true. Until is when
// the first list that was looked at runs out.
func checkRevocation(lists []*revocationList, chain []*x509.Certificate, leafOnly bool, now time.Time) (until time.Time, err error) {
	for i := len(chain) - 2; i >= 0; i-- {
		if leafOnly && i > 0 {
			continue
		}
		to, err := lookUp(lists, chain[i], chain[i+1], now)
		if err != nil {
			return time.Time{}, &ClientCertError{chain[i], err}
		}
		if until.IsZero() || to.Before(until) {
			until = to
		}
	}
	return until, nil
}

// lookUp looks cert up in all lists that cover it.
func lookUp(lists []*revocationList, cert, issuer *x509.Certificate, now time.Time) (until time.Time, err error) {
	why := errors.New("there is no list")
	known := false
	for _, l := range lists {
		if !l.covers(cert, issuer) {
			continue
		}
		if err := l.signedBy(issuer); err != nil {
			why = fmt.Errorf("the signature of its list is not good: %w", err)
			continue
		}
		if r, ok := l.revoked[string(cert.SerialNumber.Bytes())]; ok { // an old list is enough to refuse
			return time.Time{}, fmt.Errorf("%w on %s (%s)", ErrRevoked, r.at.UTC().Format(time.DateOnly), reasonName(r.reason))
		}
		switch {
		case now.Before(l.from):
			why = fmt.Errorf("its list begins to count at %s", l.from.UTC().Format(time.RFC3339))
		case now.After(l.to):
			why = fmt.Errorf("its list ran out at %s", l.to.UTC().Format(time.RFC3339))
		case !known || l.to.Before(until):
			until, known = l.to, true
		}
	}
	if !known {
		return time.Time{}, fmt.Errorf("%w: %w", ErrRevocationUnknown, why)
	}
	return until, nil
}

// reasonName is what RFC 5280, section 5.3.1, calls a reason.
func reasonName(code int) string {
	names := [...]string{
		"unspecified", "keyCompromise", "cACompromise", "affiliationChanged", "superseded", "cessationOfOperation",
		"certificateHold", "", "removeFromCRL", "privilegeWithdrawn", "aACompromise",
	}
	if code < 0 || code >= len(names) || names[code] == "" {
		return fmt.Sprintf("reason %d", code)
	}
	return names[code]
}
