// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
)

// A counter of connections numbers them in the order of their first requests.
type counter struct {
	mu   sync.Mutex
	seen map[string]int
}

func (c *counter) number(addr string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.seen == nil {
		c.seen = make(map[string]int)
	}
	if c.seen[addr] == 0 {
		c.seen[addr] = len(c.seen) + 1
	}
	return c.seen[addr]
}

func (c *counter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n := c.number(r.RemoteAddr)
	if d, err := time.ParseDuration(r.URL.Query().Get("wait")); err == nil {
		time.Sleep(d)
	}
	io.WriteString(w, strconv.Itoa(n))
}

// reuseSite returns a proxy before one server, with a mode of reuse, behind a
// handler that is not native if so wanted.
func reuseSite(mode l7.Reuse, two, foreign bool) func(n *l4test.Network) http.Handler {
	return func(n *l4test.Network) http.Handler {
		p := newProxy(n, one)
		p.Upstream.Reuse = mode
		if two {
			p.Upstream.Protocols = protocols("h2c")
		}
		if foreign {
			return http.HandlerFunc(p.ServeHTTP)
		}
		return p
	}
}

// Each step is a client, by a letter, and the connection to the server that its
// request has to go over. The cases C1 and C3 of HAProxy's tests are among them.
func TestReuse(t *testing.T) {
	for _, tc := range []struct {
		mode l7.Reuse
		want string
	}{
		{l7.ReuseAlways, "a1 b1 a1 c1 c1"},
		{l7.ReuseSafe, "a1 a1 b2 b2 a2 c3 c3"}, // a has the connection that was used last of those that are not proven
		{l7.ReuseAggressive, "a1 b2 b2 c2 c1 d1"},
		{l7.ReuseNever, "a1 a1 b2 b2 a1 c3 c3 c3 b2"},
	} {
		for _, two := range []bool{false, true} {
			for _, foreign := range []bool{false, true} {
				t.Run(fmt.Sprintf("%v/two=%v/foreign=%v", tc.mode, two, foreign), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						byteFront(t, reuseSite(tc.mode, two, foreign), new(l7.Server), func(t *testing.T, f *front) {
							var c counter
							o := startOrigin(t, f.network, one, nil, true, c.ServeHTTP)
							clients := map[string]*rawConn{}
							var got []string
							for step := range strings.SplitSeq(tc.want, " ") {
								who := step[:1]
								if clients[who] == nil {
									clients[who] = f.dial(t)
								}
								_, body, err := clients[who].send(getA).reply("GET")
								if err != nil {
									t.Fatal(err)
								}
								got = append(got, who+body)
								synctest.Wait() // a stream of HTTP/2 ends a moment after its reply
							}
							want := tc.want
							if two { // no connection of HTTP/2 is better than another: the first one that may be had
								want = map[l7.Reuse]string{
									l7.ReuseSafe:       "a1 a1 b2 b1 a1 c3 c1",
									l7.ReuseAggressive: "a1 b2 b1 c1 c1 d1",
								}[tc.mode]
								if want == "" {
									want = tc.want
								}
							}
							if g := strings.Join(got, " "); g != want {
								t.Errorf("went over %s; want %s", g, want)
							}
							for _, c := range clients {
								c.Close()
							}
							synctest.Wait()
							if left := o.open(); tc.mode == l7.ReuseNever && left != 0 {
								t.Errorf("%d connections are open when all clients have gone", left)
							}
						})
					})
				})
			}
		}
	}
}

// Under a host's own http.Server each request counts as a session.
func TestReuseUnknownSession(t *testing.T) {
	for mode, want := range map[l7.Reuse]string{l7.ReuseAlways: "111", l7.ReuseSafe: "123", l7.ReuseAggressive: "123", l7.ReuseNever: "123"} {
		synctest.Test(t, func(t *testing.T) {
			standardFront(t, reuseSite(mode, false, false), func(t *testing.T, f *front) {
				var c counter
				serveHTTP(t, f.network, one, c.ServeHTTP)
				got := ""
				for range 3 {
					_, body := f.get(t, "/")
					got += body
				}
				if got != want {
					t.Errorf("%v: went over %s; want %s", mode, got, want)
				}
			})
		})
	}
}

// A Transport is one session, and its requests are none of them the first.
func TestReuseTransport(t *testing.T) {
	for _, mode := range []l7.Reuse{l7.ReuseAlways, l7.ReuseSafe, l7.ReuseAggressive, l7.ReuseNever} {
		for _, two := range []bool{false, true} {
			withTransport(t, []string{one}, func(t *testing.T, n *l4test.Network, tr *l7.Transport) {
				other := &l7.Transport{Pool: tr.Pool, Upstream: tr.Upstream}
				tr.Upstream.Reuse = mode
				if two {
					tr.Upstream.Protocols = protocols("h2c")
				}
				var c counter
				startOrigin(t, n, one, nil, true, c.ServeHTTP)
				got := ""
				for _, tr := range []*l7.Transport{tr, tr, other, other, tr} {
					synctest.Wait() // over HTTP/2 the end of a stream is heard of a moment later
					got += strings.TrimPrefix(fetch(t, tr, "http://a/"), "200 ")
				}
				want := "11111"
				if mode == l7.ReuseNever {
					want = "11221"
				}
				if got != want {
					t.Errorf("%v: went over %s; want %s", mode, got, want)
				}
			})
		}
	}
}

// While a session has streams on a connection of HTTP/2 no other session gets
// one there, unless all share all.
func TestReuseStreams(t *testing.T) {
	for mode, want := range map[l7.Reuse]string{l7.ReuseAlways: "1", l7.ReuseSafe: "2", l7.ReuseAggressive: "2", l7.ReuseNever: "2"} {
		withTransport(t, []string{one}, func(t *testing.T, n *l4test.Network, tr *l7.Transport) {
			other := &l7.Transport{Pool: tr.Pool, Upstream: tr.Upstream}
			tr.Upstream.Reuse, tr.Upstream.Protocols = mode, protocols("h2c")
			var c counter
			startOrigin(t, n, one, nil, true, c.ServeHTTP)
			var wg sync.WaitGroup
			for range 5 {
				wg.Go(func() {
					if got := fetch(t, tr, "http://a/?wait=10s"); got != "200 1" {
						t.Errorf("%v: got %q", mode, got)
					}
				})
			}
			time.Sleep(time.Second)
			if got := fetch(t, other, "http://a/"); got != "200 "+want {
				t.Errorf("%v: another session got %q; want %s", mode, got, want)
			}
			wg.Wait()
		})
	}
}

// What a session keeps ends with everything else that ends idle connections.
func TestReuseOwnedEnd(t *testing.T) {
	for name, end := range map[string]func(u *l7.Upstream, p *l7.Proxy){
		"idle":   func(*l7.Upstream, *l7.Proxy) { time.Sleep(50 * time.Second) },
		"closed": func(u *l7.Upstream, _ *l7.Proxy) { u.CloseIdle() },
		"down":   func(_ *l7.Upstream, p *l7.Proxy) { p.Pool.Server(one).Cut(false, "test") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var p *l7.Proxy
				byteFront(t, func(n *l4test.Network) http.Handler {
					p = reuseSite(l7.ReuseNever, false, false)(n).(*l7.Proxy)
					return p
				}, new(l7.Server), func(t *testing.T, f *front) {
					var c counter
					o := startOrigin(t, f.network, one, nil, false, c.ServeHTTP)
					a := f.dial(t)
					a.send(getA).wantReply(200, "1")
					a.send(getA).wantReply(200, "1")
					synctest.Wait()
					if o.open() != 1 {
						t.Fatalf("%d connections are open; want 1", o.open())
					}
					end(p.Upstream, p)
					synctest.Wait()
					if o.open() != 0 {
						t.Errorf("%d connections are open; want none", o.open())
					}
					a.send(getA).wantReply(200, "2")
				})
			})
		})
	}
}

// A login that nobody has asked for is answered 200 at once. Its connection is
// that client's all the same, whatever the client speaks.
func TestReusePreemptiveLogin(t *testing.T) {
	for _, c := range carriers {
		for _, scheme := range []string{"Negotiate ", "ntlm ", "NEGOTIATE "} {
			for _, two := range []bool{false, true} {
				t.Run(c.name, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						n := l4test.NewNetwork()
						serveOrigin(t, n, one, func(c *l4test.Conn, br *bufio.Reader) {
							who := "nobody"
							for {
								r, err := http.ReadRequest(br)
								if err != nil {
									return
								}
								if _, name, ok := strings.Cut(r.Header.Get("Authorization"), " "); ok {
									who = name
								}
								fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(who), who)
							}
						})
						p := newProxy(n, one)
						if two {
							p.Upstream.Protocols = protocols("1", "2") // of TLS, which there is none of
						}
						h := http.Handler(p)
						if c.foreign {
							h = http.HandlerFunc(p.ServeHTTP)
						}
						c.run(t, n, h, func(client *http.Client) {
							ask := func(client *http.Client, auth string) string {
								req, err := http.NewRequestWithContext(t.Context(), "GET", "http://a.test/", nil)
								if err != nil {
									t.Fatal(err)
								}
								if auth != "" {
									req.Header.Set("Authorization", auth)
								}
								res, err := client.Do(req)
								if err != nil {
									t.Fatal(err)
								}
								defer res.Body.Close()
								b, _ := io.ReadAll(res.Body)
								return string(b)
							}
							other := &http.Transport{DialContext: newFrontOn(n).dialContext, Protocols: client.Transport.(*toSite).Protocols, TLSClientConfig: client.Transport.(*toSite).TLSClientConfig}
							defer other.CloseIdleConnections()
							stranger := &http.Client{Transport: &toSite{other, c.secure}}
							if got := ask(client, scheme+"anna"); got != "anna" {
								t.Errorf("she is %q", got)
							}
							for range 3 {
								if got := ask(stranger, ""); got != "nobody" {
									t.Errorf("a stranger is %q", got)
								}
							}
							if got := ask(client, ""); got != "anna" && !c.host {
								t.Errorf("later she is %q", got)
							}
						})
						p.Upstream.CloseIdle()
					})
				})
			}
		}
	}
}

// A connection that a client logs in stays with that client, in each mode, and
// ends with it.
func TestReuseConnectionLogin(t *testing.T) {
	for _, mode := range []l7.Reuse{l7.ReuseAlways, l7.ReuseSafe, l7.ReuseAggressive, l7.ReuseNever} {
		synctest.Test(t, func(t *testing.T) {
			byteFront(t, reuseSite(mode, false, false), new(l7.Server), func(t *testing.T, f *front) {
				open := make(chan struct{}, 10)
				serveOrigin(t, f.network, one, func(c *l4test.Conn, br *bufio.Reader) {
					open <- struct{}{}
					defer func() { <-open }()
					who := ""
					for {
						r, err := http.ReadRequest(br)
						if err != nil {
							return
						}
						if v := r.Header.Get("Authorization"); v != "" {
							who = strings.TrimPrefix(v, "NTLM ")
						}
						if who == "" {
							io.WriteString(c, "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: NTLM\r\nContent-Length: 0\r\n\r\n")
							continue
						}
						fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(who), who)
					}
				})
				a, b := f.dial(t), f.dial(t)
				a.send(getA).wantReply(401, "")
				b.send(getA).wantReply(401, "")
				a.send("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: NTLM anna\r\n\r\n").wantReply(200, "anna")
				b.send("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: NTLM bert\r\n\r\n").wantReply(200, "bert")
				for range 3 {
					a.send(getA).wantReply(200, "anna")
					b.send(getA).wantReply(200, "bert")
				}
				f.dial(t).send(getA).wantReply(401, "")
				a.Close()
				b.Close()
				synctest.Wait()
				if len(open) != 1 { // the third client's
					t.Errorf("%v: %d connections are open; want 1", mode, len(open))
				}
			})
		})
	}
}
