// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/l7/l7test"
)

const getA = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"

// Faults of the server: what the client gets and what the record says.
func TestServerFaults(t *testing.T) {
	end := func(c l4.Cause, p l4.Phase) l4.Termination { return l4.Termination{Cause: c, Phase: p} }
	send, wait, stall, reset, closed := l7test.Send, l7test.Wait, l7test.Stall, l7test.Reset, l7test.Close
	const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	const part = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"
	cases := []struct {
		name   string
		script l7test.Script
		status int    // that the client gets, 0 for none
		body   string // with "<cut>" if it does not look complete
		end    l4.Termination
		after  time.Duration // at least, and at most a quarter more and a second
	}{
		{"fine", l7test.Script{send(ok)}, 200, "ok", end(l4.Normal, 0), 0},
		{"late", l7test.Script{wait(20 * time.Second), send(ok)}, 200, "ok", end(l4.Normal, 0), 20 * time.Second},
		{"silent", l7test.Script{stall()}, 504, "504 Gateway Timeout\n", end(l4.ServerTimeout, l4.PhaseHeaders), 60 * time.Second},
		{"half a head", l7test.Script{send("HTTP/1.1 200 OK\r\nX-"), stall()}, 504, "504 Gateway Timeout\n", end(l4.ServerTimeout, l4.PhaseHeaders), 60 * time.Second},
		{"reset", l7test.Script{reset()}, 502, "502 Bad Gateway\n", end(l4.ServerAborted, l4.PhaseHeaders), 0},
		{"closed", l7test.Script{closed()}, 502, "502 Bad Gateway\n", end(l4.ServerAborted, l4.PhaseHeaders), 0},
		{"closed in the head", l7test.Script{send("HTTP/1.1 200 OK\r\nX-"), closed()}, 502, "502 Bad Gateway\n", end(l4.ServerAborted, l4.PhaseHeaders), 0},
		{"not HTTP", l7test.Script{send("SSH-2.0-OpenSSH\r\n"), stall()}, 502, "502 Bad Gateway\n", end(l4.ServerAborted, l4.PhaseHeaders), 0},
		{"closed in the body", l7test.Script{send(part), closed()}, 200, "hello<cut>", end(l4.ServerAborted, l4.PhaseData), 0},
		{"reset in the body", l7test.Script{send(part), wait(1), reset()}, 200, "hello<cut>", end(l4.ServerAborted, l4.PhaseData), 0},
		{"stalled in the body", l7test.Script{send(part), stall()}, 200, "hello<cut>", end(l4.ServerTimeout, l4.PhaseData), 60 * time.Second},
		{"closed in a chunk", l7test.Script{send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhello"), closed()}, 200, "hello<cut>", end(l4.ServerAborted, l4.PhaseData), 0},
		{"closed before the last chunk", l7test.Script{send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"), closed()}, 200, "hello<cut>", end(l4.ServerAborted, l4.PhaseData), 0},
		{"closed in the last chunk", l7test.Script{send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n"), closed()}, 200, "hello<cut>", end(l4.ServerAborted, l4.PhaseData), 0},
		{"malformed chunk", l7test.Script{send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloxx"), stall()}, 200, "hello<cut>", end(l4.ServerAborted, l4.PhaseData), 0},
		{"reset of a body without length", l7test.Script{send("HTTP/1.1 200 OK\r\n\r\nhello"), wait(1), reset()}, 200, "hello<cut>", end(l4.ServerAborted, l4.PhaseData), 0},
		{"too many interim replies", l7test.Script{l7test.Repeat(100, "HTTP/1.1 103 Early Hints\r\n\r\n"), send(ok)}, 502, "502 Bad Gateway\n", end(l4.ServerAborted, l4.PhaseHeaders), 0},
		{"endless head", l7test.Script{send("HTTP/1.1 200 OK\r\n"), l7test.Repeat(10000, "X-Field: "+strings.Repeat("v", 100)+"\r\n"), stall()}, 502, "502 Bad Gateway\n", end(l4.ServerAborted, l4.PhaseHeaders), 0},
		{"a protocol nobody asked for", l7test.Script{l7test.Tunnel("websocket")}, 502, "502 Bad Gateway\n", end(l4.ServerAborted, l4.PhaseHeaders), 0},
		{"trickling", l7test.Script{l7test.Trickle(1, 5*time.Second, ok)}, 200, "ok", end(l4.Normal, 0), 200 * time.Second},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			var pool *balance.Pool
			site := func(n *l4test.Network) http.Handler {
				p := newProxy(n, "10.0.0.1:80")
				p.Retry.Tries = 1
				pool = p.Pool
				if tc.name == "trickling" {
					p.HeaderTimeout = time.Hour
				}
				return p
			}
			fronts(t, site, func(t *testing.T, f *front) {
				o := origin(t, f.network, "10.0.0.1:80", tc.script)
				start := time.Now()
				c := f.dial(t).send(getA)
				var res *http.Response
				var body string
				var err error
				for {
					if res, body, err = c.reply("GET"); res == nil || res.StatusCode >= 200 {
						break
					}
				}
				status := 0
				if res != nil {
					status = res.StatusCode
				}
				if err != nil {
					body += "<cut>"
				}
				if status != tc.status || body != tc.body {
					t.Errorf("reply = %d %q; want %d %q", status, body, tc.status, tc.body)
				}
				if d := time.Since(start); d < tc.after || d > tc.after+tc.after/4+time.Second {
					t.Errorf("after %v; want %v", d, tc.after)
				}
				r := f.last(t)
				if r.Termination != tc.end || r.Status != tc.status || r.Tries != 1 || r.Server != "10.0.0.1:80" {
					t.Errorf("record: %v, status %d, %d tries, server %q, error %v; want %v, %d", r.Termination, r.Status, r.Tries, r.Server, r.Err, tc.end, tc.status)
				}
				if n := pool.Server("10.0.0.1:80").InFlight(); n != 0 {
					t.Errorf("%d leases are left", n)
				}
				cutShort := tc.name == "endless head" || tc.name == "too many interim replies" // it may still be sending
				if len(o.Faults()) > 0 && !cutShort {
					t.Errorf("the server saw %v", o.Faults())
				}
			})
		})
	}
}

// A server that closes at any byte of its reply never makes a reply that looks
// complete and is not.
func TestServerClosesAnywhere(t *testing.T) {
	replies := map[string]string{
		"length":  "HTTP/1.1 200 OK\r\nContent-Length: 12\r\nX-A: b\r\n\r\nhello, world",
		"chunked": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n7;x=y\r\n, world\r\n0\r\nX-T: v\r\n\r\n",
		"interim": "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nhello, world",
	}
	for name, reply := range replies {
		for _, how := range []l7test.Step{l7test.Close(), l7test.Reset()} {
			fronts(t, proxyTo("10.0.0.1:80"), func(t *testing.T, f *front) {
				var scripts []l7test.Script
				for i := range len(reply) {
					// Twice, for the retry.
					s := l7test.Script{l7test.Send(reply[:i]), l7test.Wait(1), how}
					scripts = append(scripts, s, s)
				}
				origins := f.network
				for i := range len(reply) {
					o := origin(t, origins, "10.0.0.1:80", scripts[2*i])
					c := f.dial(t).send(strings.Replace(getA, "GET / ", "POST / ", 1))
					var res *http.Response
					var body string
					var err error
					for {
						if res, body, err = c.reply("POST"); res == nil || res.StatusCode >= 200 {
							break
						}
					}
					switch {
					case err != nil:
					case res.StatusCode == 200:
						t.Errorf("%s, closed after %d bytes: a complete 200 with %q", name, i, body)
					case res.StatusCode != 502:
						t.Errorf("%s, closed after %d bytes: %d", name, i, res.StatusCode)
					}
					if n := len(o.Requests()); n != 1 {
						t.Errorf("%s, closed after %d bytes: %d requests; a POST is not repeated", name, i, n)
					}
					c.Close()
					o.Close()
				}
			})
		}
	}
}

// A body may take longer to send than a server may take to answer.
func TestLongUpload(t *testing.T) {
	fronts(t, proxyTo("10.0.0.1:80"), func(t *testing.T, f *front) {
		o := origin(t, f.network, "10.0.0.1:80", l7test.Script{l7test.Wait(20 * time.Second), l7test.Echo()})
		for _, chunked := range []bool{false, true} {
			c := f.dial(t)
			if chunked {
				c.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
			} else {
				c.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n")
			}
			for range 10 {
				time.Sleep(20 * time.Second)
				if chunked {
					c.send("1\r\nx\r\n")
				} else {
					c.send("x")
				}
			}
			if chunked {
				c.send("0\r\n\r\n")
			}
			c.wantReply(200, "xxxxxxxxxx")
		}
		if n := len(o.Requests()); n != 2 {
			t.Errorf("%d requests", n)
		}
	})
}

// Faults of the client.
func TestClientFaults(t *testing.T) {
	end := func(c l4.Cause, p l4.Phase) l4.Termination { return l4.Termination{Cause: c, Phase: p} }
	drip := func(s string, d time.Duration) func(c *rawConn) {
		return func(c *rawConn) {
			for range 100 {
				if _, err := io.WriteString(c.Conn, s); err != nil {
					return
				}
				time.Sleep(d)
			}
		}
	}
	cases := []struct {
		name   string
		do     func(c *rawConn)
		status string // how what the client gets begins
		end    l4.Termination
		none   bool // no record: there was no request
	}{
		{"silent", func(c *rawConn) {}, "", l4.Termination{}, true},
		{"half a head", func(c *rawConn) { c.send("GET / HT") }, "HTTP/1.1 408 ", end(l4.ClientTimeout, l4.PhaseRequest), false},
		{"slow head", func(c *rawConn) { c.send("GET / HTTP/1.1\r\n"); drip("X-A: b\r\n", time.Second)(c) }, "HTTP/1.1 408 ", end(l4.ClientTimeout, l4.PhaseRequest), false},
		{"too many fields", func(c *rawConn) {
			c.send("GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("X: y\r\n", 1000) + "\r\n")
		}, "HTTP/1.1 431 ", end(l4.Denied, l4.PhaseRequest), false},
		{"long field", func(c *rawConn) {
			c.send("GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("y", 100000) + "\r\n\r\n")
		}, "HTTP/1.1 431 ", end(l4.Denied, l4.PhaseRequest), false},
		{"long line", func(c *rawConn) { c.send("GET /" + strings.Repeat("y", 100000)) }, "HTTP/1.1 414 ", end(l4.Denied, l4.PhaseRequest), false},
		{"stalled body", func(c *rawConn) { c.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello") }, "HTTP/1.1 408 ", end(l4.ClientTimeout, l4.PhaseRequest), false},
		{"malformed chunk", func(c *rawConn) {
			c.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloxx")
		}, "HTTP/1.1 400 ", end(l4.Denied, l4.PhaseRequest), false},
		{"closed in the body", func(c *rawConn) {
			c.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello").CloseWrite()
		}, "<reset>", end(l4.ClientAborted, l4.PhaseRequest), false},
		{"reset in the body", func(c *rawConn) {
			c.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello")
			synctest.Wait()
			c.Reset()
		}, "<reset>", end(l4.ClientAborted, l4.PhaseRequest), false},
		{"closed in the head", func(c *rawConn) { c.send("GET / HT").CloseWrite() }, "", end(l4.ClientAborted, l4.PhaseRequest), false},
		{"TLS", func(c *rawConn) { c.send("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n") }, "HTTP/1.1 400 ", end(l4.Denied, l4.PhaseRequest), false},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				byteFront(t, proxyTo("10.0.0.1:80"), new(l7.Server), func(t *testing.T, f *front) {
					o := origin(t, f.network, "10.0.0.1:80")
					c := f.dial(t)
					tc.do(c)
					start := time.Now()
					got := c.rest()
					if !strings.HasPrefix(got, tc.status) || tc.status == "" && got != "" {
						t.Errorf("got %q; want %q", got, tc.status)
					}
					if d := time.Since(start); d > 100*time.Second {
						t.Errorf("after %v", d)
					}
					if rs := f.done(); tc.none {
						if len(rs) > 0 {
							t.Errorf("record %+v; want none", rs)
						}
					} else if r := f.last(t); len(rs) != 1 || r.Termination != tc.end {
						t.Errorf("%d records, last %v, error %v; want %v", len(rs), r.Termination, r.Err, tc.end)
					}
					for _, r := range o.Requests() {
						if r.Complete {
							t.Errorf("the server got a complete request: %+v", r)
						}
					}
					if _, open := o.Conns(); open != 0 {
						t.Errorf("%d connections to the server are open", open)
					}
				})
			})
		})
	}
}

// A client that stops in the middle of its body is told so on both fronts, and
// the server is let go.
func TestStalledBody(t *testing.T) {
	for _, head := range []string{"Content-Length: 10\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"} {
		fronts(t, proxyTo("10.0.0.1:80"), func(t *testing.T, f *front) {
			o := origin(t, f.network, "10.0.0.1:80")
			start := time.Now()
			c := f.dial(t).send("POST / HTTP/1.1\r\nHost: a\r\n" + head)
			if s := c.rest(); !strings.HasPrefix(s, "HTTP/1.1 408 ") {
				t.Errorf("got %q; want 408", s)
			}
			if d := time.Since(start); d < 30*time.Second || d > 45*time.Second {
				t.Errorf("after %v; want 30s", d)
			}
			if r := f.last(t); r.Termination != (l4.Termination{Cause: l4.ClientTimeout, Phase: l4.PhaseRequest}) {
				t.Errorf("record: %v, %v", r.Termination, r.Err)
			}
			if _, open := o.Conns(); open != 0 || o.Requests()[0].Complete {
				t.Errorf("%d connections to the server are open, request %+v", open, o.Requests()[0])
			}
		})
	}
}

// A client that does not read its reply holds nothing for long.
func TestSlowReader(t *testing.T) {
	fronts(t, proxyTo("10.0.0.1:80"), func(t *testing.T, f *front) {
		o := origin(t, f.network, "10.0.0.1:80", l7test.Script{
			l7test.Send("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n"), l7test.Repeat(10000, strings.Repeat("x", 10000))})
		c := f.dial(t).send(getA)
		if f.name == "standard" {
			time.Sleep(time.Minute) // its timeouts are the host's
			c.Close()
		} else {
			time.Sleep(45 * time.Second)
		}
		r := f.last(t)
		if r.Status != 200 || r.Termination.Cause != l4.ClientTimeout && f.name == "byte" {
			t.Errorf("record = %v, status %d, error %v", r.Termination, r.Status, r.Err)
		}
		if _, open := o.Conns(); open != 0 {
			t.Errorf("%d connections to the server are open", open)
		}
	})
}

// One failed dial is tried again elsewhere, whatever the method.
func TestDialRetry(t *testing.T) {
	fronts(t, proxyTo("10.0.0.9:80", "10.0.0.1:80"), func(t *testing.T, f *front) {
		origin(t, f.network, "10.0.0.1:80", l7test.Script{l7test.Echo()})
		for i := range 4 {
			c := f.dial(t).send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody")
			c.wantReply(200, "body")
			r := f.last(t)
			if r.Server != "10.0.0.1:80" || r.Tries > 2 {
				t.Errorf("%d: record = %+v", i, r)
			}
		}
	})
}

// A connection that the server closed while it was idle is replaced, and the
// server does not pay for it.
func TestStaleConnection(t *testing.T) {
	for _, method := range []string{"GET", "PUT", "POST"} {
		t.Run(method, func(t *testing.T) {
			var outcomes []balance.Outcome
			site := func(n *l4test.Network) http.Handler {
				outcomes = nil
				pool := &balance.Pool{OnOutcome: []func(*balance.Server, balance.Outcome){
					func(_ *balance.Server, o balance.Outcome) { outcomes = append(outcomes, o) },
				}}
				if err := pool.Set(balance.Endpoint{Addr: "10.0.0.1:80"}); err != nil {
					panic(err)
				}
				return &l7.Proxy{Pool: pool, Upstream: &l7.Upstream{Dial: n.DialContext}}
			}
			fronts(t, site, func(t *testing.T, f *front) {
				o := origin(t, f.network, "10.0.0.1:80",
					l7test.Script{l7test.Reply(200, "one"), l7test.Do(func(*l7test.Call) error { return nil })},
					l7test.Script{l7test.Reset()},
					l7test.Script{l7test.Reply(200, "two")})
				c := f.dial(t).send(getA)
				c.wantReply(200, "one")
				c.send(method + " / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
				res, body, err := c.reply(method)
				if err != nil {
					t.Fatal(err)
				}
				got, want := fmt.Sprint(res.StatusCode, body), "200two"
				if method == "POST" {
					want = "502502 Bad Gateway\n"
				}
				if got != want {
					t.Errorf("reply = %q; want %q", got, want)
				}
				if r := f.last(t); r.Tries != 1 {
					t.Errorf("record: %d tries; want 1: a stale connection is no try", r.Tries)
				}
				if n := len(o.Requests()); method != "POST" && n != 3 || method == "POST" && n != 2 {
					t.Errorf("%d requests", n)
				}
				if len(outcomes) != 2 {
					t.Errorf("outcomes = %+v", outcomes)
				}
			})
		})
	}
}
