// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l7"
)

// TestProxyHeaderReachesRequests: what a PROXY header says at l4 is known to handlers,
// native ones and those inside a foreign one, and to net/http's, over both protocols.
func TestProxyHeaderReachesRequests(t *testing.T) {
	show := l7.HandlerFunc(func(x *l7.Exchange) {
		h := x.ProxyHeader()
		if h == nil {
			x.Respond(200, nil, "none")
			return
		}
		ssl, _ := h.SSL()
		cn, _ := ssl.TLV(l4.TLVSSLCommonName)
		x.Respond(200, nil, fmt.Sprintf("%s %s %s", x.Remote, x.Record.ID, cn))
	})
	around := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { show.ServeHTTP(w, r) })
	for name, h := range map[string]http.Handler{"native": show, "inside a foreign one": around} {
		for _, h2 := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, HTTP/2 %v", name, h2), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f, stop := behindProxyHeader(t, &l7.RequestID{ProxyProtocol: true, Next: h})
					defer stop()
					p := new(http.Protocols)
					p.SetHTTP1(!h2)
					p.SetUnencryptedHTTP2(h2)
					client := &http.Client{Transport: &http.Transport{Protocols: p, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
						c, err := f.network.DialContext(ctx, "tcp", siteAddr)
						if err == nil {
							var b []byte
							b, err = proxyHeader("unique-7").AppendBinary(nil)
							c.Write(b)
						}
						return c, err
					}}}
					defer client.CloseIdleConnections()
					for range 2 { // the second is the standard front's own, over HTTP/1
						res, err := client.Get("http://" + siteAddr)
						if err != nil {
							t.Fatal(err)
						}
						b, _ := io.ReadAll(res.Body)
						res.Body.Close()
						if string(b) != "203.0.113.9:4711 unique-7 alice" {
							t.Errorf("got %q", b)
						}
					}
				})
			})
		}
	}
}

func proxyHeader(id string) *l4.ProxyHeader {
	return &l4.ProxyHeader{
		Source:      net.TCPAddrFromAddrPort(netip.MustParseAddrPort("203.0.113.9:4711")),
		Destination: net.TCPAddrFromAddrPort(netip.MustParseAddrPort("192.0.2.80:80")),
		TLVs: []l4.TLV{{Type: l4.TLVUniqueID, Value: []byte(id)},
			l4.ProxySSL{Client: l4.ProxyClientSSL, TLVs: []l4.TLV{{Type: l4.TLVSSLCommonName, Value: []byte("alice")}}}.Extension()},
	}
}

// behindProxyHeader serves h behind an l4.Server that takes PROXY headers.
func behindProxyHeader(t *testing.T, h http.Handler) (f *front, stop func()) {
	f = newFront("byte")
	ln, err := f.network.Listen("tcp", siteAddr)
	if err != nil {
		t.Fatal(err)
	}
	local := new(l4.Listener)
	outer := &l4.Server{Logger: discardLog(), Handler: &l4.AcceptProxy{Next: local, Trusted: l4.MustParsePrefixes("0.0.0.0/0")}}
	inner := &l7.Server{Handler: h, Logger: discardLog()}
	done := make(chan error, 2)
	go func() { done <- outer.Serve(ln) }()
	go func() { done <- inner.Serve(local) }()
	return f, func() {
		for _, err := range []error{outer.Shutdown(t.Context()), inner.Shutdown(t.Context())} {
			if err != nil {
				t.Error(err)
			}
		}
		<-done
		<-done
	}
}

// TestRequestIDOfProxyHeader is taken over by choice, and only if it looks like one.
func TestRequestIDOfProxyHeader(t *testing.T) {
	for _, tc := range []struct {
		take bool
		id   string
		want bool
	}{{true, "a-1", true}, {false, "a-1", false}, {true, "a\r\nb", false}, {true, "", false}} {
		synctest.Test(t, func(t *testing.T) {
			id := l7.HandlerFunc(func(x *l7.Exchange) { x.Respond(200, nil, x.Record.ID) })
			f, stop := behindProxyHeader(t, &l7.RequestID{ProxyProtocol: tc.take, New: func(*l7.Exchange) string { return "new" }, Next: id})
			defer stop()
			b, err := proxyHeader(tc.id).AppendBinary(nil)
			if err != nil {
				t.Fatal(err)
			}
			want := "new"
			if tc.want {
				want = tc.id
			}
			c := f.dial(t).send(string(b) + strings.Replace(lameGet, "\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1))
			c.wantReply(200, want)
			c.wantEnd()
		})
	}
}

// TestContextOfForeignHandlers has what net/http puts there, whichever front made it.
func TestContextOfForeignHandlers(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, srv := r.Context().Value(http.ServerContextKey).(*http.Server)
		local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
		fmt.Fprintf(w, "%v %v", srv, local)
	})
	wrapped := &l7.Wrap{With: func(http.Handler) http.Handler { return h }, Next: h}
	for name, h := range map[string]http.Handler{"leaf": h, "wrap": wrapped} {
		for _, h2 := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, HTTP/2 %v", name, h2), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					byteFront(t, fixed(h), new(l7.Server), func(t *testing.T, f *front) {
						client := f.client
						if h2 {
							client = lameClient(f)
						}
						defer client.CloseIdleConnections()
						for range 2 {
							res, err := client.Get("http://" + siteAddr)
							if err != nil {
								t.Fatal(err)
							}
							b, _ := io.ReadAll(res.Body)
							res.Body.Close()
							if want := "true " + siteAddr; string(b) != want {
								t.Errorf("got %q; want %q", b, want)
							}
						}
					})
				})
			})
		}
	}
}
