// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
)

// What a handler writes into a request is checked before it is sent: nothing of
// it reaches a server if it is no request, and the record names the value.
func TestUnsendableRequestIsRefused(t *testing.T) {
	const inject = " HTTP/1.1\r\nHost: b\r\n\r\nGET /smuggled"
	for name, write := range map[string]func(x *l7.Exchange){
		"Method":      func(x *l7.Exchange) { x.Method = "GET" + inject },
		"Method ":     func(x *l7.Exchange) { x.Method = "" },
		"Method GET ": func(x *l7.Exchange) { x.Method = "GET /x" },
		"Host":        func(x *l7.Exchange) { x.Host = "b\r\nX-A: c" },
		"Host b/":     func(x *l7.Exchange) { x.Host = "b/c" },
		"Path":        func(x *l7.Exchange) { x.Path = "/users/" + l7.PathValue(x, "id") },
		"Path ":       func(x *l7.Exchange) { x.Path = "" },
		"Path x":      func(x *l7.Exchange) { x.Path = "x" },
		"Path *":      func(x *l7.Exchange) { x.Path = "*" },
		"Path /a b":   func(x *l7.Exchange) { x.Path = "/a b" },
		"Path /?":     func(x *l7.Exchange) { x.Path = "/a?b" },
		"Path #":      func(x *l7.Exchange) { x.Path = "/a#b" },
		"Path utf8":   func(x *l7.Exchange) { x.Path = "/\xc3\xa4" },
		"Query":       func(x *l7.Exchange) { x.Query = "?a" + inject },
		"Query a":     func(x *l7.Exchange) { x.Query = "a=b" },
		"Scheme":      func(x *l7.Exchange) { x.Scheme = "http\r\nX-A: b" },
		"Record.Host": func(x *l7.Exchange) { x.Record.Host = "b\r\nX-A: c" },
		"Forwarded": func(x *l7.Exchange) {
			x.Record.Host = "b\r\nX-A: c"
			l7.SetForwarded{Host: true}.EditFields(x, &x.Header)
			x.Record.Host = "a"
		},
	} {
		site := func(n *l4test.Network) http.Handler {
			p := newProxy(n, "10.0.0.1:80")
			h := l7.HandlerFunc(func(x *l7.Exchange) {
				if strings.HasPrefix(x.Path, "/by-id/") {
					write(x)
				}
				p.ServeExchange(x)
			})
			return l7.NewRouter(l7.Route{Match: l7.PathPattern("/by-id/{id}"), Handler: h}, l7.Route{Match: l7.PathPrefix("/"), Handler: h})
		}
		t.Run(name, func(t *testing.T) {
			fronts(t, site, func(t *testing.T, f *front) {
				o := origin(t, f.network, "10.0.0.1:80")
				if status, _ := f.get(t, "/by-id/a%20HTTP%2F1.1%0D%0AHost:b%0D%0A%0D%0A"); status != 500 {
					t.Errorf("status %d; want 500", status)
				}
				r := f.last(t)
				if want, _, _ := strings.Cut(name, " "); r.Err == nil || !strings.Contains(r.Err.Error(), want) || !strings.Contains(r.Err.Error(), ": it must ") {
					t.Errorf("error %v; want one about %s that says what to write", r.Err, want)
				}
				if want := (l4.Termination{Cause: l4.Internal, Phase: l4.PhaseRequest}); r.Termination != want || r.Status != 500 {
					t.Errorf("record %v, %d; want %v", r.Termination, r.Status, want)
				}
				if status, _ := f.get(t, "/good"); status != 200 {
					t.Errorf("the next request: %d", status)
				}
				for _, r := range o.Requests() {
					if r.Target != "/good" {
						t.Errorf("the server got %+v", r)
					}
				}
				if len(o.Faults()) > 0 {
					t.Errorf("the server got %v", o.Faults())
				}
			})
		})
	}
}

// The values that a host's middleware gives us in a Header are checked too.
func TestUnsendableFieldOfAMiddleware(t *testing.T) {
	for _, field := range [][2]string{{"X-User", "a\r\nX-Admin: 1"}, {"X-User: b\r\nX-Admin", "1"}, {"X User", "a"}, {"X-User", "a\x00"}} {
		site := func(n *l4test.Network) http.Handler {
			p := newProxy(n, "10.0.0.1:80")
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				r.Header[field[0]] = []string{field[1]}
				p.ServeHTTP(w, r)
			})
		}
		fronts(t, site, func(t *testing.T, f *front) {
			o := origin(t, f.network, "10.0.0.1:80")
			if status, _ := f.get(t, "/"); status != 500 {
				t.Errorf("%q: status %d; want 500", field, status)
			}
			if rs := o.Requests(); len(rs) > 0 || len(o.Faults()) > 0 {
				t.Errorf("%q: the server got %+v, %v", field, rs, o.Faults())
			}
		})
	}
}

// What is sent as a final reply is one: a status below 200 would leave the
// client waiting, and make a reply of what follows.
func TestUnsendableReplyIsReplaced(t *testing.T) {
	for _, status := range []int{-1, 1, 99, 100, 101, 103, 199, 1000, 12345} {
		for name, site := range map[string]func(n *l4test.Network) http.Handler{
			"reply": fixed(l7.HandlerFunc(func(x *l7.Exchange) { x.Respond(status, nil, "x") })),
			"error": fixed(l7.HandlerFunc(func(x *l7.Exchange) { x.Error(status, l4.Termination{Cause: l4.Denied}) })),
			"editor": func(n *l4test.Network) http.Handler {
				p := newProxy(n, "10.0.0.1:80")
				return l7.HandlerFunc(func(x *l7.Exchange) {
					x.OnReply(l7.ReplyFunc(func(_ *l7.Exchange, r *l7.Reply) { r.Status = status }))
					p.ServeExchange(x)
				})
			},
			"editor of a foreign reply": fixed(l7.HandlerFunc(func(x *l7.Exchange) {
				x.OnReply(l7.ReplyFunc(func(_ *l7.Exchange, r *l7.Reply) { r.Status = status }))
				l7.Serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "x") }), x)
			})),
		} {
			fronts(t, site, func(t *testing.T, f *front) {
				o := origin(t, f.network, "10.0.0.1:80")
				for range 2 {
					res, err := f.client.Get("http://a.test/")
					if err != nil {
						t.Fatalf("%s of %d: %v", name, status, err)
					}
					if res.Body.Close(); res.StatusCode != 500 {
						t.Errorf("%s of %d: %d; want 500", name, status, res.StatusCode)
					}
				}
				r := f.last(t)
				if r.Err == nil || !strings.HasSuffix(r.Err.Error(), ", which cannot be sent: it must be from 200 to 999") || r.Status != 500 || r.Termination.Cause != l4.Internal {
					t.Errorf("%s of %d: record %d, %v, %v", name, status, r.Status, r.Termination, r.Err)
				}
				if made, open := o.Conns(); name == "editor" && (made != 1 || open != 1) {
					t.Errorf("%d connections to the server, %d of them open; want one for both requests", made, open)
				}
			})
		}
	}
}
