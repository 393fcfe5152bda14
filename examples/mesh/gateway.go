// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l7"
)

// A Gateway stands between workloads that prove who they are by X.509-SVIDs (SPIFFE),
// with one of its own towards both sides. All of them may change while it serves.
type Gateway struct {
	Source Source
	Domain spiffeid.TrustDomain // that clients have to be of
	Allow  []spiffeid.ID        // clients that may use Pool; others of Domain get 403

	Server spiffeid.ID // of each server of Pool
	Pool   *balance.Pool
	Dial   func(ctx context.Context, network, addr string) (net.Conn, error) // to servers; nil means a net.Dialer

	OnDone func(*l7.Record)
}

// Serve serves until ctx is done.
func (g *Gateway) Serve(ctx context.Context, ln net.Listener) error {
	own, err := g.Source.GetX509SVID()
	if err != nil {
		return err
	}
	upstream := &l7.Upstream{
		Dial:      g.Dial,
		TLS:       g.serverTLS(),
		MaxAge:    time.Hour, // so that a connection is not much older than the SVIDs that it was made with
		Protocols: new(http.Protocols),
	}
	upstream.Protocols.SetHTTP1(true)
	upstream.Protocols.SetHTTP2(true)
	var allowed l7.Any
	for _, id := range g.Allow {
		// go-spiffe has verified the certificate, and not crypto/tls.
		allowed = append(allowed, l7.ClientCert{Unverified: true, Test: hasID(id)})
	}
	s := &l7.Server{
		TLSConfig: serverConfig(g.Source, tlsconfig.AuthorizeMemberOf(g.Domain)),
		Handler: &l7.Access{Allow: allowed, Next: &l7.ForwardClientCert{
			XFCC: l7.XFCCSet, By: own.ID.String(), URI: true, Unverified: true,
			Next: &l7.Proxy{Pool: g.Pool, Upstream: upstream},
		}},
		OnDone: g.OnDone,
	}
	var wg sync.WaitGroup
	stop := context.AfterFunc(ctx, func() {
		drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		wg.Go(func() { _ = s.Shutdown(drain) })
	})
	defer stop()
	if err := s.ServeTLS(ln, "", ""); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	wg.Wait()
	upstream.CloseIdle()
	return s.Close()
}

// serverTLS returns what connections to servers begin with. It is one configuration, so
// that sessions are resumed.
func (g *Gateway) serverTLS() func(*balance.Server) *tls.Config {
	c := clientConfig(g.Source, tlsconfig.AuthorizeID(g.Server))
	return func(*balance.Server) *tls.Config { return c }
}
