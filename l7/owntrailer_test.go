// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
)

// A server that merges a trailer into the header finds nothing there under a name that
// the gateway owns, in any spelling.
func TestOwnedFieldsInTrailers(t *testing.T) {
	edit := func(e ...l7.FieldEdit) func(http.Handler) http.Handler {
		return func(next http.Handler) http.Handler { return &l7.EditHeader{Request: e, Next: next} }
	}
	for _, tc := range []struct {
		name string
		make func(next http.Handler) http.Handler
		want string // of the trailer
	}{
		{"nobody's", func(next http.Handler) http.Handler { return next }, "X-Remote-User X-Rest X_remote_user"},
		{"BasicAuth", func(next http.Handler) http.Handler {
			return &l7.BasicAuth{Verify: func(_, _ string) bool { return true }, UserField: "X-Remote-User", Next: next}
		}, "X-Rest"},
		{"SetField", edit(l7.SetField{Name: "X-Remote-User", Value: "ann"}), "X-Rest"},
		{"DelField", edit(l7.DelField{Name: "X_Remote_User"}), "X-Rest"},
		{"DelField by prefix", edit(l7.DelField{Prefix: "X-Remote-"}), "X-Rest"},
		{"DelField by suffix", edit(l7.DelField{Suffix: "-User"}), "X-Rest"},
		{"DelField by a part", edit(l7.DelField{Contains: "-Remote-"}), "X-Rest"},
		{"DelField by an expression", edit(l7.DelField{Regexp: regexp.MustCompile("^X-Remote-")}), "X-Rest"},
		{"ReplaceField", edit(l7.ReplaceField{Name: "X-Remote-User", Regexp: regexp.MustCompile("x")}), "X-Rest"},
		{"RequestID", func(next http.Handler) http.Handler { return &l7.RequestID{Field: "X-Remote-User", Next: next} }, "X-Rest"},
		{"Underscores", func(next http.Handler) http.Handler { return &l7.Underscores{Next: next} }, "X-Remote-User X-Rest"},
		{"TrustForwarded", func(next http.Handler) http.Handler {
			return &l7.TrustForwarded{Prefixes: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}, Next: next}
		}, "X-Remote-User X-Rest X_remote_user"},
		{"a handler of net/http inside", func(next http.Handler) http.Handler {
			return edit(l7.DelField{Name: "X-Remote-User"})(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { next.ServeHTTP(w, r) }))
		}, "X-Rest"},
		{"an edit by one of net/http", func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				r.Header.Set("X-Remote-User", "ann")
				next.ServeHTTP(w, r)
			})
		}, "X-Rest"},
	} {
		for _, c := range carriers {
			if c.host && c.foreign && (tc.name == "nobody's" || strings.HasPrefix(tc.name, "an edit")) {
				continue // all of it is net/http's
			}
			for _, h2server := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%s/HTTP2 server %v", tc.name, c.name, h2server), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						n := l4test.NewNetwork()
						echo := func(w http.ResponseWriter, r *http.Request) {
							io.Copy(io.Discard, r.Body)
							var got []string
							for name, v := range r.Trailer {
								if len(v) > 0 {
									got = append(got, name)
								}
							}
							slices.Sort(got)
							io.WriteString(w, strings.Join(got, " "))
						}
						startOrigin(t, n, "10.0.0.1:80", nil, h2server, echo)
						proxy := newProxy(n, "10.0.0.1:80")
						if h2server {
							proxy.Upstream.Protocols = protocols("h2c")
						}
						leaf := http.Handler(proxy)
						if c.foreign {
							leaf = http.HandlerFunc(echo)
						}
						c.run(t, n, tc.make(leaf), func(client *http.Client) {
							req, err := http.NewRequestWithContext(t.Context(), "POST", "http://a.test/", struct{ io.Reader }{strings.NewReader("body")})
							if err != nil {
								t.Fatal(err)
							}
							req.SetBasicAuth("ann", "one")
							req.Trailer = http.Header{}
							for _, name := range []string{"X-Rest", "X-Remote-User", "X_Remote_User", "X-Forwarded-For", "X_forwarded_for", "Forwarded", "X-Real-Ip", "X_Real-Ip", "Content_Type", "Proxy_Authorization"} {
								req.Trailer[name] = []string{"root"}
							}
							res, err := client.Do(req)
							if err != nil {
								t.Fatal(err)
							}
							defer res.Body.Close()
							b, _ := io.ReadAll(res.Body)
							if want := tc.want; string(b) != want && !(c.foreign && strings.HasPrefix(tc.name, "an edit")) {
								t.Errorf("the trailer is %q; want %q", b, want)
							}
						})
						proxy.Upstream.CloseIdle()
					})
				})
			}
		}
	}
}
