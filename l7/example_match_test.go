// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"fmt"
	"net/http/httptest"

	"github.com/penstock-lb/penstock/l7"
)

// Beta is a matcher of a program's own: some users of one host, who are named by a field.
type Beta struct{ users map[string]bool }

// Match implements [l7.Matcher].
func (b Beta) Match(x *l7.Exchange) bool { return b.users[x.Header.Get("X-User")] }

// Within implements [l7.Narrower]: the router asks Match for this host and path only, and
// takes the route for a more specific one than that of the host.
func (b Beta) Within() l7.Matcher {
	return l7.All{l7.Host("shop.example"), l7.PathPrefix("/cart")}
}

func ExampleNarrower() {
	router := &l7.Router{Order: l7.Specific}
	err := router.Set(
		l7.Route{Match: l7.Host("shop.example"), Handler: &l7.FixedReply{Body: "shop"}},
		l7.Route{Match: Beta{users: map[string]bool{"ann": true}}, Handler: &l7.FixedReply{Body: "new cart"}},
	)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, user := range []string{"ann", "bob"} {
		r := httptest.NewRequest("GET", "http://shop.example/cart/7", nil)
		r.Header.Set("X-User", user)
		w := httptest.NewRecorder()
		router.ServeHTTP(w, r)
		fmt.Println(user, w.Body)
	}
	// Output:
	// ann new cart
	// bob shop
}
