// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/penstock-lb/penstock"
	"github.com/penstock-lb/penstock/l7"
)

// Tag is a middleware of your own. It sets a field of the request, and one of the reply.
type Tag struct {
	Name string
	Next http.Handler
}

// ServeExchange implements [l7.Handler].
func (t *Tag) ServeExchange(x *l7.Exchange) {
	x.Header.Set("X-Tag", t.Name)
	x.OnReply(l7.ReplyFunc(func(_ *l7.Exchange, r *l7.Reply) { r.Header.Set("X-Tagged", "yes") }))
	l7.Serve(t.Next, x)
}

// ServeHTTP implements [http.Handler], for servers other than l7.Server.
func (t *Tag) ServeHTTP(w http.ResponseWriter, r *http.Request) { l7.ServeHTTP(t, w, r) }

// Check returns what is wrong with t and with what is inside it.
func (t *Tag) Check() error {
	var m penstock.Mistakes
	m.If(t.Name == "", "Tag.Name", t.Name, "must not be empty")
	m.Need("Tag.Next", t.Next, "must be the handler that goes on")
	m.In("Tag.Next", t.Next)
	return m.Err()
}

func ExampleHandler() {
	inner := l7.HandlerFunc(func(x *l7.Exchange) { x.Respond(http.StatusOK, nil, x.Header.Get("X-Tag")) })
	h := &Tag{Name: "blue", Next: inner}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "http://a.example/", nil))
	fmt.Println(w.Body, w.Header().Get("X-Tagged"))

	gateway := &l7.Server{Handler: &Tag{Name: "blue"}}
	fmt.Println(gateway.Check()) // and so Serve would fail
	// Output:
	// blue yes
	// penstock: Server.Handler.Tag.Next: <nil> must be the handler that goes on
}
