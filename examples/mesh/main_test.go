// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"sync"
	"testing"

	"github.com/spiffe/go-spiffe/v2/logger"
	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4/l4test"
)

// An agent is a Workload API: it hands out one identity, and another when it is told to.
type agent struct {
	workload.UnimplementedSpiffeWorkloadAPIServer
	id spiffeid.ID

	mu      sync.Mutex
	current *workload.X509SVIDResponse
	changed chan struct{}
}

// FetchX509SVID implements workload.SpiffeWorkloadAPIServer.
func (a *agent) FetchX509SVID(_ *workload.X509SVIDRequest, s grpc.ServerStreamingServer[workload.X509SVIDResponse]) error {
	if md, _ := metadata.FromIncomingContext(s.Context()); len(md.Get("workload.spiffe.io")) != 1 {
		return status.Error(codes.InvalidArgument, "no security header") // SPIFFE Workload Endpoint, section 3
	}
	for {
		a.mu.Lock()
		current, changed := a.current, a.changed
		a.mu.Unlock()
		if err := s.Send(current); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-s.Context().Done():
			return s.Context().Err()
		}
	}
}

// issue makes the identity anew, by one authority, with others that are trusted.
func (a *agent) issue(t *testing.T, by *l4test.Authority, trusted ...*l4test.Authority) {
	cert := by.Issue(a.id.Path()[1:], func(c *x509.Certificate) { c.URIs, c.DNSNames = []*url.URL{a.id.URL()}, nil })
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	require.NoError(t, err)
	svid := &workload.X509SVID{SpiffeId: a.id.String(), X509SvidKey: key}
	for _, der := range cert.Certificate {
		svid.X509Svid = append(svid.X509Svid, der...)
	}
	for _, ca := range append([]*l4test.Authority{by}, trusted...) {
		svid.Bundle = append(svid.Bundle, ca.Root.Leaf.Raw...)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.changed != nil {
		close(a.changed)
	}
	a.current, a.changed = &workload.X509SVIDResponse{Svids: []*workload.X509SVID{svid}}, make(chan struct{})
}

// newAgent serves an identity at a socket, and returns a source that follows it.
func newAgent(t *testing.T, dir, id string, by *l4test.Authority) (*agent, *workloadapi.X509Source, workloadapi.X509SourceOption) {
	a := &agent{id: spiffeid.RequireFromString(id)}
	a.issue(t, by)
	ln, err := net.Listen("unix", filepath.Join(dir, a.id.Path()[1:]))
	require.NoError(t, err)
	s := grpc.NewServer()
	workload.RegisterSpiffeWorkloadAPIServer(s, a)
	go s.Serve(ln)
	t.Cleanup(s.Stop)
	at := workloadapi.WithClientOptions(workloadapi.WithAddr("unix://"+ln.Addr().String()), workloadapi.WithLogger(logger.Null))
	source, err := workloadapi.NewX509Source(t.Context(), at)
	require.NoError(t, err)
	t.Cleanup(func() { source.Close() })
	return a, source, at
}

// rotate issues anew, and waits until the source has it.
func (a *agent) rotate(t *testing.T, source *workloadapi.X509Source, by *l4test.Authority, trusted ...*l4test.Authority) {
	for len(source.Updated()) > 0 {
		<-source.Updated()
	}
	a.issue(t, by, trusted...)
	<-source.Updated()
}

const (
	gatewayID = "spiffe://mesh.test/gateway"
	webID     = "spiffe://mesh.test/web"
	shopID    = "spiffe://mesh.test/shop"
	otherID   = "spiffe://mesh.test/other"
)

// Identities go both ways, and change while everything runs: no request fails, and what
// the old authority has signed counts no more. No session is resumed, as that is not
// verified.
func TestMesh(t *testing.T) {
	dir := t.TempDir()
	first, second := l4test.NewAuthority("first"), l4test.NewAuthority("second")
	gatewayAgent, gatewaySource, _ := newAgent(t, dir, gatewayID, first)
	webAgent, webSource, _ := newAgent(t, dir, webID, first)
	shopAgent, shopSource, _ := newAgent(t, dir, shopID, first)
	_, otherSource, _ := newAgent(t, dir, otherID, first)

	web := &http.Server{
		TLSConfig: serverConfig(webSource, tlsconfig.AuthorizeID(spiffeid.RequireFromString(gatewayID))),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, r.TLS.PeerCertificates[0].URIs[0], " ", r.Header.Get("X-Forwarded-Client-Cert"))
		}),
	}
	webListener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go web.ServeTLS(webListener, "", "")
	defer web.Close()

	g := &Gateway{
		Source: gatewaySource, Domain: spiffeid.RequireTrustDomainFromString("mesh.test"), Allow: []spiffeid.ID{spiffeid.RequireFromString(shopID)},
		Server: spiffeid.RequireFromString(webID), Pool: new(balance.Pool),
	}
	require.NoError(t, g.Pool.Set(balance.Endpoint{Addr: webListener.Addr().String()}))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- g.Serve(ctx, ln) }()

	sessions := tls.NewLRUClientSessionCache(0)
	ask := func(source Source) (int, string, error) {
		cfg := clientConfig(source, tlsconfig.AuthorizeID(spiffeid.RequireFromString(gatewayID)))
		cfg.ServerName, cfg.ClientSessionCache, cfg.SessionTicketsDisabled = "gateway", sessions, false
		tr := &http.Transport{TLSClientConfig: cfg}
		defer tr.CloseIdleConnections()
		r, err := http.NewRequest("GET", "https://"+ln.Addr().String()+"/", nil)
		require.NoError(t, err)
		r.Header["x_forwarded-client_cert"] = []string{"URI=" + otherID}
		r.Header.Set("X-Forwarded-Client-Cert", "URI="+otherID)
		resp, err := (&http.Client{Transport: tr}).Do(r)
		if err != nil {
			return 0, "", err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		require.False(t, resp.TLS.DidResume, "it would not be verified")
		return resp.StatusCode, string(b), err
	}
	requireServed := func() {
		t.Helper()
		code, body, err := ask(shopSource)
		require.NoError(t, err)
		require.Equal(t, 200, code, body)
		require.Regexp(t, "^"+gatewayID+" By="+gatewayID+";Hash=[0-9a-f]{64};URI="+shopID+"$", body)
	}
	requireServed()
	requireServed()
	code, _, err := ask(otherSource)
	require.NoError(t, err)
	require.Equal(t, 403, code)

	// The new authority is trusted by all first, then it issues, then the old one goes.
	for _, step := range [][]*l4test.Authority{{first, second}, {second, first}, {second}} {
		shopAgent.rotate(t, shopSource, step[0], step[1:]...)
		webAgent.rotate(t, webSource, step[0], step[1:]...)
		gatewayAgent.rotate(t, gatewaySource, step[0], step[1:]...)
		requireServed()
	}
	_, _, err = ask(otherSource)
	require.Error(t, err, "its authority is not known any more")
	cancel()
	require.NoError(t, <-served)
}

// A server with another identity gets no request.
func TestImpostor(t *testing.T) {
	dir, ca := t.TempDir(), l4test.NewAuthority("first")
	_, gatewaySource, _ := newAgent(t, dir, gatewayID, ca)
	_, otherSource, _ := newAgent(t, dir, otherID, ca)
	_, shopSource, _ := newAgent(t, dir, shopID, ca)
	got := make(chan string, 1)
	server := &http.Server{
		TLSConfig: serverConfig(otherSource, tlsconfig.AuthorizeAny()),
		Handler:   http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got <- r.URL.Path }),
	}
	to, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go server.ServeTLS(to, "", "")
	defer server.Close()
	g := &Gateway{
		Source: gatewaySource, Domain: spiffeid.RequireTrustDomainFromString("mesh.test"), Allow: []spiffeid.ID{spiffeid.RequireFromString(shopID)},
		Server: spiffeid.RequireFromString(webID), Pool: new(balance.Pool),
	}
	require.NoError(t, g.Pool.Set(balance.Endpoint{Addr: to.Addr().String()}))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- g.Serve(ctx, ln) }()
	tr := &http.Transport{TLSClientConfig: clientConfig(shopSource, tlsconfig.AuthorizeAny())}
	resp, err := (&http.Client{Transport: tr}).Get("https://" + ln.Addr().String() + "/")
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, 502, resp.StatusCode)
	require.Empty(t, got)
	tr.CloseIdleConnections()
	cancel()
	require.NoError(t, <-served)
}

// The program takes its identity from the agent that it is led to.
func TestRun(t *testing.T) {
	ca := l4test.NewAuthority("first")
	_, _, at := newAgent(t, t.TempDir(), gatewayID, ca)
	for _, tt := range [][]string{{"", webID, "a:1"}, {shopID, "", "a:1"}, {shopID, webID, "a b"}} {
		require.Error(t, run(t.Context(), "127.0.0.1:0", tt[0], tt[1], tt[2], at))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.Error(t, run(ctx, "127.0.0.1:0", shopID+","+otherID, webID, "127.0.0.1:1", at))
}
