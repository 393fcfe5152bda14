// SPDX-License-Identifier: Apache-2.0

package compress_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/l7/compress"
)

func ExampleReplies() {
	app := l7.HandlerFunc(func(x *l7.Exchange) {
		h := l7.MakeFields("Content-Type", "text/html", "ETag", `"7"`)
		x.Respond(http.StatusOK, &h, strings.Repeat("<p>Hello.</p>\n", 1000))
	})
	h := &compress.Replies{
		Gzip:  4,   // of 1 to 9: less work
		Next:  app, // usually a *l7.Proxy
		Max:   200, // at once
		Types: []string{"text/*", "*+json", "application/json"},
	}
	for _, accept := range []string{"gzip, br;q=0.5", "identity"} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Accept-Encoding", accept)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		fmt.Printf("%q %s %s, less than 1 KB: %t\n", w.Header().Get("Content-Encoding"), w.Header().Get("ETag"), w.Header().Get("Vary"), w.Body.Len() < 1000)
	}
	// Output:
	// "gzip" W/"7" Accept-Encoding, less than 1 KB: true
	// "" "7" Accept-Encoding, less than 1 KB: false
}
