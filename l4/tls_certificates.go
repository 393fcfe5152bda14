// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync/atomic"
)

// ErrNoCertificate is matched by the error of a handshake of [TerminateTLS] that failed
// since [Certificates] had none for the client.
var ErrNoCertificate = errors.New("l4: no certificate for the client")

// Certificates chooses the certificate of a TLS server by the name the client
// asks for:
//
//	certs := new(l4.Certificates)
//	err := certs.Set(a, b)
//	config := &tls.Config{GetCertificate: certs.Get}
//
// Towards servers, it holds client certificates: see [Certificates.GetClient].
//
// First come the certificates that have the name, then those that have it with
// * for the first label, then those that share the names of the first
// certificate of all. Of several, an ECDSA one is preferred if the client can
// use it, else the first in the order of Set.
//
// The zero value has no certificate. All methods may be called at once.
type Certificates struct {
	// Strict refuses clients that ask for a name no certificate has, or for
	// none, instead of showing them the first certificate. They get the alert
	// unrecognized_name (RFC 6066, section 3). It must not change once Get is
	// called.
	Strict bool

	// Except are names that no * stands for: they are shown a certificate only
	// if one has the name itself, else they count as names that none has. It
	// must not change once Set is called.
	Except []string

	set atomic.Pointer[certificateSet]
}

// certificateSet does not change.
type certificateSet struct {
	all    []*tls.Certificate
	byName map[string][]*tls.Certificate // the preferred first; those of Except are there, too
	def    []*tls.Certificate
}

// Set replaces all certificates at once: handshakes that have begun keep the
// old ones. On an error nothing changes. Names are the DNS names in the
// certificates (subject alternative names); other kinds do not count.
func (s *Certificates) Set(certs ...tls.Certificate) error {
	next := &certificateSet{byName: make(map[string][]*tls.Certificate)}
	for i := range certs {
		c := certs[i]
		if len(c.Certificate) == 0 || c.PrivateKey == nil {
			return fmt.Errorf("l4: certificate %d has no chain or no key", i)
		}
		if c.Leaf == nil {
			leaf, err := x509.ParseCertificate(c.Certificate[0])
			if err != nil {
				return fmt.Errorf("l4: certificate %d: %w", i, err)
			}
			c.Leaf = leaf
		}
		next.all = append(next.all, &c)
		for _, name := range c.Leaf.DNSNames {
			name = canonicalName(name)
			if !slices.Contains(next.byName[name], &c) {
				next.byName[name] = append(next.byName[name], &c)
			}
		}
	}
	for _, name := range s.Except {
		if name = canonicalName(name); next.byName[name] == nil {
			next.byName[name] = nil // found, and so not looked for by its wildcard
		}
	}
	for _, list := range next.byName {
		slices.SortStableFunc(list, preferECDSA)
	}
	if len(next.all) > 0 {
		next.def = next.all[:1]
		if names := next.all[0].Leaf.DNSNames; len(names) > 0 {
			next.def = next.byName[canonicalName(names[0])]
		}
	}
	s.set.Store(next)
	return nil
}

func preferECDSA(a, b *tls.Certificate) int { return cmp.Compare(rank(a), rank(b)) }

func rank(c *tls.Certificate) int {
	if _, ok := c.Leaf.PublicKey.(*ecdsa.PublicKey); ok {
		return 0
	}
	return 1
}

// All yields the certificates in the order of Set: to watch over their expiry,
// say. They must not be changed.
func (s *Certificates) All() iter.Seq[*tls.Certificate] {
	return func(yield func(*tls.Certificate) bool) {
		if set := s.set.Load(); set != nil {
			for _, c := range set.all {
				if !yield(c) {
					return
				}
			}
		}
	}
}

// Get is the GetCertificate of a [tls.Config] whose Certificates are empty. If the client
// may see none it returns neither a certificate nor an error, for which crypto/tls sends
// unrecognized_name; for an error it would send internal_error.
func (s *Certificates) Get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	set := s.set.Load()
	if set == nil {
		set = &certificateSet{}
	}
	name := canonicalName(hello.ServerName)
	list, ok := set.byName[name]
	if !ok {
		list = set.byName[wildcardOf(name)]
	}
	if len(list) == 0 && !s.Strict {
		list = set.def
	}
	switch len(list) {
	case 0:
		noteRefused(hello)
		return nil, nil
	case 1:
		return list[0], nil // crypto/tls says better what is wrong, if anything is
	}
	unnamed := *hello
	unnamed.ServerName = "" // the name was looked at
	for _, c := range list {
		if unnamed.SupportsCertificate(c) == nil {
			return c, nil
		}
	}
	return list[len(list)-1], nil
}

// GetClient is the GetClientCertificate of a [tls.Config] towards servers, for a client
// certificate that is renewed while it is in use, as by [CertificateFiles]: it returns the
// first one, in the order of Set, that the server can verify by what it asks for. If there is
// none, the server is shown none, as crypto/tls has it. Before the first Set it returns an error.
func (s *Certificates) GetClient(info *tls.CertificateRequestInfo) (*tls.Certificate, error) {
	set := s.set.Load()
	if set == nil || len(set.all) == 0 {
		return nil, errors.New("l4: Certificates has no client certificate: call its Set, or Load of its CertificateFiles, before")
	}
	for _, c := range set.all {
		if info.SupportsCertificate(c) == nil {
			return c, nil
		}
	}
	return new(tls.Certificate), nil
}

// refusedKey is where the context of a handshake has room for the reason that
// Get cannot return.
type refusedKey struct{}

func noteRefused(hello *tls.ClientHelloInfo) {
	if ctx := hello.Context(); ctx != nil {
		if reason, ok := ctx.Value(refusedKey{}).(*error); ok {
			*reason = fmt.Errorf("%w: it asks for %q", ErrNoCertificate, hello.ServerName)
		}
	}
}
