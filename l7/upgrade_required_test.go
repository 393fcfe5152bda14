// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/l7/l7test"
)

// A 426 says which protocols are required, whatever has made it, to clients that can
// upgrade.
func TestUpgradeRequiredNamesTheProtocols(t *testing.T) {
	fields := l7.MakeFields("Upgrade", "TLS/1.3, websocket")
	around := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { next.ServeHTTP(w, r) })
	}
	edited := func(next http.Handler) http.Handler {
		return l7.HandlerFunc(func(x *l7.Exchange) {
			x.OnReply(l7.ReplyFunc(func(_ *l7.Exchange, r *l7.Reply) { r.Header.Set("X-Edited", "1") }))
			l7.Serve(next, x)
		})
	}
	native := l7.HandlerFunc(func(x *l7.Exchange) { x.Respond(426, &fields, "no") })
	foreign := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Upgrade", "TLS/1.3, websocket")
		w.WriteHeader(426)
		io.WriteString(w, "no")
	})
	proxy := func(n *l4test.Network) http.Handler { return newProxy(n, one) }
	for name, site := range map[string]func(n *l4test.Network) http.Handler{
		"proxy":                          proxy,
		"proxy, edited":                  func(n *l4test.Network) http.Handler { return edited(proxy(n)) },
		"proxy, held back":               func(n *l4test.Network) http.Handler { return &l7.BufferReply{Next: proxy(n)} },
		"proxy in an http.Handler":       func(n *l4test.Network) http.Handler { return around(proxy(n)) },
		"native":                         fixed(native),
		"native, edited":                 fixed(edited(native)),
		"native in an http.Handler":      fixed(around(native)),
		"http.Handler":                   fixed(foreign),
		"http.Handler, edited":           fixed(edited(foreign)),
		"edited, in an http.Handler":     fixed(around(edited(native))),
		"http.Handler in native in such": fixed(around(edited(foreign))),
	} {
		t.Run(name, func(t *testing.T) {
			fronts(t, site, func(t *testing.T, f *front) {
				origin(t, f.network, one, l7test.Script{l7test.Send("HTTP/1.1 426 No\r\nConnection: upgrade\r\nUpgrade: TLS/1.3, websocket\r\nContent-Length: 2\r\n\r\nno")})
				if f.name == "http2" {
					res, err := f.client.Get("http://a.test/")
					if err != nil || res.StatusCode != 426 || res.Header["Upgrade"] != nil || res.Header["Connection"] != nil {
						t.Errorf("%v, %v", res, err)
					}
					res.Body.Close()
					return
				}
				for request, closes := range map[string]bool{getA: false, strings.Replace(getA, "\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1): true} {
					res := f.dial(t).send(request).wantReply(426, "no")
					options := strings.ToLower(strings.Join(res.Header["Connection"], ", "))
					if strings.Join(res.Header["Upgrade"], "; ") != "TLS/1.3, websocket" || !closes && options != "upgrade" || res.Close != closes {
						t.Errorf("closes %v: %v, %v", closes, res.Header, res.Close)
					}
				}
				if strings.Contains(name, "http.Handler") {
					return // net/http's own business
				}
				if res := f.dial(t).send("GET / HTTP/1.0\r\n\r\n").wantReply(426, "no"); res.Header["Upgrade"] != nil {
					t.Errorf("to HTTP/1.0: %v", res.Header)
				}
			})
		})
	}
}

// The same for a program that is the client.
func TestTransportUpgradeRequired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := l4test.NewNetwork()
		origin(t, n, one, l7test.Script{l7test.Send("HTTP/1.1 426 No\r\nConnection: upgrade\r\nUpgrade: TLS/1.3\r\nContent-Length: 0\r\n\r\n")},
			l7test.Script{l7test.Send("HTTP/1.1 200 OK\r\nConnection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 0\r\n\r\n")})
		tr := &l7.Transport{Pool: newPool(one), Upstream: &l7.Upstream{Dial: n.DialContext}}
		defer tr.CloseIdleConnections()
		for _, want := range []string{"TLS/1.3", ""} {
			res, err := (&http.Client{Transport: tr}).Get("http://a.test/")
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if got := res.Header.Get("Upgrade"); got != want || (res.Header.Get("Connection") == "Upgrade") != (want != "") {
				t.Errorf("%v", res.Header)
			}
		}
	})
}
