// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
)

// countedSite has a route that is relayed, one that is answered here, one of net/http's
// and one that panics.
func countedSite(n *l4test.Network) (*l7.Router, *l7.Proxy) {
	proxy := newProxy(n, one)
	return l7.NewRouter(
		l7.Route{Name: "local", Match: l7.Path("/local"), Handler: &l7.Deny{}},
		l7.Route{Name: "foreign", Match: l7.Path("/foreign"), Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "foreign") })},
		l7.Route{Name: "panic", Match: l7.Path("/panic"), Handler: l7.HandlerFunc(func(*l7.Exchange) { panic("oops") })},
		l7.Route{Name: "web", Match: l7.PathPrefix("/web"), Handler: proxy},
	), proxy
}

func TestRoutesAreCounted(t *testing.T) {
	var router *l7.Router
	site := func(n *l4test.Network) http.Handler {
		router, _ = countedSite(n)
		return router
	}
	fronts(t, site, func(t *testing.T, f *front) {
		serveHTTP(t, f.network, one, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			io.WriteString(w, "web")
		})
		for range 2 {
			res, err := f.client.Post("http://a.test/web", "", strings.NewReader("12345"))
			require.NoError(t, err)
			_, _ = io.ReadAll(res.Body)
			res.Body.Close()
		}
		for _, path := range []string{"/local", "/foreign", "/foreign", "/nothing"} {
			f.get(t, path)
		}
		if f.server != nil { // a server of the host's ends the connection
			status, _ := f.get(t, "/panic")
			require.Equal(t, 500, status)
		} else if res, err := f.client.Post("http://a.test/panic", "", nil); err == nil { // GET would be tried again
			res.Body.Close()
		}
		synctest.Wait()
		st := slices.Collect(router.Stats())
		require.Equal(t, l7.Statuses{4: 1}, st[0].Requests)
		require.Equal(t, l7.RouteStats{Route: "foreign", Requests: l7.Statuses{2: 2}, BytesOut: 14}, st[1])
		require.Equal(t, l7.Statuses{5: 1}, st[2].Requests)
		require.Equal(t, l7.RouteStats{Route: "web", Requests: l7.Statuses{2: 2}, BytesIn: 10, BytesOut: 6}, st[3])
		if f.server == nil {
			return
		}
		all := f.server.Stats()
		require.Equal(t, l7.Statuses{2: 4, 4: 2, 5: 1}, all.Requests)
		require.Equal(t, l4.Ends{l4.Normal: 4, l4.Denied: 2, l4.Internal: 1}, all.Ends)
		require.EqualValues(t, 10, all.BytesIn)
		require.Equal(t, all.Open, f.server.Open())
		require.NotZero(t, all.Accepted)
	})
}

func TestSetKeepsWhatRoutesHaveCounted(t *testing.T) {
	router := l7.NewRouter(l7.Route{Name: "a", Match: l7.Path("/a"), Handler: &l7.Deny{}}, l7.Route{Match: l7.Path("/b"), Handler: &l7.Deny{}})
	ask := func(path string) {
		router.ServeHTTP(discard{http.Header{}}, get("http://a.test"+path))
	}
	ask("/a")
	ask("/b")
	require.NoError(t, router.Set(l7.Route{Match: l7.Path("/b"), Handler: &l7.Deny{}}, l7.Route{Name: "a", Match: l7.Path("/c"), Handler: &l7.Deny{}}))
	ask("/c")
	var counts []uint64
	for st := range router.Stats() {
		counts = append(counts, st.Requests.Total())
	}
	require.Equal(t, []uint64{0, 2}, counts, "a name says that it is the same route, and only a name does")
	require.NoError(t, router.Set(l7.Route{Name: "a", Match: l7.Path("/a"), Handler: &l7.Deny{}}, l7.Route{Name: "a", Match: l7.Path("/b"), Handler: &l7.Deny{}}))
	for st := range router.Stats() {
		require.Zero(t, st.Requests.Total(), "which of two of one name it was is not known")
	}
}

type discard struct{ h http.Header }

func (d discard) Header() http.Header         { return d.h }
func (d discard) Write(p []byte) (int, error) { return len(p), nil }
func (d discard) WriteHeader(int)             {}

// TestServerOpenCountsEachConnectionOnce: also one that the standard front has.
func TestServerOpenCountsEachConnectionOnce(t *testing.T) {
	gate := make(chan struct{})
	site := func(*l4test.Network) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			<-gate
			io.WriteString(w, "ok")
		})
	}
	synctest.Test(t, func(t *testing.T) {
		byteFront(t, site, &l7.Server{}, func(t *testing.T, f *front) {
			gate = make(chan struct{})
			c := f.dial(t).send(getA)
			synctest.Wait()
			require.Equal(t, 1, f.server.Open())
			close(gate)
			c.wantReply(200, "ok")
			c.send(getA)
			c.wantReply(200, "ok")
			require.Equal(t, 1, f.server.Open())
			c.Close()
			synctest.Wait()
			require.Equal(t, 0, f.server.Open())
			require.EqualValues(t, 1, f.server.Stats().Accepted)
		})
	})
}

func TestServerCountsWhatItRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		byteFront(t, fixed(&l7.Deny{}), &l7.Server{}, func(t *testing.T, f *front) {
			c := f.dial(t).send("GET / HTTP/1.1\r\nHost : a\r\n\r\n")
			c.rest()
			synctest.Wait()
			st := f.server.Stats()
			require.Equal(t, l7.Statuses{4: 1}, st.Requests)
			require.Equal(t, l4.Ends{l4.Denied: 1}, st.Ends)
		})
	})
}

func TestServerCountsHandshakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := l4test.NewNetwork()
		ln, err := n.Listen("tcp", "10.0.0.1:443")
		require.NoError(t, err)
		srv := &l7.Server{Handler: &l7.Deny{}, Logger: discardLog(), TLSConfig: &tls.Config{Certificates: []tls.Certificate{selfSigned(t)}}}
		done := make(chan error, 1)
		go func() { done <- srv.ServeTLS(ln, "", "") }()
		connect := func() net.Conn {
			c, err := n.DialContext(t.Context(), "tcp", "10.0.0.1:443")
			require.NoError(t, err)
			return c
		}
		good := tls.Client(connect(), &tls.Config{InsecureSkipVerify: true})
		require.NoError(t, good.Handshake())
		bad := connect()
		bad.Close()
		synctest.Wait()
		good.Close()
		require.NoError(t, srv.Shutdown(t.Context()))
		<-done
		st := srv.Stats()
		require.EqualValues(t, 1, st.Handshakes)
		require.EqualValues(t, 1, st.HandshakeErrors)
	})
}

func TestUpstreamStats(t *testing.T) {
	for _, version := range []string{"1", "h2c"} {
		withTransport(t, []string{one, two}, func(t *testing.T, n *l4test.Network, tr *l7.Transport) {
			tr.Upstream.Protocols = protocols(version)
			gate := make(chan struct{})
			startOrigin(t, n, one, nil, true, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/wait" {
					<-gate
				}
				io.WriteString(w, "ok")
			})
			require.NoError(t, tr.Pool.Set(balance.Endpoint{Name: "one", Addr: one}, balance.Endpoint{Name: "two", Addr: two, Weight: -1}))
			fetch(t, tr, "http://api.test/")
			fetch(t, tr, "http://api.test/")
			var got l7.UpstreamStats
			read := func(name string) {
				got = l7.UpstreamStats{}
				for s, st := range tr.Upstream.Stats() {
					if s.Name() == name {
						got = st
					}
				}
			}
			synctest.Wait()
			read("one")
			require.Equal(t, l7.UpstreamStats{Open: 1, Idle: 1, Dials: 1, Reuses: 1}, got, version)
			done := make(chan string, 1)
			go func() { done <- fetch(t, tr, "http://api.test/wait") }()
			synctest.Wait()
			read("one")
			want := l7.UpstreamStats{Open: 1, Dials: 1, Reuses: 2}
			if version == "h2c" {
				want.Streams = 1
			}
			require.Equal(t, want, got, version)
			close(gate)
			require.Equal(t, "200 ok", <-done)
			require.NoError(t, tr.Pool.Set(balance.Endpoint{Name: "one", Addr: two})) // where nobody listens
			fetch(t, tr, "http://api.test/")
			time.Sleep(time.Second)
			read("one")
			require.NotZero(t, got.DialErrors)
			require.Equal(t, got.DialErrors+1, got.Dials, "totals outlive a change of address")
			require.EqualValues(t, 2, got.Reuses)
		})
	}
}

// An admin page may look at an Upstream while its first request comes. It is the race
// detector that fails this.
func TestUpstreamStatsBeforeTheFirstRequest(t *testing.T) {
	u := new(l7.Upstream)
	looked := make(chan struct{})
	go func() {
		defer close(looked)
		for range u.Stats() {
			t.Error("there is a server")
		}
	}()
	u.CloseIdle()
	<-looked
}
