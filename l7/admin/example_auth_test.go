// SPDX-License-Identifier: Apache-2.0

package admin_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/l7/admin"
)

// The page behind basic authentication: all who log in may look, and ann may act.
func ExampleHandler_basicAuth() {
	web := &balance.Pool{Name: "web"}
	_ = web.Set(balance.Endpoint{Name: "one", Addr: "10.0.0.1:80"})
	page := &l7.BasicAuth{
		Verify:    l7.Passwords(map[string]string{"ann": "one", "bob": "two"}),
		UserField: "X-User", // one that a client sends is removed
		Next: &admin.Handler{
			Pools:    []*balance.Pool{web},
			Allow:    func(r *http.Request) bool { return r.Header.Get("X-User") == "ann" },
			OnAction: func(a admin.Action) { fmt.Println("audit:", a.Request.Header.Get("X-User"), a.Do, a.Server) },
		},
	}
	// server := &l7.Server{Addr: "10.0.0.9:9443", Handler: page}, and ListenAndServeTLS
	drain := func(user, password string) {
		ask := httptest.NewRequest("POST", "/action", strings.NewReader("pool=web&server=one&action=drain&reason=deploy"))
		ask.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		ask.SetBasicAuth(user, password)
		reply := httptest.NewRecorder()
		page.ServeHTTP(reply, ask)
		fmt.Println(user, reply.Code)
	}
	drain("ann", "guess")
	drain("bob", "two")
	drain("ann", "one")
	// Output:
	// ann 401
	// bob 403
	// audit: ann drain one
	// ann 200
}
