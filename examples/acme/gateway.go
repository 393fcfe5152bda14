// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/penstock-lb/penstock/l7"
)

// A Gateway serves its names over HTTPS, with certificates that it gets and renews by
// ACME (RFC 8555). Both challenges that need no access to the DNS are answered by its own
// servers: HTTP-01 on the port of HTTP, TLS-ALPN-01 (RFC 8737) on that of HTTPS.
type Gateway struct {
	Names   []string
	Handler http.Handler

	Directory string         // URL of the authority's ACME directory
	Roots     *x509.CertPool // that the directory's own certificate leads to; nil means those of the system
	Email     string         // of the account; needed, or certmagic would ask for it on the terminal
	Dir       string         // where keys, certificates and the account are kept: gateways that share it share them
	Logger    *zap.Logger    // of certmagic; nil means its default, standard error

	CheckEvery    time.Duration // between two looks for certificates to renew; 0 means 10m
	RenewalWindow float64       // the share of a certificate's life that is left when it is renewed; 0 means a third

	// WithoutHTTP and WithoutALPN leave out a challenge, where the authority cannot reach
	// its port.
	WithoutHTTP, WithoutALPN bool
}

// Serve gets the certificates that are missing, and serves both listeners until ctx is
// done. It returns an error if the first certificates cannot be had; later, certmagic
// tries again for as long as it takes, and the old ones are shown.
func (g *Gateway) Serve(ctx context.Context, plain, secure net.Listener) error {
	magic, issuer, stop := g.manager(plain, secure)
	defer stop()
	redirect := &l7.Redirect{Scheme: "https", Status: http.StatusPermanentRedirect}
	config := magic.TLSConfig() // offers acme-tls/1
	config.NextProtos = append([]string{"h2", "http/1.1"}, config.NextProtos...)
	web := &l7.Server{Handler: &l7.Wrap{With: issuer.HTTPChallengeHandler, Next: redirect}}
	api := &l7.Server{Handler: g.Handler, TLSConfig: config}

	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var wg sync.WaitGroup
	wg.Go(func() { fail(web.Serve(plain)) })
	wg.Go(func() { fail(api.ServeTLS(secure, "", "")) })
	if err := magic.ManageSync(ctx, g.Names); err != nil { // the servers answer its challenges
		fail(err)
	}
	<-ctx.Done()
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	wg.Go(func() { _ = web.Shutdown(drain) })
	wg.Go(func() { _ = api.Shutdown(drain) })
	wg.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err // a part failed before the context ended
	}
	return nil
}

// manager makes what gets certificates, and follows their renewal until stop. Since the
// ports are in use already, certmagic starts no server of its own for a challenge.
func (g *Gateway) manager(plain, secure net.Listener) (magic *certmagic.Config, issuer *certmagic.ACMEIssuer, stop func()) {
	cache := certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert:   func(certmagic.Certificate) (*certmagic.Config, error) { return magic, nil },
		RenewCheckInterval: g.CheckEvery,
		Logger:             g.Logger,
	})
	magic = certmagic.New(cache, certmagic.Config{
		Storage: &certmagic.FileStorage{Path: g.Dir},
		OCSP:    certmagic.OCSPConfig{DisableStapling: true},
		Logger:  g.Logger,

		RenewalWindowRatio: g.RenewalWindow,
	})
	host, http := port(plain)
	_, https := port(secure)
	issuer = certmagic.NewACMEIssuer(magic, certmagic.ACMEIssuer{
		CA: g.Directory, TestCA: g.Directory, TrustedRoots: g.Roots, Email: g.Email, Agreed: true,
		ListenHost: host, AltHTTPPort: http, AltTLSALPNPort: https,
		DisableHTTPChallenge: g.WithoutHTTP, DisableTLSALPNChallenge: g.WithoutALPN,
		Logger: g.Logger,
	})
	magic.Issuers = []certmagic.Issuer{issuer}
	return magic, issuer, cache.Stop
}

// port returns the address and port of a listener.
func port(ln net.Listener) (string, int) {
	if a, ok := ln.Addr().(*net.TCPAddr); ok {
		return a.IP.String(), a.Port
	}
	return "", 0
}
