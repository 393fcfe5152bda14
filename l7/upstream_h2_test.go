// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"bufio"
	"crypto/tls"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/l7/l7test"
)

// A connection that has had its requests, or is too old, takes no more; what
// is under way on it ends well, then it is closed. With HTTP/1 as with HTTP/2.
func TestUpstreamWearsOut(t *testing.T) {
	for _, two := range []bool{false, true} {
		for _, tc := range []struct {
			name string
			set  func(u *l7.Upstream)
			wait time.Duration // between requests
			want string
		}{
			{"requests", func(u *l7.Upstream) { u.MaxRequests = 2 }, 0, "11223"},
			{"age", func(u *l7.Upstream) { u.MaxAge = 25 * time.Second }, 9 * time.Second, "11122"}, // at 22.5s to 25s
			{"neither", func(u *l7.Upstream) {}, 9 * time.Second, "11111"},
		} {
			withTransport(t, []string{one}, func(t *testing.T, n *l4test.Network, tr *l7.Transport) {
				if tc.set(tr.Upstream); two {
					tr.Upstream.Protocols = protocols("h2c")
				}
				var c counter
				o := startOrigin(t, n, one, nil, true, c.ServeHTTP)
				got := ""
				for range 5 {
					got += strings.TrimPrefix(fetch(t, tr, "http://a/"), "200 ")
					time.Sleep(tc.wait)
				}
				if got != tc.want {
					t.Errorf("%s, HTTP/2 %v: went over %s; want %s", tc.name, two, got, tc.want)
				}
				synctest.Wait()
				if open := o.open(); open > 1 {
					t.Errorf("%s, HTTP/2 %v: %d connections are open", tc.name, two, open)
				}
			})
		}
	}
}

// A request that is under way when its connection has worn out is not broken.
func TestUpstreamWornOutStream(t *testing.T) {
	withTransport(t, []string{one}, func(t *testing.T, n *l4test.Network, tr *l7.Transport) {
		tr.Upstream.Protocols, tr.Upstream.MaxRequests = protocols("h2c"), 2
		var c counter
		o := startOrigin(t, n, one, nil, true, c.ServeHTTP)
		var wg sync.WaitGroup
		wg.Go(func() {
			if got := fetch(t, tr, "http://a/?wait=20s"); got != "200 1" {
				t.Errorf("the long one got %q", got)
			}
		})
		synctest.Wait()
		for i, want := range []string{"200 1", "200 2"} {
			if got := fetch(t, tr, "http://a/"); got != want {
				t.Errorf("request %d got %q; want %q", i, got, want)
			}
		}
		if o.open() != 2 {
			t.Errorf("%d connections; want 2", o.open())
		}
		wg.Wait()
		synctest.Wait()
		if o.open() != 1 {
			t.Errorf("%d connections when the long one is done; want 1", o.open())
		}
	})
}

// A connection of HTTP/2 whose server has fallen silent is found out by PING
// and its requests go elsewhere; one that is only slow is left alone.
func TestUpstreamPing(t *testing.T) {
	withTransport(t, []string{one}, func(t *testing.T, n *l4test.Network, tr *l7.Transport) {
		tr.Upstream.Protocols, tr.Upstream.PingTimeout = protocols("h2c"), 5*time.Second
		tr.HeaderTimeout = time.Hour
		var c counter
		o := startOrigin(t, n, one, nil, true, c.ServeHTTP)
		var dialed []*l4test.Conn
		n.Dialed = func(c *l4test.Conn) error { dialed = append(dialed, c); return nil }
		if got := fetch(t, tr, "http://a/?wait=58s"); got != "200 1" {
			t.Errorf("a slow reply is %q; want one over the first connection", got)
		}
		dialed[0].Peer().Stall()
		start := time.Now()
		if got := fetch(t, tr, "http://a/"); got != "200 2" {
			t.Errorf("got %q; want a reply over a second connection", got)
		}
		if d := time.Since(start); d < 10*time.Second || d > 11*time.Second {
			t.Errorf("after %v; want 10s, twice the timeout", d)
		}
		synctest.Wait()
		if o.conns.Load() != 2 {
			t.Errorf("%d connections; want 2", o.conns.Load())
		}
		dialed[0].Peer().Resume() // so that the server learns of its end
	})
}

// A hedge over HTTP/2 goes to another server, and the stream that lost is
// reset, not its connection.
func TestHedgeHTTP2(t *testing.T) {
	var left atomic.Int32
	fronts(t, func(n *l4test.Network) http.Handler {
		left.Store(0)
		p := newProxy(n, one, two)
		p.Upstream.Protocols = protocols("h2c")
		p.Hedge.Delay = 50 * time.Millisecond
		return p
	}, func(t *testing.T, f *front) {
		slow := startOrigin(t, f.network, one, nil, true, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/slow" {
				<-r.Context().Done()
				left.Add(1)
			}
			io.WriteString(w, "one")
		})
		startOrigin(t, f.network, two, nil, true, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "two") })
		for i := range 3 {
			start := time.Now()
			if _, body := f.get(t, "/slow"); body != "two" {
				t.Errorf("%d: %q; want the second server's", i, body)
			}
			if d := time.Since(start); d > 50*time.Millisecond {
				t.Errorf("%d: after %v", i, d)
			}
		}
		synctest.Wait()
		if n := left.Load(); n < 1 || slow.conns.Load() != 1 || slow.open() != 1 {
			t.Errorf("%d streams were reset, over %d connections, %d of them open; want some, over 1", n, slow.conns.Load(), slow.open())
		}
	})
}

// A 101 over TLS is a tunnel through TLS, half-close and all.
func TestTransportUpgradeTLS(t *testing.T) {
	cert, roots := certFor(t, "api.test")
	withTransport(t, []string{one}, func(t *testing.T, n *l4test.Network, tr *l7.Transport) {
		ended := make(chan string, 1)
		startOrigin(t, n, one, &tls.Config{Certificates: []tls.Certificate{cert}}, true, func(w http.ResponseWriter, r *http.Request) {
			c, brw, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(r.Proto, err)
				return
			}
			defer c.Close()
			io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nhello ")
			b := make([]byte, 5)
			io.ReadFull(brw, b)
			c.Write(b)
			rest, err := io.ReadAll(brw)
			if err != nil {
				t.Error(err)
			}
			ended <- string(rest)
		})
		tr.Upstream.TLS = func(*balance.Server) *tls.Config { return &tls.Config{RootCAs: roots, ServerName: "api.test"} }
		tr.Upstream.Protocols = protocols("1", "2") // the request asks for HTTP/1
		req := get("https://api.test/")
		req.Header.Set("Connection", "Upgrade")
		req.Header.Set("Upgrade", "echo")
		res, err := tr.RoundTrip(req)
		if err != nil || res.StatusCode != 101 || res.TLS == nil {
			t.Fatal(res, err)
		}
		rw := res.Body.(io.ReadWriteCloser)
		io.WriteString(rw, "world")
		b := make([]byte, 11)
		if _, err := io.ReadFull(rw, b); err != nil || string(b) != "hello world" {
			t.Errorf("read %q, %v", b, err)
		}
		io.WriteString(rw, " and more")
		rw.Close()
		if got := <-ended; got != " and more" {
			t.Errorf("the server read %q at last", got)
		}
		synctest.Wait()
		if n := tr.Pool.Server(one).InFlight(); n != 0 {
			t.Errorf("%d leases are left", n)
		}
	})
}

// A client certificate is renewed for the connections that come; those that
// are there keep theirs until CloseIdle.
func TestUpstreamCertificateRotates(t *testing.T) {
	cert, roots := certFor(t, "api.test")
	for _, two := range []bool{false, true} {
		withTransport(t, []string{one}, func(t *testing.T, n *l4test.Network, tr *l7.Transport) {
			startOrigin(t, n, one, &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAnyClientCert}, two, func(w http.ResponseWriter, r *http.Request) {
				io.WriteString(w, r.TLS.PeerCertificates[0].Subject.CommonName)
			})
			var present atomic.Pointer[tls.Certificate]
			use := func(name string) {
				c, _ := certFor(t, name)
				present.Store(&c)
			}
			tr.Upstream.Protocols = protocols("1", "2")
			tr.Upstream.TLS = func(*balance.Server) *tls.Config {
				return &tls.Config{RootCAs: roots, ServerName: "api.test", GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
					return present.Load(), nil
				}}
			}
			use("old")
			for i, want := range []string{"old", "old", "new", "new"} {
				if i == 1 {
					use("new")
				}
				if i == 2 {
					synctest.Wait() // until the stream is over for both sides
					tr.Upstream.CloseIdle()
				}
				if got := fetch(t, tr, "https://api.test/"); got != "200 "+want {
					t.Errorf("HTTP/2 %v: request %d came with the certificate of %q; want %q", two, i, got, want)
				}
			}
		})
	}
}

// A POST whose connection had ended before it went out goes over a fresh one:
// nothing of it was sent. (If the end comes while it is on its way nobody can
// know whether the server has acted on it, see TestStaleConnection.)
func TestPostOnEndedConnectionTCP(t *testing.T) {
	for _, body := range []string{"Content-Length: 4\r\n\r\nbody", "Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"} {
		for _, end := range []l7test.Step{l7test.Close(), l7test.Reset()} {
			s := newTCPSite(t, balance.Endpoint{}, l7test.Script{l7test.Reply(200, "one"), end}, l7test.Script{l7test.Echo()})
			c := s.dial(getA)
			br := bufio.NewReader(c)
			want := func(want string) {
				t.Helper()
				res, err := http.ReadResponse(br, nil)
				if err != nil {
					t.Fatal(err)
				}
				if b, err := io.ReadAll(res.Body); string(b) != want || err != nil {
					t.Errorf("got %d %q, %v; want %q", res.StatusCode, b, err, want)
				}
			}
			want("one")
			s.eventually("the end of the first connection", func() bool { _, open := s.origin.Conns(); return open == 0 })
			io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\n"+body)
			want("body")
			s.eventually("a record", func() bool { _, n := s.last(); return n == 2 })
			if r, _ := s.last(); r.Tries != 1 || len(s.origin.Requests()) != 2 {
				t.Errorf("%d tries, %d requests; want 1, 2", r.Tries, len(s.origin.Requests()))
			}
		}
	}
}
