// SPDX-License-Identifier: Apache-2.0

package health

import (
	"context"
	"crypto/tls"
	"time"

	"github.com/penstock-lb/penstock/balance"
)

// TCP passes when a connection can be made, and when the handshake succeeds if
// its Dialer has TLS. It sends nothing.
//
// It says that the kernel of a server accepts: a process that is stopped or
// stuck still passes. Prefer a probe of the protocol where there is one.
type TCP struct {
	Dialer Dialer
}

// Probe connects and closes.
func (p TCP) Probe(ctx context.Context, e balance.Endpoint) error {
	if p.Dialer.TLS == nil { // nothing is read: it needs no session
		s := session{ctx: ctx}
		if t, ok := ctx.Deadline(); ok {
			s.limit = time.Until(t)
		}
		c, err := p.Dialer.dial(ctx, e)
		if err != nil {
			return s.fail(err)
		}
		c.Close()
		return nil
	}
	s, err := p.Dialer.open(ctx, e, 0)
	s.close()
	return err
}

// TLS passes when a TLS handshake succeeds. A nil Dialer.TLS means the zero
// [tls.Config]: the certificate must hold for the host of the endpoint's address.
type TLS struct {
	Dialer Dialer
}

// Probe connects, does the handshake and closes.
func (p TLS) Probe(ctx context.Context, e balance.Endpoint) error {
	if p.Dialer.TLS == nil {
		p.Dialer.TLS = &tls.Config{}
	}
	return TCP(p).Probe(ctx, e)
}
