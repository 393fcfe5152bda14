// SPDX-License-Identifier: Apache-2.0

package main

import (
	"container/list"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"strings"
	"sync"
	"time"
)

// A Mint makes certificates for the names that clients ask for, signed by an authority
// of one's own, which the clients under test trust:
//
//	config := &tls.Config{GetCertificate: mint.Get}
//
// Each name is made once, and again when an hour is left of its day, however many
// clients ask at once. All methods may be called at once.
type Mint struct {
	Authority tls.Certificate        // that signs
	Allow     func(name string) bool // names that it makes certificates for, in lower case
	Max       int                    // certificates kept, the least recently used go first; 0 means 1000

	mu     sync.Mutex
	key    *ecdsa.PrivateKey // of all certificates
	byName map[string]*list.Element
	recent list.List // of *minted, most recently used first
}

// A minted certificate is ready once done is closed.
type minted struct {
	name string
	done chan struct{}
	cert *tls.Certificate
	err  error
}

const (
	lasts = 24 * time.Hour
	spare = time.Hour
)

// Get is the GetCertificate of a [tls.Config]. For a name that is not allowed it returns
// none, which crypto/tls tells the client as unrecognized_name.
func (m *Mint) Get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	name := strings.ToLower(strings.TrimSuffix(hello.ServerName, "."))
	if name == "" || !m.Allow(name) {
		return nil, nil
	}
	e, mine := m.find(name)
	if mine {
		e.cert, e.err = m.make(name)
		if e.err != nil {
			m.forget(e)
		}
		close(e.done)
	}
	<-e.done // making one takes no longer than a signature
	return e.cert, e.err
}

// find returns the entry for a name; mine says that the caller has to make it.
func (m *Mint) find(name string) (e *minted, mine bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.byName == nil {
		m.byName = make(map[string]*list.Element)
	}
	if at := m.byName[name]; at != nil {
		e := at.Value.(*minted)
		if !e.stale(time.Now()) {
			m.recent.MoveToFront(at)
			return e, false
		}
		m.recent.Remove(at)
	}
	e = &minted{name: name, done: make(chan struct{})}
	m.byName[name] = m.recent.PushFront(e)
	most := m.Max
	if most == 0 {
		most = 1000
	}
	for m.recent.Len() > most {
		last := m.recent.Back()
		delete(m.byName, m.recent.Remove(last).(*minted).name)
	}
	return e, true
}

// stale reports whether the certificate has to be made again.
func (e *minted) stale(now time.Time) bool {
	select {
	case <-e.done:
		return e.err != nil || now.After(e.cert.Leaf.NotAfter.Add(-spare))
	default:
		return false
	}
}

// forget removes an entry that has failed.
func (m *Mint) forget(e *minted) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if at := m.byName[e.name]; at != nil && at.Value == e {
		m.recent.Remove(at)
		delete(m.byName, e.name)
	}
}

func (m *Mint) make(name string) (*tls.Certificate, error) {
	key, err := m.leafKey()
	if err != nil {
		return nil, err
	}
	signer, ok := m.Authority.PrivateKey.(crypto.Signer)
	if !ok || m.Authority.Leaf == nil {
		return nil, errors.New("the authority has no key, or was not parsed")
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{Organization: []string{"Minted for tests"}}, DNSNames: []string{name},
		NotBefore: now.Add(-spare), NotAfter: now.Add(lasts),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, m.Authority.Leaf, key.Public(), signer)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der, m.Authority.Leaf.Raw}, PrivateKey: key, Leaf: leaf}, nil
}

func (m *Mint) leafKey() (key *ecdsa.PrivateKey, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.key == nil {
		m.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	return m.key, err
}
