// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"encoding/base64"
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

// A field that the gateway owns has one value for a server that takes "_" for
// "-" as well, whatever the client sent in whatever spelling.
func TestOwnedFieldsInAllSpellings(t *testing.T) {
	edits := func(e ...l7.FieldEdit) func(http.Handler) http.Handler {
		return func(next http.Handler) http.Handler { return &l7.EditHeader{Request: e, Next: next} }
	}
	with := func(edit func(x *l7.Exchange)) func(http.Handler) http.Handler {
		return func(next http.Handler) http.Handler {
			return l7.HandlerFunc(func(x *l7.Exchange) { edit(x); l7.Serve(next, x) })
		}
	}
	for _, tc := range []struct {
		name string
		make func(next http.Handler) http.Handler
		want string // of the field, all its lines
	}{
		{"BasicAuth", func(next http.Handler) http.Handler {
			return &l7.BasicAuth{Verify: func(_, _ string) bool { return true }, UserField: "X-Remote-User", Next: next}
		}, "ann"},
		{"SetField", edits(l7.SetField{Name: "X-Remote-User", Value: "ann"}), "ann"},
		{"SetField in another spelling", edits(l7.SetField{Name: "X_Remote_User", Value: "ann"}), "ann"},
		{"SetField from", edits(l7.SetField{Name: "X-Remote-User", From: func(*l7.Exchange) string { return "ann" }}), "ann"},
		{"DelField", edits(l7.DelField{Name: "X-Remote-User"}), ""},
		{"DelField by prefix", edits(l7.DelField{Prefix: "X-Remote-"}), ""},
		{"DelField by suffix", edits(l7.DelField{Suffix: "-User"}), ""},
		{"DelField by a part", edits(l7.DelField{Contains: "-Remote-"}), ""},
		{"DelField by an expression", edits(l7.DelField{Regexp: regexp.MustCompile("^X-Remote-")}), ""},
		{"ReplaceField", edits(l7.ReplaceField{Name: "X-Remote-User", Regexp: regexp.MustCompile(".*"), With: "x"}), "x x x"},
		{"RequestID", func(next http.Handler) http.Handler {
			return &l7.RequestID{Field: "X-Remote-User", New: func(*l7.Exchange) string { return "ann" }, Next: next}
		}, "ann"},
		{"RequestID of a trusted proxy", func(next http.Handler) http.Handler {
			return &l7.TrustForwarded{Prefixes: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}, Next: &l7.RequestID{Field: "X-Remote-User", Next: next}}
		}, "admin"},
		{"Set of a handler", with(func(x *l7.Exchange) { x.Header.Set("X-Remote-User", "ann") }), "ann"},
		{"Del of a handler", with(func(x *l7.Exchange) { x.Header.Del("X-Remote-User") }), ""},
		{"Underscores", func(next http.Handler) http.Handler { return &l7.Underscores{Next: next} }, "admin"},
	} {
		for _, c := range carriers {
			t.Run(tc.name+"/"+c.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n := l4test.NewNetwork()
					echo := func(w http.ResponseWriter, r *http.Request) {
						var got []string
						for name, values := range r.Header {
							if strings.ReplaceAll(strings.ToLower(name), "_", "-") == "x-remote-user" {
								got = append(got, values...)
							}
						}
						slices.Sort(got)
						io.WriteString(w, strings.Join(got, " "))
					}
					serveHTTP(t, n, "10.0.0.1:80", echo)
					proxy := newProxy(n, "10.0.0.1:80")
					leaf := http.Handler(proxy)
					if c.foreign {
						leaf = http.HandlerFunc(echo)
					}
					c.run(t, n, tc.make(leaf), func(client *http.Client) {
						req, err := http.NewRequestWithContext(t.Context(), "GET", "http://a.test/", nil)
						if err != nil {
							t.Fatal(err)
						}
						req.SetBasicAuth("ann", "one")
						req.Header["X-Remote-User"] = []string{"admin"}
						req.Header["X_Remote_User"] = []string{"root"}
						req.Header["x-remote_user"] = []string{"root"}
						res, err := client.Do(req)
						if err != nil {
							t.Fatal(err)
						}
						defer res.Body.Close()
						if b, _ := io.ReadAll(res.Body); string(b) != tc.want {
							t.Errorf("the server got %q; want %q", b, tc.want)
						}
					})
					proxy.Upstream.CloseIdle()
				})
			})
		}
	}
}

func TestUnderscoresRefuse(t *testing.T) {
	fronts(t, fixed(&l7.Underscores{Refuse: true, Next: l7.HandlerFunc(func(x *l7.Exchange) { x.Respond(200, nil, "ok") })}), func(t *testing.T, f *front) {
		f.dial(t).send("GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\r\n\r\n").wantReply(200, "ok")
		f.dial(t).send("GET / HTTP/1.1\r\nHost: a\r\nX_A: 1\r\n\r\n").wantReply(400, "400 Bad Request\n")
	})
}

// The name that is told of, and what the server gets, is what was checked.
func TestBasicAuthTellsWhatItChecked(t *testing.T) {
	basic := func(s string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte(s)) }
	for _, c := range carriers {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := l4test.NewNetwork()
				echo := func(w http.ResponseWriter, r *http.Request) {
					io.WriteString(w, r.Header.Get("X-User")+" "+strings.Join(r.Header.Values("Authorization"), "|"))
				}
				serveHTTP(t, n, "10.0.0.1:80", echo)
				proxy := newProxy(n, "10.0.0.1:80")
				leaf := http.Handler(proxy)
				if c.foreign {
					leaf = http.HandlerFunc(echo)
				}
				h := &l7.BasicAuth{Verify: func(string, string) bool { return true }, Forward: true, UserField: "X-User", Next: leaf}
				c.run(t, n, h, func(client *http.Client) {
					for _, tc := range []struct {
						lines []string
						want  string
					}{
						{[]string{basic("ann:one")}, "ann " + basic("ann:one")},
						{[]string{basic("an n:one")}, "an n " + basic("an n:one")},
						{[]string{basic(" admin:one")}, ""},
						{[]string{basic("admin\t:one")}, ""},
						{[]string{basic("ad\x00min:one")}, ""},
						{[]string{basic("ad\r\nmin:one")}, ""},
						{[]string{basic("ann:o\x7fne")}, ""},
						{[]string{basic("ann:one"), basic("root:none")}, ""},
						{[]string{basic("ann:one"), "Bearer x"}, ""},
						{[]string{basic("ann:one") + ", " + basic("root:none")}, ""},
					} {
						req, err := http.NewRequestWithContext(t.Context(), "GET", "http://a.test/", nil)
						if err != nil {
							t.Fatal(err)
						}
						req.Header["Authorization"] = tc.lines
						res, err := client.Do(req)
						if err != nil {
							t.Fatal(err)
						}
						b, _ := io.ReadAll(res.Body)
						res.Body.Close()
						if res.StatusCode == 401 {
							b = nil
						}
						if string(b) != tc.want {
							t.Errorf("%q: status %d, the server got %q; want %q", tc.lines, res.StatusCode, b, tc.want)
						}
					}
				})
				proxy.Upstream.CloseIdle()
			})
		})
	}
}

// What a proxy of ours says passes, in the fields that it writes, with our
// element behind it. What the client wrote does not.
func TestTrustedFieldsAreOnlyTheProxys(t *testing.T) {
	mine := []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")}
	client := "X-Forwarded-For: 203.0.113.7\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Host: site\r\n" +
		"X-Forwarded-Port: 443\r\nForwarded: for=203.0.113.8;proto=http\r\nX-Real-IP: 203.0.113.9\r\nX_Forwarded_For: 203.0.113.10\r\nX_Forwarded-Port: 1\r\n"
	for _, tc := range []struct {
		name     string
		standard bool
		mode     l7.Forward
		want     string
	}{
		{"X", false, l7.ForwardX, "X-Forwarded-For: 203.0.113.7, 192.0.2.1|X-Forwarded-Host: site|X-Forwarded-Port: 443|X-Forwarded-Proto: https"},
		{"X, and Forwarded is to be written", false, l7.ForwardStandard, `Forwarded: for=203.0.113.7, for=192.0.2.1;host="a";proto=https|X-Forwarded-For: 203.0.113.7, 192.0.2.1|X-Forwarded-Host: site|X-Forwarded-Port: 443|X-Forwarded-Proto: https`},
		{"X, and both", false, l7.ForwardBoth, `Forwarded: for=203.0.113.7, for=192.0.2.1;host="a";proto=https|X-Forwarded-For: 203.0.113.7, 192.0.2.1|X-Forwarded-Host: site|X-Forwarded-Port: 443|X-Forwarded-Proto: https`},
		{"X, and none", false, l7.ForwardNone, ""},
		{"Standard, by default", true, l7.ForwardX, `Forwarded: for=203.0.113.8;proto=http, for=192.0.2.1;host="a";proto=http|X-Forwarded-For: 203.0.113.8, 192.0.2.1|X-Forwarded-Host: a|X-Forwarded-Proto: http`},
		{"Standard", true, l7.ForwardStandard, `Forwarded: for=203.0.113.8;proto=http, for=192.0.2.1;host="a";proto=http`},
		{"Standard, and both", true, l7.ForwardBoth, `Forwarded: for=203.0.113.8;proto=http, for=192.0.2.1;host="a";proto=http|X-Forwarded-For: 203.0.113.8, 192.0.2.1|X-Forwarded-Host: a|X-Forwarded-Proto: http`},
		{"Standard, and none", true, l7.ForwardNone, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			site := func(n *l4test.Network) http.Handler {
				p := newProxy(n, "10.0.0.1:80")
				p.Forward = tc.mode
				return &l7.TrustForwarded{Prefixes: mine, Standard: tc.standard, Next: p}
			}
			fronts(t, site, func(t *testing.T, f *front) {
				serveHTTP(t, f.network, "10.0.0.1:80", func(w http.ResponseWriter, r *http.Request) {
					var got []string
					for name, values := range r.Header {
						if lower := strings.ToLower(name); strings.Contains(lower, "forwarded") || strings.Contains(lower, "real") {
							got = append(got, name+": "+strings.Join(values, " & "))
						}
					}
					slices.Sort(got)
					io.WriteString(w, strings.Join(got, "|"))
				})
				f.dial(t).send("GET / HTTP/1.1\r\nHost: a\r\n"+client+"\r\n").wantReply(200, tc.want)
			})
		})
	}
}
