// SPDX-License-Identifier: Apache-2.0

package health

import (
	"context"
	"crypto/tls"

	"github.com/penstock-lb/penstock/balance"
)

// TCP passes when a connection can be made, and when the handshake succeeds if
// its Connect has TLS. It sends nothing.
//
// It says that the kernel of a server accepts: a process that is stopped or
// stuck still passes. Prefer a probe of the protocol where there is one.
//
// On Linux a connection to an IP address is given up with a reset as soon as the
// server has said that it accepts, unless the Connect asks for more. The server's
// process is not woken, and has nothing to log.
type TCP struct {
	Connect Connect
}

// Probe connects and closes.
func (p TCP) Probe(ctx context.Context, e balance.Endpoint) error {
	if p.Connect.TLS != nil {
		s, err := p.Connect.open(ctx, e, 0)
		s.close()
		return err
	}
	if ctx.Err() == nil {
		var s idleSockets
		defer s.close()
		if wait, ok, err := p.start(e, &s); wait != nil {
			return wait(ctx)
		} else if ok {
			return err
		}
	}
	s := sessionOf(ctx) // nothing is read: it needs no more of a session
	c, err := p.Connect.dial(ctx, e)
	if err != nil {
		return s.fail(err)
	}
	c.Close()
	return nil
}

// start begins the probe of e if the kernel alone can do it. ok is false if it
// cannot. Otherwise err is the result, or wait, if not nil, must be called, and
// returns it.
func (p TCP) start(e balance.Endpoint, s *idleSockets) (wait func(context.Context) error, ok bool, err error) {
	d := &p.Connect
	if d.TLS != nil || d.Dial != nil || d.Proxy != NoProxy {
		return nil, false, nil
	}
	network, addr, err := d.address(e)
	if err != nil || network != "tcp" {
		return nil, false, nil
	}
	c, done, ok, err := beginConnect(addr, s)
	switch {
	case !ok:
		return nil, false, nil
	case !done:
		return func(ctx context.Context) error {
			s := sessionOf(ctx)
			if err := c.wait(ctx); err != nil {
				return s.fail(dialError(ctx, err))
			}
			return nil
		}, true, nil
	case err != nil:
		return nil, true, dialError(context.Background(), err)
	}
	return nil, true, nil
}

// TLS passes when a TLS handshake succeeds. A nil Connect.TLS means the zero
// [tls.Config]: the certificate must hold for the host of the endpoint's address.
type TLS struct {
	Connect Connect
}

// Probe connects, does the handshake and closes.
func (p TLS) Probe(ctx context.Context, e balance.Endpoint) error {
	if p.Connect.TLS == nil {
		p.Connect.TLS = &tls.Config{}
	}
	return TCP(p).Probe(ctx, e)
}
