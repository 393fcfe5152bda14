// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7/l7test"
)

// A guarded site has a handler that decides who passes.
type guarded struct {
	name string
	make func(next http.Handler) http.Handler
	bad  [][]string // fields of requests that must not pass
	good []string   // fields of one that does; nil if there are none
	user string     // who that is, told in X-User
}

func guards() []guarded {
	service := HandlerFunc(func(x *Exchange) {
		f := MakeFields("X-User", "ann")
		if x.Header.Get("Cookie") != "session=ann" {
			x.Respond(401, nil, "")
			return
		}
		x.Respond(200, &f, "")
	})
	verifier := func(optional bool) *l4.ClientVerifier {
		v := &l4.ClientVerifier{CAs: l4test.NewAuthority("own").Pool(), Late: true, Optional: optional}
		if err := v.Load(); err != nil {
			panic(err)
		}
		return v
	}
	return []guarded{
		{name: "Access by address", bad: [][]string{nil}, make: func(next http.Handler) http.Handler {
			return &Access{Allow: ClientIn(prefixes("127.0.0.0/8")), Next: next}
		}},
		{name: "Access by a proxy that is not ours", bad: [][]string{nil, {"X-Forwarded-For", "127.0.0.1"}, {"X-Forwarded-For", "127.0.0.1", "X-Forwarded-For", "127.0.0.2"}}, make: func(next http.Handler) http.Handler {
			return &TrustForwarded{Prefixes: prefixes("172.16.0.0/12"), Next: &Access{Allow: ClientIn(prefixes("127.0.0.0/8")), Next: next}}
		}},
		{name: "Access by certificate", bad: [][]string{nil}, make: func(next http.Handler) http.Handler {
			return &Access{Allow: ClientCert{}, Next: next}
		}},
		{name: "Access by a certificate that nobody verified", bad: [][]string{nil}, make: func(next http.Handler) http.Handler {
			cert := &x509.Certificate{Subject: pkix.Name{CommonName: "root"}}
			return HandlerFunc(func(x *Exchange) {
				x.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}
				Serve(&Access{Allow: ClientCert{Subject: "root"}, Next: next}, x)
			})
		}},
		{name: "VerifyClient", bad: [][]string{nil}, make: func(next http.Handler) http.Handler {
			return &VerifyClient{Clients: verifier(false), Next: next}
		}},
		{name: "VerifyClient that is optional, and Access", bad: [][]string{nil}, make: func(next http.Handler) http.Handler {
			return &VerifyClient{Clients: verifier(true), Next: &Access{Allow: ClientCert{}, Next: next}}
		}},
		{name: "VerifyClient of another authority", bad: [][]string{nil}, make: func(next http.Handler) http.Handler {
			cert := l4test.NewAuthority("other").Issue("root").Leaf
			return HandlerFunc(func(x *Exchange) {
				x.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}, VerifiedChains: [][]*x509.Certificate{{cert}}}
				Serve(&VerifyClient{Clients: verifier(true), Next: next}, x)
			})
		}},
		{name: "Fault that answers all", bad: [][]string{nil}, make: func(next http.Handler) http.Handler {
			return &Fault{Status: 503, Next: next}
		}},
		{name: "BasicAuth", user: "ann", good: []string{"Authorization", "Basic YW5uOm9uZQ=="}, make: func(next http.Handler) http.Handler {
			return &BasicAuth{Verify: Passwords(map[string]string{"ann": "one"}), UserField: "X-User", Next: next}
		}, bad: [][]string{
			nil, {"Authorization", "Basic YW5uOnR3bw=="}, {"Authorization", ""}, {"Authorization", "Basic"}, {"Authorization", "Basic "}, {"Authorization", "YW5uOm9uZQ=="},
			{"Authorization", "Basic YW5uOm9uZQ==", "Authorization", "Basic YW5uOm9uZQ=="}, {"Authorization", "Basic YW5u"}, {"Authorization", "Basic YW5uOm9uZQ== x"},
			{"Authorization_", "Basic YW5uOm9uZQ=="}, {"Proxy-Authorization", "Basic YW5uOm9uZQ=="}, {"Authorization", "Bearer YW5uOm9uZQ=="}, {"Authorization", "Basic OnR3bw=="},
		}},
		{name: "ForwardAuth", user: "ann", good: []string{"Cookie", "session=ann"}, make: func(next http.Handler) http.Handler {
			return &ForwardAuth{Service: service, ToRequest: []string{"X-User"}, Next: next}
		}, bad: [][]string{nil, {"Cookie", "session=eve"}, {"Cookie", ""}, {"Cookie_", "session=ann"}, {"Set-Cookie", "session=ann"}}},
		{name: "ForwardAuth that keeps", user: "ann", good: []string{"Cookie", "session=ann"}, make: func(next http.Handler) http.Handler {
			return &ForwardAuth{Service: service, ToRequest: []string{"X-User"}, KeepFor: time.Hour, Key: ByHost, Next: next}
		}, bad: [][]string{nil, {"Cookie", "session=eve"}, {"Cookie", ""}, {"Cookie", "session=ann2"}}},
		{name: "ForwardAuth whose service is down", make: func(next http.Handler) http.Handler {
			return &ForwardAuth{Service: &Deny{Status: 502}, ToRequest: []string{"X-User"}, Next: next}
		}, bad: [][]string{nil, {"Cookie", "session=ann"}}},
		{name: "LimitBody", bad: [][]string{nil}, make: func(next http.Handler) http.Handler {
			return &LimitBody{MaxBytes: 2, Next: HandlerFunc(func(x *Exchange) {
				if b, err := io.ReadAll(x.Body()); err == nil && len(b) <= 2 {
					x.Respond(204, nil, "") // it is within the limit, and does not count as passing
					return
				}
				if x.ContentLength < 0 { // what is not known before is cut: it looks incomplete
					x.Drop(x.Record.Termination)
					return
				}
				Serve(next, x)
			})}
		}},
	}
}

// Whatever form a request comes in, it is decided about as in its plain form, and
// what servers are told of the user is the gateway's word.
func TestNoWayAround(t *testing.T) {
	for _, g := range guards() {
		t.Run(g.name, func(t *testing.T) { noWayAround(t, g, g.make) })
	}
}

// A foreign handler before and behind a guard opens no way around it.
func TestNoWayAroundWithForeignHandlers(t *testing.T) {
	for _, g := range guards() {
		for _, name := range map[string][]string{
			"Access by a proxy that is not ours": {"clone"},
			"BasicAuth":                          {"clone", "Wrap, plain"},
		}[g.name] {
			foreign := allForeigners()[name]
			t.Run(g.name+"/"+name, func(t *testing.T) {
				noWayAround(t, g, func(next http.Handler) http.Handler { return foreign(g.make(foreign(next))) })
			})
		}
	}
}

// noWayAround makes requests of all forms to a proxy behind a guard, which made puts
// there.
func noWayAround(t *testing.T, g guarded, made func(next http.Handler) http.Handler) {
	type arrival struct {
		what string
		user []string
	}
	var passed []arrival
	trying := ""
	var mu sync.Mutex // guards both
	onBoth(t, func(s *site) http.Handler {
		passed = nil
		s.origin("10.1.0.1:80", func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			mu.Lock()
			defer mu.Unlock()
			a := arrival{what: trying + ": " + r.Method + " " + r.RequestURI}
			for _, h := range []http.Header{r.Header, r.Trailer} {
				for n, v := range h {
					if alike(n, "X-User") {
						a.user = append(a.user, v...)
					}
				}
			}
			passed = append(passed, a)
		})
		p := s.proxy("10.1.0.1:80")
		p.Connect, p.Upgrades = true, []string{"websocket", "h2c", "tls"}
		return made(p)
	}, func(s *site) {
		dial := s.net.DialFrom(netip.AddrPortFrom(netip.MustParseAddr("10.9.9.9"), 0))
		try := func(b l7test.Bypass) {
			mu.Lock()
			trying = b.Name
			mu.Unlock()
			if s.http2 {
				r, ok := b.Request("10.0.0.1")
				if !ok {
					return
				}
				ctx, cancel := context.WithTimeout(s.Context(), 5*time.Second)
				defer cancel()
				resp, err := s.client.Do(r.WithContext(ctx))
				if err == nil {
					_, _ = io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
				}
				return
			}
			c, err := dial(s.Context(), "tcp", "10.0.0.1:80")
			require.NoError(s, err)
			_, _ = b.HTTP1(c, "10.0.0.1") // whatever is answered
		}
		for _, fields := range g.bad {
			for _, b := range l7test.Bypasses("/admin", "X-User", fields...) {
				try(b)
				synctest.Wait()
				require.Empty(s, passed, "%s with %q", b.Name, fields)
			}
		}
		if g.good == nil {
			return
		}
		for _, b := range l7test.Bypasses("/admin", "X-User", g.good...) {
			try(b)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Greater(s, len(passed), 40)
		for _, a := range passed {
			if strings.HasPrefix(a.what, "behind another: OPTIONS *") {
				continue
			}
			require.Equal(s, []string{g.user}, a.user, a.what)
		}
	})
}
