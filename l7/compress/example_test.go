// SPDX-License-Identifier: Apache-2.0

package compress_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
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

// A body that is small on the wire may be large in memory: Requests bounds it.
func ExampleRequests() {
	app := l7.HandlerFunc(func(x *l7.Exchange) {
		body, err := io.ReadAll(x.Body())
		var bomb *compress.BombError
		if errors.As(err, &bomb) {
			x.Respond(http.StatusRequestEntityTooLarge, nil, "") // as a Proxy does by itself
			return
		}
		x.Respond(http.StatusOK, nil, fmt.Sprintf("%q %d", x.Header.Get("Content-Encoding"), len(body)))
	})
	h := &compress.Requests{MaxBytes: 1 << 20, Next: app}
	for _, size := range []int{10_000, 1_000_000} {
		var body bytes.Buffer
		z := gzip.NewWriter(&body)
		_, _ = z.Write(bytes.Repeat([]byte{'a'}, size))
		_ = z.Close()
		r := httptest.NewRequest("POST", "/", &body)
		r.Header.Set("Content-Encoding", "gzip")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		fmt.Println(w.Code, w.Body)
	}
	// Output:
	// 200 "" 10000
	// 413
}
