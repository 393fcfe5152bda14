// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
)

// The targets that are no path, and requests that name no host, through every
// handler that touches targets: what the server gets, or what the client gets
// instead.
func TestUnusualTargets(t *testing.T) {
	const (
		noHost = "GET /a?b HTTP/1.0\r\n\r\n"
		star   = "OPTIONS * HTTP/1.1\r\nHost: a:80\r\n\r\n"
		tunnel = "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n"
		here   = siteAddr // where the client has connected to
	)
	wrap := func(h func(next http.Handler) http.Handler) func(n *l4test.Network) http.Handler {
		return func(n *l4test.Network) http.Handler {
			p := newProxy(n, "10.0.0.1:80")
			p.Connect = true
			return h(p)
		}
	}
	for _, c := range []struct {
		name string
		site func(n *l4test.Network) http.Handler
		// Method, target and host that the server gets, or status and Location.
		noHost, star, tunnel string
	}{
		{"Proxy", wrap(func(next http.Handler) http.Handler { return next }),
			"GET /a?b " + here, "OPTIONS * a:80", "CONNECT a:80 a:80"},
		{"Mirror", func(n *l4test.Network) http.Handler {
			p := newProxy(n, "10.0.0.1:80")
			p.Connect, p.Mirror = true, &l7.Mirror{To: &l7.FixedReply{}}
			return p
		}, "GET /a?b " + here, "OPTIONS * a:80", "CONNECT a:80 a:80"},
		{"Router", wrap(func(next http.Handler) http.Handler {
			return l7.NewRouter(l7.Route{Match: l7.All{l7.Host("b"), l7.PathPrefix("/x")}, Handler: &l7.Deny{}}, l7.Route{Match: l7.PathPrefix("/"), Handler: next})
		}), "GET /a?b " + here, "OPTIONS * a:80", "CONNECT a:80 a:80"},
		{"Router by prefix", wrap(func(next http.Handler) http.Handler {
			return l7.NewRouter(l7.Route{Match: l7.PathPrefix("/a"), Handler: next})
		}),
			"GET /a?b " + here, "404", "404"},
		{"Router by pattern", wrap(func(next http.Handler) http.Handler {
			return l7.NewRouter(l7.Route{Match: l7.PathPattern("/{x...}"), Handler: next})
		}), "GET /a?b " + here, "404", "404"},
		{"Router by host", wrap(func(next http.Handler) http.Handler {
			return l7.NewRouter(l7.Route{Match: l7.Host("a"), Handler: next})
		}),
			"404", "OPTIONS * a:80", "CONNECT a:80 a:80"},
		{"Normalize", wrap(func(next http.Handler) http.Handler {
			return &l7.Normalize{DecodeUnreserved: true, UpperHex: true, MergeSlashes: true, DotSegments: true, SortQuery: true, DefaultPort: true, Strict: true, Next: next}
		}), "GET /a?b " + here, "OPTIONS * a", "CONNECT a:80 a:80"},
		{"Rewrite of the path", wrap(func(next http.Handler) http.Handler {
			return &l7.Rewrite{StripPrefix: "/a", AddPrefix: "/x", Regexp: regexp.MustCompile("^.*$"), With: "/y", Next: next}
		}), "GET /x/y?b " + here, "OPTIONS * a:80", "CONNECT a:80 a:80"},
		{"Rewrite by funcs", wrap(func(next http.Handler) http.Handler {
			return &l7.Rewrite{Path: func(*l7.Exchange) string { return "/p" }, Query: func(*l7.Exchange) string { return "q" }, Next: next}
		}), "GET /p?q " + here, "OPTIONS * a:80", "CONNECT a:80 a:80"},
		{"Rewrite of the host", wrap(func(next http.Handler) http.Handler { return &l7.Rewrite{Host: "b", Next: next} }),
			"GET /a?b b", "OPTIONS * b", "500"}, // CONNECT needs a port
		{"Rewrite of the host and port", wrap(func(next http.Handler) http.Handler { return &l7.Rewrite{Host: "b:1", Next: next} }),
			"GET /a?b b:1", "OPTIONS * b:1", "CONNECT b:1 b:1"},
		{"Rewrite of the method", wrap(func(next http.Handler) http.Handler { return &l7.Rewrite{Method: "GET", Next: next} }),
			"GET /a?b " + here, "500", "500"},
		{"Redirect", wrap(func(http.Handler) http.Handler {
			return &l7.Redirect{StripPrefix: "/a", AddPrefix: "/x", AppendSlash: true}
		}),
			"302 http://" + here + "/x/?b", "302 http://a:80", "400"},
		{"Redirect to https", wrap(func(http.Handler) http.Handler { return &l7.Redirect{Scheme: "https"} }),
			"302 https://192.0.2.80/a?b", "302 https://a", "400"},
		{"Redirect to a host", wrap(func(http.Handler) http.Handler { return &l7.Redirect{Host: "b"} }),
			"302 http://b/a?b", "302 http://b", "400"},
	} {
		for request, want := range map[string]string{noHost: c.noHost, star: c.star, tunnel: c.tunnel} {
			method, _, _ := strings.Cut(request, " ")
			t.Run(c.name+"/"+method, func(t *testing.T) {
				fronts(t, c.site, func(t *testing.T, f *front) {
					o := origin(t, f.network, "10.0.0.1:80")
					res, _, err := f.dial(t).send(request).reply("GET")
					if err != nil && method != "CONNECT" {
						t.Fatal(err)
					}
					got := ""
					if rs := o.Requests(); len(rs) > 0 {
						got = rs[0].Method + " " + rs[0].Target + " " + rs[0].Get("Host")
					} else {
						got = strings.TrimSpace(res.Status[:3] + " " + res.Header.Get("Location"))
					}
					want := want
					if f.name == "standard" && request == star {
						want = "200" // which net/http answers by itself
					}
					if got != want {
						t.Errorf("got %q; want %q", got, want)
					}
					for _, err := range o.Faults() {
						if strings.HasPrefix(err.Error(), "l7test:") {
							t.Error(err)
						}
					}
				})
			})
		}
	}
}

// The Host of a CONNECT may leave out the port of its target if that is a default of
// http or https, over HTTP/1 as over HTTP/2. Any other difference is refused.
func TestHostOfCONNECT(t *testing.T) {
	h := l7.HandlerFunc(func(x *l7.Exchange) { x.Respond(403, nil, x.Host) })
	for _, c := range []struct {
		target, host string
		ok           bool
	}{
		{"a.test:443", "a.test:443", true},
		{"a.test:443", "A.test", true},
		{"a.test:443", "a.test:", true},
		{"a.test:80", "a.test", true},
		{"[::1]:443", "[::1]", true},
		{"a.test:443", "a.test:80", false},
		{"a.test:443", "b.test", false},
		{"a.test:8443", "a.test", false},
		{"a.test:443", "b.test:443", false},
	} {
		t.Run(c.target+" and "+c.host, func(t *testing.T) {
			fronts(t, fixed(h), func(t *testing.T, f *front) {
				want := "403"
				if !c.ok {
					want = "400"
				}
				got, _, err := f.dial(t).send("CONNECT " + c.target + " HTTP/1.1\r\nHost: " + c.host + "\r\n\r\n").reply("GET")
				switch {
				case err != nil:
					t.Error(err)
				case f.name == "standard": // net/http does not tell what Host was
				case got.Status[:3] != want:
					t.Errorf("HTTP/1: %s; want %s", got.Status, want)
				}
				client := newH2Client(t, f.network)
				client.head(1, true, ":method", "CONNECT", ":authority", c.target, "host", c.host)
				client.read(time.Second, func() bool { return client.ended[1] })
				if got := client.status[1]; got != want+" " {
					t.Errorf("HTTP/2: %q; want %s", got, want)
				}
			})
		})
	}
}
