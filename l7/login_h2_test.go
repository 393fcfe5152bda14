// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
)

// A server that speaks only HTTP/2 and yet logs connections in: who was let in is the
// only one on that connection, whether others were there before or come after.
func TestLoginsOverHTTP2HaveTheirOwnConnection(t *testing.T) {
	for _, reuse := range []l7.Reuse{l7.ReuseAlways, l7.ReuseSafe, l7.ReuseNever} {
		for _, c := range carriers {
			t.Run(c.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n := l4test.NewNetwork()
					ln, err := n.Listen("tcp", one)
					if err != nil {
						t.Fatal(err)
					}
					type connKey struct{}
					var mu sync.Mutex
					users := make(map[any]string)
					origin := &http.Server{
						Protocols:   protocols("h2c"),
						ConnContext: func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) },
						Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
							mu.Lock()
							defer mu.Unlock()
							if _, name, ok := strings.Cut(r.Header.Get("Authorization"), " "); ok {
								users[r.Context().Value(connKey{})] = name
							}
							_, _ = io.WriteString(w, users[r.Context().Value(connKey{})])
						}),
					}
					go origin.Serve(ln)
					defer origin.Close()
					p := newProxy(n, one)
					p.Upstream.Protocols, p.Upstream.Reuse = protocols("h2c"), reuse
					h := http.Handler(p)
					if c.foreign {
						h = http.HandlerFunc(p.ServeHTTP)
					}
					c.run(t, n, h, func(client *http.Client) {
						ask := func(auth, want string) {
							t.Helper()
							req, err := http.NewRequestWithContext(t.Context(), "GET", "http://a.test/", nil)
							if err != nil {
								t.Fatal(err)
							}
							if auth != "" {
								req.Header.Set("Authorization", auth)
							}
							res, err := client.Do(req)
							if err != nil {
								t.Fatal(err)
							}
							defer res.Body.Close()
							if b, _ := io.ReadAll(res.Body); string(b) != want {
								t.Errorf("%v: served as %q, not %q", reuse, b, want)
							}
						}
						ask("", "")
						ask("Negotiate anna", "anna")
						ask("", "")
						ask("NTLM berta", "berta")
						ask("", "")
					})
					p.Upstream.CloseIdle()
				})
			})
		}
	}
}
