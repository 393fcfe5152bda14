// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"

	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
)

// The head of an early reply is recorded while the request body is still read, inside
// middleware of net/http. For the race detector.
func TestEarlyReplyInsideMiddleware(t *testing.T) {
	site := func(n *l4test.Network) http.Handler {
		p := newProxy(n, one)
		slow := l7.HandlerFunc(func(x *l7.Exchange) {
			x.OnReply(l7.ReplyFunc(func(*l7.Exchange, *l7.Reply) {
				for range 3000 { // no sleep: that would order what others do meanwhile
					runtime.Gosched()
				}
			}))
			l7.Serve(p, x)
		})
		around := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Around", "yes")
			slow.ServeHTTP(w, r)
		})
		return &l7.RequestID{Next: around}
	}
	fronts(t, site, func(t *testing.T, f *front) {
		startOrigin(t, f.network, one, nil, false, func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).EnableFullDuplex()
			_, _ = io.ReadFull(r.Body, make([]byte, 1<<10))
			w.(http.Flusher).Flush()
			_, _ = io.Copy(w, r.Body)
		})
		for range 20 {
			body := strings.Repeat("x", 1<<18)
			res, err := f.client.Post("http://a.test/", "text/plain", io.MultiReader(strings.NewReader(body)))
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(res.Body)
			res.Body.Close()
			if err != nil || len(b) != len(body)-1<<10 {
				t.Errorf("got %d bytes, %v", len(b), err)
			}
		}
	})
}
