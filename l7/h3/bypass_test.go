// SPDX-License-Identifier: Apache-2.0

package h3

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/l7/l7test"
)

// A guarded site has a handler that decides who passes.
type guarded struct {
	make func(next http.Handler) http.Handler
	bad  [][]string // fields of requests that must not pass
	good []string   // fields of one that does, as ann
}

func guards(trusted *x509.CertPool) map[string]guarded {
	service := l7.HandlerFunc(func(x *l7.Exchange) {
		if x.Header.Get("Cookie") != "session=ann" {
			x.Respond(401, nil, "")
			return
		}
		user := l7.MakeFields("X-User", "ann")
		x.Respond(200, &user, "")
	})
	clients := &l4.ClientVerifier{CAs: trusted, Late: true}
	return map[string]guarded{
		"Access by certificate": {bad: [][]string{nil}, make: func(next http.Handler) http.Handler {
			return &l7.Access{Allow: l7.ClientCert{}, Next: next}
		}},
		"VerifyClient": {bad: [][]string{nil}, make: func(next http.Handler) http.Handler {
			_ = clients.Load()
			return &l7.VerifyClient{Clients: clients, Next: next}
		}},
		"BasicAuth": {good: []string{"authorization", "Basic YW5uOm9uZQ=="}, make: func(next http.Handler) http.Handler {
			return &l7.BasicAuth{Verify: l7.Passwords(map[string]string{"ann": "one"}), UserField: "X-User", Next: next}
		}, bad: [][]string{
			nil, {"authorization", "Basic YW5uOnR3bw=="}, {"authorization", ""}, {"authorization_", "Basic YW5uOm9uZQ=="},
			{"authorization", "Basic YW5uOm9uZQ==", "authorization", "Basic YW5uOm9uZQ=="}, {"proxy-authorization", "Basic YW5uOm9uZQ=="},
		}},
		"ForwardAuth": {good: []string{"cookie", "session=ann"}, make: func(next http.Handler) http.Handler {
			return &l7.ForwardAuth{Service: service, ToRequest: []string{"X-User"}, KeepFor: time.Hour, Next: next}
		}, bad: [][]string{nil, {"cookie", "session=eve"}, {"cookie", ""}, {"cookie_", "session=ann"}, {"cookie", "a=b", "cookie", "session=ann"}}},
	}
}

// bypassFrames writes a Bypass in frames, as no client of net/http would.
func bypassFrames(b l7test.Bypass) [][]byte {
	fields := []string{":method", b.Method, ":scheme", "https", ":authority", "gateway.example", ":path", b.Target}
	if b.Method == http.MethodConnect {
		fields = []string{":method", b.Method, ":authority", b.Target}
	}
	if b.Name == "websocket" { // RFC 9220
		fields = append(fields, ":protocol", "websocket")
		fields[1] = http.MethodConnect
	}
	for _, f := range b.Header {
		if f.Name != "Connection" && f.Name != "Upgrade" || b.Name != "websocket" {
			fields = append(fields, strings.ToLower(f.Name), f.Value)
		}
	}
	frames := [][]byte{head(fields...)}
	if b.Body != "" {
		frames = append(frames, frame(frameData, b.Body))
	}
	var trailer []string
	for _, f := range b.Trailer {
		trailer = append(trailer, strings.ToLower(f.Name), f.Value)
	}
	if trailer != nil {
		frames = append(frames, head(trailer...))
	}
	return frames
}

// Whatever form a request comes in, after the handshake or in early data, it is decided
// about as in its plain form, and what servers are told of the user is the gateway's word.
func TestNoWayAround(t *testing.T) {
	trusted, _ := certificate(t)
	pool := x509.NewCertPool()
	pool.AddCert(trusted.Leaf)
	for name, g := range guards(pool) {
		t.Run(name, func(t *testing.T) { noWayAround(t, g, false) })
		if name == "BasicAuth" { // a handshake for each form takes time
			t.Run(name+" in early data", func(t *testing.T) { noWayAround(t, g, true) })
		}
	}
}

func noWayAround(t *testing.T, g guarded, early bool) {
	var mu sync.Mutex // guards passed
	var passed [][]string
	origin := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		users := []string{r.Method + " " + r.RequestURI}
		for _, h := range []http.Header{r.Header, r.Trailer} {
			for n, v := range h {
				if strings.EqualFold(strings.ReplaceAll(n, "_", "-"), "X-User") {
					users = append(users, v...)
				}
			}
		}
		mu.Lock()
		defer mu.Unlock()
		passed = append(passed, users)
	})
	inWorld(t, func(w *world) http.Handler {
		p := w.proxy(origin).(*l7.Proxy)
		p.Connect, p.Upgrades = true, []string{"websocket", "h2c", "tls"}
		return g.make(p)
	}, func(s *l7.Server, f *Front) {
		s.TLSConfig.ClientAuth = tls.RequestClientCert
		f.Early = func(*http.Request) bool { return early }
	}, func(w *world) {
		cfg := w.tls()
		cfg.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		stranger, _ := certificate(t) // of no authority that is trusted
		cfg.Certificates = []tls.Certificate{stranger}
		var c *raw
		try := func(b l7test.Bypass) {
			w.Helper()
			if c == nil || early || c.Conn.Context().Err() != nil {
				if c != nil {
					_ = c.Conn.CloseWithError(0, "")
				}
				qc, err := w.socket().DialEarly(w.Context(), gateway, cfg, nil)
				require.NoError(w, err)
				c = &raw{w, qc, nil}
			}
			str, err := c.OpenStreamSync(w.Context())
			require.NoError(w, err)
			for _, f := range bypassFrames(b) {
				_, _ = str.Write(f)
			}
			_ = str.Close()
			_ = str.SetReadDeadline(time.Now().Add(5 * time.Second))
			_, _ = io.Copy(io.Discard, str) // whatever is answered
			str.CancelRead(0)
			if early {
				time.Sleep(100 * time.Millisecond) // for the ticket of the next
			}
			synctest.Wait()
		}
		for _, fields := range g.bad {
			for _, b := range l7test.Bypasses("/admin", "X-User", fields...) {
				try(b)
				require.Empty(w, passed, "%s with %q", b.Name, fields)
			}
			if early {
				break
			}
		}
		if g.good != nil {
			for _, b := range l7test.Bypasses("/admin", "X-User", g.good...) {
				try(b)
			}
			require.Greater(w, len(passed), 40)
			for _, a := range passed {
				require.Equal(w, []string{"ann"}, a[1:], a[0])
			}
		}
		if early {
			require.Greater(w, w.front.Stats().Early, uint64(40))
		}
		_ = c.Conn.CloseWithError(0, "")
	})
}

// A session that VerifyConnection does not let resume serves nothing of its early data.
func TestEarlyDataOfRefusedSession(t *testing.T) {
	served := 0
	h := foreign(func(http.ResponseWriter, *http.Request) { served++ })
	inWorld(t, h, func(s *l7.Server, f *Front) {
		f.Early = func(*http.Request) bool { return true }
		s.TLSConfig.VerifyConnection = func(cs tls.ConnectionState) error {
			if cs.DidResume {
				return errors.New("revoked meanwhile")
			}
			return nil
		}
	}, func(w *world) {
		cfg := w.tls()
		cfg.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		for i := range 2 {
			qc, err := w.socket().DialEarly(w.Context(), gateway, cfg, nil)
			require.NoError(w, err)
			str, err := (&raw{w, qc, nil}).OpenStreamSync(w.Context())
			require.NoError(w, err)
			_, _ = str.Write(get())
			_ = str.Close()
			_, err = io.ReadAll(str)
			require.Equal(w, i == 1, err != nil)
			require.Equal(w, i == 1, qc.ConnectionState().TLS.DidResume || err != nil)
			time.Sleep(time.Second) // for the ticket
			_ = qc.CloseWithError(0, "")
			synctest.Wait()
			require.Equal(w, 1, served)
		}
		require.Zero(w, w.front.Stats().Early)
	})
}
