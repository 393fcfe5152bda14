// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l7"
)

// A pool may have members in this process: here both the servers and their
// shadow are handlers.
func ExampleMirror() {
	pool := func(name string, h http.HandlerFunc) *balance.Pool {
		p := &balance.Pool{Name: name}
		_ = p.Set(balance.Endpoint{Name: name, Value: h})
		return p
	}
	live := pool("live", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "live answer") })
	next := pool("next", func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		fmt.Printf("shadow got %s %s %q\n", r.Method, r.URL, b)
	})

	mirror := &l7.Mirror{To: &l7.Proxy{Pool: next}}
	proxy := &l7.Proxy{Pool: live, Mirror: mirror}

	w := httptest.NewRecorder()
	proxy.ServeHTTP(w, httptest.NewRequest("GET", "/users", strings.NewReader("")))
	mirror.Wait()
	fmt.Println(w.Body)
	// Output:
	// shadow got GET /users ""
	// live answer
}
