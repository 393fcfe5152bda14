// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"crypto/x509"
	"errors"
	"net/http"
	"slices"

	"github.com/penstock-lb/penstock/l4"
)

// VerifyClient lets requests pass whose client has shown a TLS certificate that a
// verifier accepts now: a certificate that is revoked, or has run out, while its
// connection is open ends there. With [l4.ClientVerifier.Late], it is the one that
// decides, and Refuse can say what is wrong, where a refusal in the handshake says
// nothing (HAProxy's crt-ignore-err and ssl_c_verify):
//
//	clients := &l4.ClientVerifier{CAFiles: ..., CRLFiles: ..., Late: true}
//	server := &l7.Server{
//		TLSConfig: clients.Config(config),
//		Handler:   &l7.VerifyClient{Clients: clients, Refuse: page, Next: router},
//	}
//
// Handlers after it find the chains that count now in Exchange.TLS, and in Request.TLS, so
// that [ClientCert] matches: one through an authority that has been revoked since the
// handshake is no longer among them. If the verifier is Optional, clients without a certificate pass, and
// ClientCert tells them apart.
//
// [Record.Decision] says what was decided, and Record.Err which certificate failed, and
// why: an [*l4.ClientCertError], or [l4.ErrNoClientCert]. A Refuse reads it there.
type VerifyClient struct {
	Clients *l4.ClientVerifier // that the server's TLSConfig is of, as a rule

	Refuse http.Handler // answers clients whose certificate fails or is missing; nil means 403
	Next   http.Handler

	checked
}

// ServeHTTP implements [http.Handler].
func (h *VerifyClient) ServeHTTP(w http.ResponseWriter, r *http.Request) { ServeHTTP(h, w, r) }

// ServeExchange implements [Handler].
func (h *VerifyClient) ServeExchange(x *Exchange) {
	chains, err := h.Clients.Verify(x.TLS)
	switch {
	case err == nil:
		if !sameChains(x.TLS.VerifiedChains, chains) {
			state := *x.TLS
			state.VerifiedChains = chains
			x.TLS = &state
		}
		x.Record.Decide("VerifyClient: verified")
		Serve(h.Next, x)
	case h.Clients.Optional && errors.Is(err, l4.ErrNoClientCert):
		x.Record.Decide("VerifyClient: no certificate")
		Serve(h.Next, x)
	default:
		h.refuse(x, err)
	}
}

// sameChains reports whether two lists of chains have the same certificates.
func sameChains(a, b [][]*x509.Certificate) bool {
	return slices.EqualFunc(a, b, func(a, b []*x509.Certificate) bool {
		return slices.EqualFunc(a, b, (*x509.Certificate).Equal)
	})
}

func (h *VerifyClient) refuse(x *Exchange, err error) {
	x.Record.Decide("VerifyClient: refused")
	x.Record.Err = err
	x.Record.Termination = endOf(l4.Denied, l4.PhaseRequest)
	if x.TLS != nil && len(x.TLS.VerifiedChains) > 0 { // of the handshake: it does not count any more
		state := *x.TLS
		state.VerifiedChains = nil
		x.TLS = &state
	}
	if h.Refuse != nil {
		Serve(h.Refuse, x)
		return
	}
	x.Error(http.StatusForbidden, x.Record.Termination)
}

// Check returns what is wrong with h, its verifier and its handlers.
func (h *VerifyClient) Check() error { return checkAll(h) }

func (h *VerifyClient) check(c *checks) {
	c.Need("VerifyClient.Clients", h.Clients, "must be what verifies certificates")
	c.in("VerifyClient.Clients", h.Clients)
	c.optional("VerifyClient.Refuse", h.Refuse)
	c.next("VerifyClient.Next", h.Next)
}
