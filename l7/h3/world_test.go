// SPDX-License-Identifier: Apache-2.0

package h3

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/quic-go/quic-go/testutils/simnet"
	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
)

// A world is a Server with a Front, and clients of theirs, in a network in memory and in
// virtual time. A packet takes 5 ms.
type world struct {
	*testing.T
	srv    *l7.Server
	front  *Front
	pool   *balance.Pool // of proxy
	tcp    *l4test.Network
	ended  chan error // of ServeTLS
	roots  *x509.CertPool
	links  []*simnet.SimulatedLink
	udp    simnet.PerfectRouter
	hosts  byte
	dialed int // sockets of a gateway to servers

	mu      sync.Mutex
	records []l7.Record
}

var gateway = &net.UDPAddr{IP: net.IPv4(10, 0, 0, 1).To4(), Port: 443}

// certificate makes one for gateway.example.
func certificate(t testing.TB) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "gateway.example"},
		DNSNames: []string{"gateway.example", "other.example"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	require.NoError(t, err)
	leaf, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, roots
}

// inWorld runs a story, at whose end nothing must be left: the bubble fails if a goroutine
// is.
func inWorld(t *testing.T, handler func(w *world) http.Handler, change func(*l7.Server, *Front), story func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{T: t, tcp: l4test.NewNetwork(), ended: make(chan error, 1)}
		var cert tls.Certificate
		cert, w.roots = certificate(t)
		w.srv = &l7.Server{TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}}}
		w.srv.OnDone = func(r *l7.Record) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.records = append(w.records, *r)
		}
		w.srv.Handler = handler(w)
		w.front = &Front{Server: w.srv}
		if change != nil {
			change(w.srv, w.front)
		}
		pc := w.endpoint(gateway)
		go func() { w.ended <- w.front.ServeTLS(pc, "", "") }()
		synctest.Wait()
		t.Cleanup(func() {
			require.NoError(t, w.srv.Close())
			require.ErrorIs(t, <-w.ended, l7.ErrServerClosed)
			synctest.Wait()
			require.Zero(t, w.srv.Open())
			st := w.front.Stats()
			require.Zero(t, [2]int{st.Open, st.Handshaking})
			if w.pool != nil {
				for s := range w.pool.All() {
					require.Zero(t, s.InFlight())
				}
			}
			for _, l := range w.links {
				_ = l.Close()
			}
		})
		story(w)
	})
}

// endpoint returns a socket of that address.
func (w *world) endpoint(addr *net.UDPAddr) net.PacketConn {
	l := &simnet.SimulatedLink{Latency: 5 * time.Millisecond, UploadPacket: &w.udp}
	pc := simnet.NewBlockingSimConn(addr, l)
	w.udp.AddNode(addr, l)
	l.Start()
	w.links = append(w.links, l)
	return pc
}

// socket returns one of a new client.
func (w *world) socket() *quic.Transport {
	w.hosts++
	pc := w.endpoint(&net.UDPAddr{IP: net.IPv4(10, 0, 1, w.hosts).To4(), Port: 5000})
	tr := &quic.Transport{Conn: pc}
	w.Cleanup(func() { _ = tr.Close(); _ = pc.Close() })
	return tr
}

// record returns the nth record, once everybody waits.
func (w *world) record(n int) l7.Record {
	w.Helper()
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	require.Greater(w, len(w.records), n)
	return w.records[n]
}

func (w *world) tls() *tls.Config {
	return &tls.Config{RootCAs: w.roots, ServerName: "gateway.example", NextProtos: []string{"h3"}}
}

// dial opens a bare QUIC connection.
func (w *world) dial() *quic.Conn {
	w.Helper()
	qc, err := w.socket().Dial(w.Context(), gateway, w.tls(), nil)
	require.NoError(w, err)
	w.Cleanup(func() { _ = qc.CloseWithError(0, "") })
	return qc
}

// client returns quic-go's, with a connection of its own.
func (w *world) client() *http3.ClientConn {
	w.Helper()
	return (&http3.Transport{DisableCompression: true}).NewClientConn(w.dial())
}

// request makes a request.
func (w *world) request(method, path string, body io.Reader) *http.Request {
	w.Helper()
	req, err := http.NewRequestWithContext(w.Context(), method, "https://gateway.example"+path, body)
	require.NoError(w, err)
	return req
}

// do asks, and reads the reply.
func (w *world) do(c http.RoundTripper, req *http.Request) (*http.Response, string) {
	w.Helper()
	res, err := c.RoundTrip(req)
	require.NoError(w, err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	require.NoError(w, err)
	return res, string(b)
}

func (w *world) get(c http.RoundTripper, path string) (*http.Response, string) {
	w.Helper()
	return w.do(c, w.request("GET", path, nil))
}

// proxy starts an origin and returns a Proxy to it.
func (w *world) proxy(h http.Handler) http.Handler {
	ln, err := w.tcp.Listen("tcp", "10.0.0.2:80")
	require.NoError(w, err)
	srv := &http.Server{Handler: h}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(ln) }()
	w.pool = &balance.Pool{}
	require.NoError(w, w.pool.Set(balance.Endpoint{Addr: "10.0.0.2:80"}))
	up := &l7.Upstream{Dial: w.tcp.DialContext}
	w.Cleanup(func() { up.CloseIdle(); _ = srv.Close(); <-done })
	return &l7.Proxy{Pool: w.pool, Upstream: up}
}

// echo answers with what it was asked.
func echo(*world) http.Handler {
	return l7.HandlerFunc(func(x *l7.Exchange) {
		b, err := io.ReadAll(x.Body())
		if err != nil {
			x.Record.Err = err
			x.Drop(x.Record.Termination)
			return
		}
		x.Respond(200, nil, x.Method+" "+x.Host+x.Path+x.Query+" "+string(b))
	})
}

func foreign(f http.HandlerFunc) func(*world) http.Handler {
	return func(*world) http.Handler { return f }
}

// after fails the test if it takes longer.
func (w *world) context(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(w.Context(), d)
	w.Cleanup(cancel)
	return ctx
}
