// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"
)

// ErrTLS is matched, with [errors.Is], by the error of a TLS handshake that
// failed, with a client or with a server. [errors.As] finds those of crypto/tls
// and crypto/x509 in it.
var ErrTLS = errors.New("l4: TLS handshake")

// TerminateTLS is a handler that ends the TLS of its clients and passes the plain
// connection to Next:
//
//	&l4.TerminateTLS{Config: config, Next: proxy}                                // offload
//	&l4.Router{Routes: []l4.Route{{Match: l4.SNI("a.test"), Handler: proxy}}}    // or passthrough
//
// The conn that Next gets is a [*Conn] whose TLS method returns the negotiated state,
// which SNI, ALPN and TLSVersion of a [Router] use. What a [Proxy] does with clients that end
// without close_notify is said at [ErrNoCloseNotify]. Any number of connections may be served
// at once. On Linux their handshakes compute a few at a time, after what is ready on open
// connections, so that a crowd of new clients, or a flood of ClientHellos, does not hold those
// up. Where the processors are busy otherwise, handshakes get about a third of the time.
type TerminateTLS struct {
	Config  *tls.Config // must have a certificate: see [Certificates]
	Next    Handler
	Timeout time.Duration // of the handshake; 0 means 10 s, negative means none

	// AnyALPN serves clients that offer only protocols outside of the NextProtos of
	// Config as if they had offered none. By default they are refused, as RFC 7301,
	// section 3.2, demands and crypto/tls does.
	AnyALPN bool

	JA4 bool // makes the fingerprint of each client ([ClientHello.JA4]), for Record.JA4, JA4Of and the matchers

	checked
	once sync.Once
	own  *tls.Config // made of Config
}

// ServeConn does the handshake over c and passes the plain connection to Next. If the
// handshake fails it closes c, and its error matches [ErrTLS].
func (t *TerminateTLS) ServeConn(ctx context.Context, c net.Conn) error {
	if err := t.first(t); err != nil {
		return misconfigured(c, err)
	}
	conn := NewConn(c)
	before := conn.BytesRead() - int64(len(conn.Buffered()))
	inside := tls.Server(conn, t.config())
	var refused error
	noted, cancel := context.WithCancelCause(context.WithValue(context.WithoutCancel(ctx), refusedKey{}, &refused))
	stop := context.AfterFunc(ctx, func() { // crypto/tls would only close conn, which looks like the end
		endConn(conn, Termination{Killed, PhaseRequest}, context.Cause(ctx)) // before the record is complete
		guard(nil, "connection", func() { breakOff(conn) })
		cancel(context.Cause(ctx))
	})
	err := handshake(noted, inside, cmp.Or(t.Timeout, 10*time.Second))
	stop()
	cancel(nil)
	shookHands(conn, err == nil)
	if err != nil {
		if refused != nil {
			err = fmt.Errorf("%w: %w", ErrTLS, refused)
		} else if e := ClientCertErrorOf(err); e != nil {
			err = fmt.Errorf("%w: %w", ErrTLS, e)
		}
		silent := conn.BytesRead() == before && errors.Is(err, io.EOF)
		return giveUp(ctx, conn, err, silent)
	}
	return t.Next.ServeConn(ctx, NewConn(inside))
}

// config is Config, or what makes of it one that takes any ALPN or keeps fingerprints.
// It is one for all connections, as it has the keys of session tickets.
func (t *TerminateTLS) config() *tls.Config {
	if !t.AnyALPN && !t.JA4 {
		return t.Config
	}
	t.once.Do(func() {
		t.own = t.Config.Clone()
		t.own.GetConfigForClient = t.configFor
	})
	return t.own
}

func (t *TerminateTLS) configFor(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	if t.JA4 {
		KeepJA4(hello)
	}
	cfg := t.Config
	if cfg.GetConfigForClient != nil {
		own, err := cfg.GetConfigForClient(hello)
		if err != nil {
			return nil, err
		}
		cfg = cmp.Or(own, cfg)
	}
	common := func(protocol string) bool { return slices.Contains(cfg.NextProtos, protocol) }
	if !t.AnyALPN || len(cfg.NextProtos) == 0 || slices.ContainsFunc(hello.SupportedProtos, common) {
		return cfg, nil
	}
	cfg = cfg.Clone()
	cfg.NextProtos = nil
	return cfg, nil
}

// handshake runs the handshake of c within timeout, if that is positive.
func handshake(ctx context.Context, c *tls.Conn, timeout time.Duration) error {
	if timeout > 0 {
		if err := c.SetDeadline(time.Now().Add(timeout)); err != nil {
			return err
		}
	}
	if err := Handshake(ctx, c); err != nil {
		return fmt.Errorf("%w: %w", ErrTLS, err)
	}
	if timeout > 0 {
		return c.SetDeadline(time.Time{})
	}
	return nil
}
