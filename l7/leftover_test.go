// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
)

// scribble gives every exported field below v a value that no connection has.
func scribble(t *testing.T, name string, v reflect.Value) {
	switch at := v.Addr().Interface().(type) {
	case *time.Time:
		*at = time.Unix(42, 0)
		return
	case *netip.AddrPort:
		*at = netip.MustParseAddrPort("203.0.113.99:99")
		return
	case *netip.Addr:
		*at = netip.MustParseAddr("203.0.113.99")
		return
	case *error:
		*at = errors.New("scribble")
		return
	case **tls.ConnectionState:
		*at = &tls.ConnectionState{ServerName: "scribble"}
		return
	case **balance.Server:
		*at = newPool("scribble:1").Server("scribble:1")
		return
	case *l7.Fields:
		*at = l7.MakeFields("Scribble", "1")
		return
	case *func(*l7.Exchange, int) (*l7.Fields, string):
		*at = func(*l7.Exchange, int) (*l7.Fields, string) { return nil, "scribble" }
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString("scribble")
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(77)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(1)
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
	case reflect.Struct:
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() {
				scribble(t, name+"."+f.Name, v.Field(i))
			}
		}
	default:
		t.Fatalf("%s is of a type that this test does not know: %v", name, v.Type())
	}
}

// exported returns what can be compared of every exported field below v.
func exported(name string, v reflect.Value, seen map[string]any) map[string]any {
	if seen == nil {
		seen = make(map[string]any)
	}
	switch x := v.Interface().(type) {
	case time.Time:
		seen[name] = x.Equal(time.Now()) // time stands still in a bubble
		return seen
	case netip.AddrPort:
		seen[name] = x.Addr() // clients have ports of their own
		return seen
	case *tls.ConnectionState:
		seen[name] = x != nil && x.ServerName == "scribble"
		return seen
	case l7.Fields:
		n := 0
		for range x.All() {
			n++
		}
		seen[name] = []any{n, x.Has("Scribble")}
		return seen
	}
	if v.Kind() == reflect.Struct && v.NumField() > 0 {
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() {
				exported(name+"."+f.Name, v.Field(i), seen)
			}
		}
		return seen
	}
	if v.Kind() == reflect.Func {
		seen[name] = v.IsNil()
		return seen
	}
	seen[name] = v.Interface()
	return seen
}

// A carrier is a front with a client, told by how requests come in.
type carrier struct {
	name    string
	secure  bool // over TLS
	two     bool // HTTP/2
	host    bool // an http.Server of the host's
	foreign bool // the leaf is not native
}

var carriers = []carrier{
	{name: "byte front"},
	{name: "byte front over TLS", secure: true},
	{name: "HTTP/2", two: true},
	{name: "HTTP/2 over TLS", secure: true, two: true},
	{name: "handed over", foreign: true},
	{name: "http.Server", host: true},
	{name: "http.Server with a leaf that is not native", host: true, foreign: true},
}

// run serves h and has do ask it, through a client whose requests share one
// connection.
func (c carrier) run(t *testing.T, n *l4test.Network, h http.Handler, do func(client *http.Client)) {
	c.runServer(t, n, &l7.Server{Handler: h, Logger: discardLog()}, do)
}

func (c carrier) runServer(t *testing.T, n *l4test.Network, srv *l7.Server, do func(client *http.Client)) {
	ln, err := n.Listen("tcp", siteAddr)
	if err != nil {
		t.Fatal(err)
	}
	tr := &http.Transport{Protocols: protocols("1"), DialContext: newFrontOn(n).dialContext, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	if c.two {
		tr.Protocols = protocols("2", "h2c")
	}
	cert := &tls.Config{Certificates: []tls.Certificate{selfSigned(t)}}
	done := make(chan error, 1)
	stop := srv.Close
	go func() {
		switch {
		case c.host:
			std := &http.Server{Handler: srv.Handler, ErrorLog: quietLog()}
			stop = std.Close
			done <- std.Serve(ln)
		case c.secure:
			srv.TLSConfig = cert
			done <- srv.ServeTLS(ln, "", "")
		default:
			done <- srv.Serve(ln)
		}
	}()
	synctest.Wait()
	do(&http.Client{Transport: &toSite{tr, c.secure}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }})
	tr.CloseIdleConnections()
	synctest.Wait()
	_ = stop()
	if err := <-done; !errors.Is(err, http.ErrServerClosed) {
		t.Errorf("Serve = %v", err)
	}
	time.Sleep(time.Second)
}

// A handler may write into every exported field of its Exchange. The next
// request of the connection must see none of it.
func TestExchangeKeepsNothingOfTheRequestBefore(t *testing.T) {
	for _, c := range carriers {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := l4test.NewNetwork()
				var seen []map[string]any
				leaf := http.Handler(l7.HandlerFunc(func(x *l7.Exchange) { x.Respond(200, nil, "ok") }))
				if c.foreign {
					leaf = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })
				}
				h := l7.HandlerFunc(func(x *l7.Exchange) {
					seen = append(seen, exported("Exchange", reflect.ValueOf(x).Elem(), nil))
					if x.Path == "/scribble" {
						method, path, length, header := x.Method, x.Path, x.ContentLength, x.Header
						scribble(t, "Exchange", reflect.ValueOf(x).Elem())
						if c.foreign { // net/http wants a request that can be sent
							x.Method, x.Path, x.Query, x.ContentLength, x.Header = method, path, "", length, header
						}
					}
					l7.Serve(leaf, x)
				})
				ask := func(paths ...string) (last map[string]any) {
					c.run(t, n, h, func(client *http.Client) {
						for _, p := range paths {
							fetchSite(t, client, p)
						}
					})
					return seen[len(seen)-1]
				}
				want := ask("/", "/")
				got := ask("/scribble", "/")
				if !reflect.DeepEqual(got, want) {
					for k := range want {
						if !reflect.DeepEqual(got[k], want[k]) {
							t.Errorf("%s = %v; want %v", k, got[k], want[k])
						}
					}
				}
			})
		})
	}
}

// The same of a Reply, which belongs to the connection to a server.
func TestReplyKeepsNothingOfTheReplyBefore(t *testing.T) {
	for _, c := range carriers {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := l4test.NewNetwork()
				serveHTTP(t, n, "10.0.0.1:80", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "ok") })
				var seen []map[string]any
				editor := l7.ReplyFunc(func(x *l7.Exchange, r *l7.Reply) {
					seen = append(seen, exported("Reply", reflect.ValueOf(r).Elem(), nil))
					if x.Path == "/scribble" {
						length := r.ContentLength // not an editor's to change
						scribble(t, "Reply", reflect.ValueOf(r).Elem())
						r.Status, r.ContentLength = 201, length
					}
				})
				ask := func(paths ...string) map[string]any {
					proxy := newProxy(n, "10.0.0.1:80")
					h := l7.HandlerFunc(func(x *l7.Exchange) {
						x.OnReply(editor)
						l7.Serve(proxy, x)
					})
					c.run(t, n, h, func(client *http.Client) {
						for _, p := range paths {
							fetchSite(t, client, p)
						}
					})
					proxy.Upstream.CloseIdle()
					return seen[len(seen)-1]
				}
				want := ask("/", "/")
				got := ask("/scribble", "/")
				want["Reply.Server"], got["Reply.Server"] = nil, got["Reply.Server"].(*balance.Server).Name() == "scribble:1"
				for k := range want {
					if k != "Reply.Server" && !reflect.DeepEqual(got[k], want[k]) {
						t.Errorf("%s = %v; want %v", k, got[k], want[k])
					}
				}
				if got["Reply.Server"] == true {
					t.Error("Reply.Server is that of the reply before")
				}
			})
		})
	}
}

// Fields that a handler assigns, instead of editing what is there, are the
// host's, and may serve many connections at once.
func TestAssignedFieldsStayTheHosts(t *testing.T) {
	common := l7.MakeFields("X-A", "1", "X-B", "2")
	for _, c := range carriers {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := l4test.NewNetwork()
				serveHTTP(t, n, "10.0.0.1:80", func(w http.ResponseWriter, r *http.Request) {
					io.WriteString(w, r.Header.Get("X-A")+r.Header.Get("Accept"))
				})
				proxy := newProxy(n, "10.0.0.1:80")
				leaf := http.Handler(proxy)
				if c.foreign {
					leaf = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						io.WriteString(w, r.Header.Get("X-A")+r.Header.Get("Accept"))
					})
				}
				h := l7.HandlerFunc(func(x *l7.Exchange) {
					switch x.Path {
					case "/common":
						x.Header = common
						x.OnReply(l7.ReplyFunc(func(_ *l7.Exchange, r *l7.Reply) { r.Header = common }))
					case "/none":
						x.Header = l7.Fields{}
						x.OnReply(l7.ReplyFunc(func(_ *l7.Exchange, r *l7.Reply) { r.Header = l7.Fields{} }))
					}
					l7.Serve(leaf, x)
				})
				c.run(t, n, h, func(client *http.Client) {
					for _, want := range [][2]string{{"/common", "1"}, {"/", "text/x"}, {"/none", ""}, {"/", "text/x"}, {"/common", "1"}} {
						if got := fetchSite(t, client, want[0]); got != want[1] {
							t.Errorf("%s: the server got %q; want %q", want[0], got, want[1])
						}
					}
				})
				proxy.Upstream.CloseIdle()
				var got []string
				for name, value := range common.All() {
					got = append(got, name, value)
				}
				if want := []string{"X-A", "1", "X-B", "2"}; !reflect.DeepEqual(got, want) {
					t.Errorf("the host's fields are %q; want %q", got, want)
				}
			})
		})
	}
}

// Behind a load balancer whose connections carry requests of many clients, the
// scheme and the addresses that a proxy told of one request are not those of
// the next.
func TestTrustedSchemeIsOfOneRequest(t *testing.T) {
	site := fixed(&l7.TrustForwarded{
		Prefixes: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")},
		Next:     l7.HandlerFunc(func(x *l7.Exchange) { x.Respond(200, nil, x.Scheme+" "+x.Client.String()) }),
	})
	fronts(t, site, func(t *testing.T, f *front) {
		c := f.dial(t)
		c.send("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.7\r\nX-Forwarded-Proto: https\r\n\r\n").wantReply(200, "https 203.0.113.7")
		c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").wantReply(200, "http 192.0.2.1")
	})
}
