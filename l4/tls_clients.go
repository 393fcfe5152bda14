// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/penstock-lb/penstock"
)

// ClientVerifier verifies the certificates of TLS clients by certificates of
// authorities and revocation lists in files, which it follows:
//
//	clients := &l4.ClientVerifier{CAFiles: []string{"ca.pem"}, CRLFiles: []string{"ca.crl"}}
//	err := clients.Load()  // before it serves
//	go clients.Run(ctx)    // while it does
//	server := &l7.Server{TLSConfig: clients.Config(config), ...} // or an l4.TerminateTLS
//
// A client whose certificate fails is refused in the handshake. With Late, every
// handshake succeeds, and l7.VerifyClient decides about each request, so that it can
// answer with a page that says what is wrong.
//
// Resumed sessions are verified anew, by the authorities, lists and time of now, as
// full handshakes are. A connection that is open when its client's certificate is
// revoked stays open; l7.VerifyClient refuses its further requests.
//
// A file that has changed is read as [CertificateFiles] does it. One that cannot be
// used leaves what was read before in force, and is told of, once.
//
// Its fields must not change once a method is called. Verify and Config may be called
// by many goroutines, while Run runs.
type ClientVerifier struct {
	CAFiles []string       // PEM: certificates of the authorities that clients' certificates must lead to
	CAs     *x509.CertPool // more of them

	// CRLFiles are revocation lists (RFC 5280, section 5), in DER or any number of them
	// in PEM; empty means that revocation is not looked at. With them, a certificate
	// fails if a list has it, and also if no list that is in force covers it: each
	// authority needs a list, those between the client's and the last one too. A list
	// counts if the key that has signed the certificate has signed it, from its
	// thisUpdate to its nextUpdate. One that is older than the one in force is not taken.
	// Lists that cover a part of the certificates, by kind or distribution point, are
	// understood; delta and indirect ones are not, and are errors.
	CRLFiles []string
	LeafOnly bool // looks up the client's own certificate only, not those of authorities

	Optional bool // serves clients without a certificate too
	Late     bool // lets every handshake succeed: l7.VerifyClient decides

	Interval time.Duration // between two looks at the files; 0 means 10s
	MaxBytes int64         // of a file; 0 means 32 MiB, negative means no limit

	// OnReload is called when a file was read anew, or cannot be used. It must not
	// block. Nil means that Logger is told.
	OnReload func(Reload)
	Logger   *slog.Logger // nil means slog.Default()

	sets  []*fileSet
	cas   [][]*x509.Certificate // by the index of CAFiles
	lists [][]*revocationList   // by the index of CRLFiles
	trust atomic.Pointer[clientTrust]
	known PeerCache[*clientVerdict]
	last  atomic.Pointer[clientConfig]
}

// The reasons of a [ClientCertError] that crypto/x509 has not.
var (
	ErrNoClientCert      = errors.New("l4: the client has shown no certificate")
	ErrRevoked           = errors.New("revoked")
	ErrRevocationUnknown = errors.New("it is not known whether it is revoked")

	errNothingLoaded = errors.New("no authority was loaded: call ClientVerifier.Load")
)

// A ClientCertError says which certificate of a client has failed, and why.
type ClientCertError struct {
	Cert *x509.Certificate // the client's, or that of an authority between it and the one that is trusted
	Err  error             // matches ErrRevoked, ErrRevocationUnknown, or is one of crypto/x509
}

// Error names the certificate by its subject and serial number.
func (e *ClientCertError) Error() string {
	return fmt.Sprintf("l4: client certificate %q (serial number %x): %v", e.Cert.Subject, e.Cert.SerialNumber, e.Err)
}

// Unwrap returns Err.
func (e *ClientCertError) Unwrap() error { return e.Err }

// ClientCertErrorOf returns what is wrong with the certificate of the client, if that is
// why a handshake has failed with err; nil if it is not, or nothing is known of it.
func ClientCertErrorOf(err error) *ClientCertError {
	if e, ok := errors.AsType[*ClientCertError](err); ok {
		return e
	}
	e, ok := errors.AsType[*tls.CertificateVerificationError](err)
	if !ok || len(e.UnverifiedCertificates) == 0 {
		return nil
	}
	return failedCert(e.UnverifiedCertificates[0], e)
}

// failedCert finds the certificate that an error of crypto/x509 is about.
func failedCert(leaf *x509.Certificate, err error) *ClientCertError {
	if e, ok := errors.AsType[x509.CertificateInvalidError](err); ok && e.Cert != nil {
		return &ClientCertError{e.Cert, err}
	}
	if e, ok := errors.AsType[x509.UnknownAuthorityError](err); ok && e.Cert != nil {
		return &ClientCertError{e.Cert, err}
	}
	return &ClientCertError{leaf, err}
}

// clientTrust is what certificates are verified by. It does not change.
type clientTrust struct {
	roots *x509.CertPool
	lists []*revocationList // nil if they are not looked at
}

// A clientVerdict is what was found about the certificates of a connection.
type clientVerdict struct {
	trust  *clientTrust
	until  time.Time
	chains [][]*x509.Certificate
	err    error
}

// A clientConfig is the configuration that was made of another last.
type clientConfig struct {
	base, own *tls.Config
	trust     *clientTrust
}

// Check returns what is wrong with v, each a [*penstock.ConfigError]. Load and Run call it.
func (v *ClientVerifier) Check() error {
	var m penstock.Mistakes
	m.If(len(v.CAFiles) == 0 && v.CAs == nil, "ClientVerifier.CAFiles", nil, "must name a file with the certificate of an authority, or CAs have one")
	m.If(slices.Contains(v.CAFiles, ""), "ClientVerifier.CAFiles", v.CAFiles, "must be paths of files")
	m.If(slices.Contains(v.CRLFiles, ""), "ClientVerifier.CRLFiles", v.CRLFiles, "must be paths of files")
	m.If(v.LeafOnly && len(v.CRLFiles) == 0, "ClientVerifier.LeafOnly", v.LeafOnly, "must not be set without CRLFiles: nothing is looked up")
	m.If(v.Interval < 0, "ClientVerifier.Interval", v.Interval, notNegative)
	return m.Err()
}

// Load reads the files now. On an error, which names those that cannot be used, the
// authorities and lists of the others count. It must not be called while Run runs.
func (v *ClientVerifier) Load() error {
	if err := v.Check(); err != nil {
		return err
	}
	return v.load()
}

func (v *ClientVerifier) load() error {
	v.open()
	err := load(v.sets)
	v.set()
	return err
}

// Run follows the files until ctx ends, and returns why it did. It loads them first, if
// that was not done.
func (v *ClientVerifier) Run(ctx context.Context) error {
	if v.sets == nil {
		if err := v.Check(); err != nil {
			return err
		}
		if err := v.load(); err != nil {
			tellReload(v.Logger, v.OnReload, Reload{Err: err})
		}
	}
	return follow(ctx, v.sets, v.Interval, v.set, func(r Reload) { tellReload(v.Logger, v.OnReload, r) })
}

func (v *ClientVerifier) open() {
	if v.sets != nil {
		return
	}
	v.cas = make([][]*x509.Certificate, len(v.CAFiles))
	for i, path := range v.CAFiles {
		v.sets = append(v.sets, &fileSet{paths: []string{path}, most: fileBytes(v.MaxBytes), use: func(contents [][]byte) (err error) {
			certs, err := parseCertificates(contents[0])
			if err == nil {
				v.cas[i] = certs
			}
			return err
		}})
	}
	v.lists = make([][]*revocationList, len(v.CRLFiles))
	for i, path := range v.CRLFiles {
		v.sets = append(v.sets, &fileSet{paths: []string{path}, most: fileBytes(v.MaxBytes), use: func(contents [][]byte) error {
			lists, err := parseRevocationLists(contents[0])
			if err != nil {
				return err
			}
			for _, was := range v.lists[i] {
				if slices.ContainsFunc(lists, func(l *revocationList) bool { return l.supersedes(was) && l.olderThan(was) }) {
					return fmt.Errorf("the list of %s is older than the one in force", was.from.UTC().Format(time.RFC3339))
				}
			}
			v.lists[i] = lists
			return nil
		}})
	}
}

// parseCertificates reads certificates in PEM.
func parseCertificates(b []byte) (certs []*x509.Certificate, err error) {
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("a block of PEM is %q, not CERTIFICATE", block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, errors.New("no certificate in PEM")
	}
	return certs, nil
}

// set puts what was read in force.
func (v *ClientVerifier) set() {
	t := &clientTrust{roots: x509.NewCertPool()}
	if v.CAs != nil {
		t.roots = v.CAs.Clone()
	}
	for _, certs := range v.cas {
		for _, c := range certs {
			t.roots.AddCert(c)
		}
	}
	if len(v.CRLFiles) > 0 {
		t.lists = newestLists(v.lists)
	}
	v.trust.Store(t)
}

// newestLists returns of the lists about the same certificates the one issued last.
func newestLists(files [][]*revocationList) []*revocationList {
	all := []*revocationList{} // not nil: they are looked at
	for _, lists := range files {
		for _, l := range lists {
			i := slices.IndexFunc(all, l.supersedes)
			switch {
			case i < 0:
				all = append(all, l)
			case all[i].olderThan(l):
				all[i] = l
			}
		}
	}
	return all
}

// Config returns base with what verifies clients: its ClientAuth and ClientCAs do not
// count, its GetConfigForClient and VerifyConnection are called first. It must not
// change any more.
func (v *ClientVerifier) Config(base *tls.Config) *tls.Config {
	outer := v.apply(base, v.trust.Load())
	outer.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		cfg := base
		if base.GetConfigForClient != nil {
			own, err := base.GetConfigForClient(hello)
			if err != nil {
				return nil, err
			}
			if own != nil {
				cfg = own
			}
		}
		trust := v.trust.Load()
		if last := v.last.Load(); last != nil && last.base == cfg && last.trust == trust {
			return last.own, nil
		}
		own := v.apply(cfg, trust)
		v.last.Store(&clientConfig{cfg, own, trust})
		return own, nil
	}
	return outer
}

// apply returns a copy of cfg that verifies clients by trust, which may be nil.
func (v *ClientVerifier) apply(cfg *tls.Config, trust *clientTrust) *tls.Config {
	cfg = cfg.Clone()
	cfg.GetConfigForClient = nil
	cfg.ClientAuth, cfg.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
	if trust != nil {
		cfg.ClientCAs = trust.roots
	}
	switch {
	case v.Late:
		cfg.ClientAuth = tls.RequestClientCert
		return cfg
	case v.Optional:
		cfg.ClientAuth = tls.VerifyClientCertIfGiven
	}
	then := cfg.VerifyConnection
	cfg.VerifyConnection = func(cs tls.ConnectionState) error {
		if then != nil {
			if err := then(cs); err != nil {
				return err
			}
		}
		if len(cs.PeerCertificates) == 0 && v.Optional {
			return nil
		}
		if !cs.DidResume && trust != nil && trust == v.trust.Load() { // crypto/tls has verified the chains by it
			d := v.judge(trust, cs.VerifiedChains, time.Now())
			v.known.Store(&cs, d)
			return d.err
		}
		_, err := v.Verify(&cs)
		return err
	}
	return cfg
}

// Verify returns the chains, from the client's certificate to an authority, by which the
// certificate that the client of a connection has shown counts now. If it does not, the
// error is a [*ClientCertError], or [ErrNoClientCert]; a nil cs is a connection without
// TLS. What was found is remembered as long as the connection is open, and is
// found anew when a file has changed or time has run out.
func (v *ClientVerifier) Verify(cs *tls.ConnectionState) ([][]*x509.Certificate, error) {
	if cs == nil || len(cs.PeerCertificates) == 0 {
		return nil, ErrNoClientCert
	}
	trust, now := v.trust.Load(), time.Now()
	if trust == nil {
		return nil, &ClientCertError{cs.PeerCertificates[0], errNothingLoaded}
	}
	if d, ok := v.known.Load(cs); ok && d.trust == trust && now.Before(d.until) {
		return d.chains, d.err
	}
	d := v.verify(trust, cs.PeerCertificates, now)
	v.known.Store(cs, d)
	return d.chains, d.err
}

func (v *ClientVerifier) verify(trust *clientTrust, certs []*x509.Certificate, now time.Time) *clientVerdict {
	opts := x509.VerifyOptions{
		Roots: trust.roots, Intermediates: x509.NewCertPool(), CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	for _, c := range certs[1:] {
		opts.Intermediates.AddCert(c)
	}
	chains, err := certs[0].Verify(opts)
	if err != nil {
		return &clientVerdict{trust: trust, until: now.Add(failureLasts), err: failedCert(certs[0], err)}
	}
	return v.judge(trust, chains, now)
}

// failureLasts is how long a failure is remembered: with time alone, a certificate
// or list may begin to count.
const failureLasts = time.Minute

// judge looks the certificates of verified chains up in the lists. Until is when the
// first of what the verdict rests on runs out.
func (v *ClientVerifier) judge(trust *clientTrust, chains [][]*x509.Certificate, now time.Time) *clientVerdict {
	d := &clientVerdict{trust: trust}
	for _, chain := range chains {
		until := chain[0].NotAfter
		for _, c := range chain[1:] {
			if c.NotAfter.Before(until) {
				until = c.NotAfter
			}
		}
		if trust.lists != nil {
			to, err := checkRevocation(trust.lists, chain, v.LeafOnly, now)
			if err != nil {
				if d.err == nil {
					d.err = err
				}
				continue
			}
			if !to.IsZero() && to.Before(until) {
				until = to
			}
		}
		d.chains = append(d.chains, chain)
		if d.until.IsZero() || until.Before(d.until) {
			d.until = until
		}
	}
	switch {
	case len(d.chains) > 0:
		d.err = nil
	default:
		d.until = now.Add(failureLasts)
	}
	return d
}
