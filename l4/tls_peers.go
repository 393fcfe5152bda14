// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"crypto/tls"
	"crypto/x509"
	"runtime"
	"sync"
	"weak"
)

// A PeerCache keeps a value with the certificates that the other end of a connection
// has shown, for as long as the connection keeps them. The value must not lead to
// PeerCertificates itself; the certificates in it do no harm.
// It is for package l7: see "Machinery" in the package documentation.
type PeerCache[V any] struct {
	m sync.Map // weak.Pointer[*x509.Certificate] -> V: the address of the list that one handshake has made
}

// Load returns the value kept with the certificates of cs.
func (c *PeerCache[V]) Load(cs *tls.ConnectionState) (v V, ok bool) {
	if cs == nil || len(cs.PeerCertificates) == 0 {
		return v, false
	}
	kept, ok := c.m.Load(weak.Make(&cs.PeerCertificates[0]))
	if !ok {
		return v, false
	}
	return kept.(V), true
}

// Store keeps v. Without certificates it does nothing.
func (c *PeerCache[V]) Store(cs *tls.ConnectionState, v V) {
	if cs == nil || len(cs.PeerCertificates) == 0 {
		return
	}
	key := weak.Make(&cs.PeerCertificates[0])
	if _, known := c.m.Swap(key, v); !known {
		runtime.AddCleanup(&cs.PeerCertificates[0], func(key weak.Pointer[*x509.Certificate]) { c.m.Delete(key) }, key)
	}
}
