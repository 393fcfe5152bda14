// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/l7/l7test"
)

// A connection serves as many requests as it may, and says so with the last.
func TestServerMaxRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		byteFront(t, proxyTo(one), &l7.Server{MaxRequests: 3}, func(t *testing.T, f *front) {
			origin(t, f.network, one)
			c := f.dial(t).send(strings.Repeat(getA, 5))
			for i := range 3 {
				if res := c.wantReply(200, "ok"); res.Close != (i == 2) {
					t.Errorf("reply %d: Connection: close is %v", i, res.Close)
				}
			}
			c.wantEnd()
			if n := len(f.done()); n != 3 {
				t.Errorf("%d records; want 3", n)
			}
		})
	})
}

// A tunnel that nothing goes through ends: after what the server says or what
// the proxy says, whatever is less, and after an hour if neither says anything.
func TestStreamTimeout(t *testing.T) {
	for _, tc := range []struct {
		server, proxy, want time.Duration
	}{
		{0, 0, time.Hour},
		{time.Minute, 0, time.Minute},
		{0, time.Minute, time.Minute},
		{time.Minute, 2 * time.Minute, time.Minute},
		{3 * time.Minute, 2 * time.Minute, 2 * time.Minute},
		{3 * time.Minute, -1, 3 * time.Minute},
		{-1, -1, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			site := func(n *l4test.Network) http.Handler {
				p := newProxy(n, one)
				p.StreamTimeout = tc.proxy
				return p
			}
			byteFront(t, site, &l7.Server{StreamTimeout: tc.server}, func(t *testing.T, f *front) {
				origin(t, f.network, one, l7test.Script{l7test.Tunnel("websocket")})
				c := f.dial(t).send(upgradeA)
				if res, _, err := c.reply("GET"); err != nil || res.StatusCode != 101 {
					t.Fatal(res, err)
				}
				time.Sleep(30 * time.Second)
				c.send("x") // which counts as life
				start := time.Now()
				if tc.want == 0 {
					time.Sleep(48 * time.Hour)
					c.Close()
					synctest.Wait()
				} else {
					c.rest()
					if d := time.Since(start); d < tc.want || d > tc.want+tc.want/2 {
						t.Errorf("%v, %v: ended after %v; want %v", tc.server, tc.proxy, d, tc.want)
					}
					if r := f.last(t); r.Termination != (l4.Termination{Cause: l4.ClientTimeout, Phase: l4.PhaseData}) {
						t.Errorf("record: %v, %v", r.Termination, r.Err)
					}
				}
			})
		})
	}
}

// A client that has said all it wants to say gets its reply if the server
// knows of such clients, else it counts as gone.
func TestHalfClose(t *testing.T) {
	for _, known := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			byteFront(t, proxyTo(one), &l7.Server{HalfClose: known}, func(t *testing.T, f *front) {
				origin(t, f.network, one, l7test.Script{l7test.Wait(time.Second), l7test.Reply(200, "late")})
				c := f.dial(t).send(getA)
				synctest.Wait()
				c.CloseWrite()
				if known {
					c.wantReply(200, "late")
					c.wantEnd()
				} else if got := c.rest(); got != "<reset>" {
					t.Errorf("the client got %q; want a reset", got)
				}
				want := l4.Termination{Cause: l4.ClientAborted, Phase: l4.PhaseHeaders}
				if known {
					want = l4.Termination{}
				}
				if r := f.last(t); r.Termination != want {
					t.Errorf("HalfClose %v: record says %v; want %v", known, r.Termination, want)
				}
			})
		})
	}
}

// What there is of a reply goes out as it comes, event by event, with and
// without a filter.
func TestServerSentEvents(t *testing.T) {
	for _, filtered := range []bool{false, true} {
		fronts(t, func(n *l4test.Network) http.Handler {
			p := newProxy(n, one)
			return l7.HandlerFunc(func(x *l7.Exchange) {
				if filtered {
					x.OnReply(l7.ReplyFunc(func(_ *l7.Exchange, r *l7.Reply) { r.FilterBody(upper) }))
				}
				l7.Serve(p, x)
			})
		}, func(t *testing.T, f *front) {
			serveHTTP(t, f.network, one, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "text/event-stream")
				for i := range 3 {
					fmt.Fprintf(w, "data: %d\n\n", i)
					w.(http.Flusher).Flush()
					time.Sleep(20 * time.Second)
				}
			})
			res, err := f.client.Get("http://a.test/")
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			start := time.Now()
			b := make([]byte, len("data: 0\n\n"))
			for i := range 3 {
				want := fmt.Sprintf("data: %d\n\n", i)
				if filtered {
					want = strings.ToUpper(want)
				}
				if _, err := io.ReadFull(res.Body, b); err != nil || string(b) != want {
					t.Fatalf("event %d: %q, %v", i, b, err)
				}
				if d := time.Since(start); d != time.Duration(i)*20*time.Second {
					t.Errorf("event %d after %v", i, d)
				}
			}
			if rest, err := io.ReadAll(res.Body); len(rest) > 0 || err != nil {
				t.Errorf("then %q, %v", rest, err)
			}
		})
	}
}

type baseKey struct{}

// Serve, ServeTLS and their relatives stand in for those of http.Server, over
// real sockets: HTTP/1.0, 1.1 and 2, by what the client offers.
func TestServerTLSTCP(t *testing.T) {
	srv := &l7.Server{
		Addr:      "127.0.0.1:0",
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{selfSigned(t)}},
		Logger:    discardLog(),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "%s %s %v", r.Proto, r.TLS.NegotiatedProtocol, r.Context().Value(baseKey{}))
		}),
		BaseContext: func(net.Listener) context.Context { return context.WithValue(context.Background(), baseKey{}, "base") },
	}
	ln, err := net.Listen("tcp", srv.Addr)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- srv.ServeTLS(ln, "", "") }()
	for offer, want := range map[string]string{
		"h2,http/1.1": "HTTP/2.0 h2 base", "http/1.1": "HTTP/1.1 http/1.1 base", "http/1.0": "HTTP/1.0 http/1.0 base", "": "HTTP/1.1  base",
	} {
		cfg := &tls.Config{InsecureSkipVerify: true}
		if offer != "" {
			cfg.NextProtos = strings.Split(offer, ",")
		}
		tr := &http.Transport{TLSClientConfig: cfg, ForceAttemptHTTP2: strings.HasPrefix(offer, "h2")}
		if offer == "http/1.0" {
			c, err := tls.Dial("tcp", ln.Addr().String(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			io.WriteString(c, "GET / HTTP/1.0\r\n\r\n")
			if b, _ := io.ReadAll(c); !strings.HasSuffix(string(b), want) {
				t.Errorf("offered %q: got %q", offer, b)
			}
			c.Close()
			continue
		}
		res, err := (&http.Client{Transport: tr}).Get("https://" + ln.Addr().String())
		if err != nil {
			t.Fatal(offer, err)
		}
		if b, _ := io.ReadAll(res.Body); string(b) != want {
			t.Errorf("offered %q: got %q; want %q", offer, b, want)
		}
		res.Body.Close()
		tr.CloseIdleConnections()
	}
	if err := srv.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		t.Errorf("ServeTLS = %v", err)
	}
	if err := srv.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		t.Errorf("ListenAndServe after Shutdown = %v", err)
	}
	if err := srv.ListenAndServeTLS("", ""); !errors.Is(err, http.ErrServerClosed) {
		t.Errorf("ListenAndServeTLS after Shutdown = %v", err)
	}
}
