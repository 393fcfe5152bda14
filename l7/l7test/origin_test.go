// SPDX-License-Identifier: Apache-2.0

package l7test_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7/l7test"
)

func ExampleOrigin() {
	n := l4test.NewNetwork()
	ln, _ := n.Listen("tcp", "10.0.0.1:80")
	o := &l7test.Origin{Scripts: []l7test.Script{
		{l7test.Send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nnot a hundred"), l7test.Close()},
		{l7test.Interim(103, "Link", "</a>"), l7test.Echo()},
	}}
	go o.Serve(ln)
	defer o.Close()

	client := &http.Client{Transport: &http.Transport{DialContext: n.DialContext}}
	for range 2 {
		res, err := client.Post("http://10.0.0.1/", "text/plain", strings.NewReader("hello"))
		if err != nil {
			fmt.Println(err)
			continue
		}
		body, err := io.ReadAll(res.Body)
		fmt.Println(res.StatusCode, string(body), err)
	}
	fmt.Println(len(o.Requests()), "requests, faults:", o.Faults())
	// Output:
	// 200 not a hundred unexpected EOF
	// 200 hello <nil>
	// 2 requests, faults: []
}

// bubble runs do with a client of o, in a bubble.
func bubble(t *testing.T, o *l7test.Origin, do func(t *testing.T, n *l4test.Network, c *http.Client)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := l4test.NewNetwork()
		ln, err := n.Listen("tcp", "10.0.0.1:80")
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan error, 1)
		go func() { served <- o.Serve(ln) }()
		tr := &http.Transport{DialContext: n.DialContext}
		do(t, n, &http.Client{Transport: tr})
		tr.CloseIdleConnections()
		o.Close()
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("Serve = %v", err)
		}
	})
}

func TestSteps(t *testing.T) {
	cases := []struct {
		name   string
		script l7test.Script
		want   string // status and body, or what the error has in it
		after  time.Duration
	}{
		{"default", nil, "200 ok", 0},
		{"reply", l7test.Script{l7test.Reply(404, "no", "X-A", "b")}, "404 no", 0},
		{"late", l7test.Script{l7test.Wait(time.Hour), l7test.Reply(200, "late")}, "200 late", time.Hour},
		{"trickle", l7test.Script{l7test.Trickle(10, time.Second, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc")}, "200 abc", 5 * time.Second},
		{"until close", l7test.Script{l7test.Send("HTTP/1.1 200 OK\r\n\r\n"), l7test.Repeat(3, "x"), l7test.Close()}, "200 xxx", 0},
		{"half-closed", l7test.Script{l7test.Send("HTTP/1.1 200 OK\r\n\r\n{T}"), l7test.CloseWrite(), l7test.Stall()}, "200 /x", 0},
		{"trailer", l7test.Script{l7test.ReplyTrailer(200, "abc", "X-Sum", "1")}, "200 abc", 0},
		{"reset", l7test.Script{l7test.Reset()}, syscall.ECONNRESET.Error(), 0},
		{"reset in the body", l7test.Script{l7test.Send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"), l7test.Wait(time.Second), l7test.Reset()}, syscall.ECONNRESET.Error(), time.Second},
		{"stalled", l7test.Script{l7test.Stall()}, "deadline", 2 * time.Hour},
		{"early", l7test.Script{l7test.Early(), l7test.Reply(413, "too much"), l7test.ReadBody()}, "413 too much", 0},
		{"echo", l7test.Script{l7test.Echo()}, "200 body", 0},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			o := new(l7test.Origin)
			if tc.script != nil {
				o.Scripts = []l7test.Script{tc.script}
			}
			bubble(t, o, func(t *testing.T, n *l4test.Network, c *http.Client) {
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Hour)
				defer cancel()
				start := time.Now()
				req, _ := http.NewRequestWithContext(ctx, "POST", "http://10.0.0.1/x", strings.NewReader("body"))
				got := ""
				if res, err := c.Do(req); err != nil {
					got = err.Error()
				} else if b, err := io.ReadAll(res.Body); err != nil {
					got = err.Error()
				} else {
					got = fmt.Sprint(res.StatusCode, " ", string(b))
				}
				if !strings.Contains(got, tc.want) {
					t.Errorf("got %q; want %q", got, tc.want)
				}
				if d := time.Since(start); d != tc.after {
					t.Errorf("after %v; want %v", d, tc.after)
				}
				synctest.Wait() // a reply that is early comes before the body has been read
				rs := o.Requests()
				if len(rs) != 1 || rs[0].Target != "/x" || string(rs[0].Body) != "body" {
					t.Errorf("requests = %+v", rs)
				}
			})
		})
	}
}

func TestFaults(t *testing.T) {
	for _, bad := range []string{
		"GET / HTTP/1.1\r\n\r\n",
		"GET /\r\nHost: a\r\n\r\n",
		"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET / HTTP/1.1\nHost: a\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nX: y\rz\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n",
		"GET / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5 \r\nhello\r\n0\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloX\r\n0\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello",
	} {
		o := new(l7test.Origin)
		bubble(t, o, func(t *testing.T, n *l4test.Network, _ *http.Client) {
			c, err := n.DialContext(t.Context(), "tcp", "10.0.0.1:80")
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			io.WriteString(c, bad)
			c.(*l4test.Conn).CloseWrite()
			synctest.Wait()
			if len(o.Faults()) != 1 {
				t.Errorf("faults of %q = %v; want one", bad, o.Faults())
			}
		})
		if r, err := l7test.ReadRequest(bufio.NewReader(strings.NewReader(bad))); err == nil {
			t.Errorf("ReadRequest(%q) = %+v; want an error", bad, r)
		}
	}
}

func TestConns(t *testing.T) {
	o := new(l7test.Origin)
	bubble(t, o, func(t *testing.T, n *l4test.Network, c *http.Client) {
		for range 3 {
			res, err := c.Get("http://10.0.0.1/")
			if err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, res.Body)
			res.Body.Close()
		}
		if all, open := o.Conns(); all != 1 || open != 1 {
			t.Errorf("Conns = %d, %d; want one that is open", all, open)
		}
	})
}

func TestTunnel(t *testing.T) {
	o := &l7test.Origin{Scripts: []l7test.Script{{l7test.Tunnel("echo")}}}
	bubble(t, o, func(t *testing.T, n *l4test.Network, _ *http.Client) {
		c, _ := n.DialContext(t.Context(), "tcp", "10.0.0.1:80")
		defer c.Close()
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nhello")
		c.(*l4test.Conn).CloseWrite()
		b, _ := io.ReadAll(c)
		if !strings.HasSuffix(string(b), "Upgrade: echo\r\n\r\nhello") {
			t.Errorf("read %q", b)
		}
	})
}

func TestHTTP2(t *testing.T) {
	o := &l7test.Origin{Scripts: []l7test.Script{
		{l7test.Echo()},
		{l7test.Early(), l7test.Reset()},
		{l7test.GoAway(0), l7test.ReplyTrailer(200, "bye", "X-T", "v")},
		{l7test.Interim(103, "Link", "</a>"), l7test.Reply(204, "")},
		{l7test.Stall()},
	}}
	bubble(t, o, func(t *testing.T, n *l4test.Network, _ *http.Client) {
		p := new(http.Protocols)
		p.SetUnencryptedHTTP2(true)
		tr := &http.Transport{DialContext: n.DialContext, Protocols: p}
		defer tr.CloseIdleConnections()
		do := func() string {
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			req, _ := http.NewRequestWithContext(ctx, "PUT", "http://10.0.0.1/y", strings.NewReader("body"))
			res, err := tr.RoundTrip(req)
			if err != nil {
				return err.Error()
			}
			defer res.Body.Close()
			b, _ := io.ReadAll(res.Body)
			return fmt.Sprint(res.StatusCode, " ", string(b), res.Trailer)
		}
		for i, want := range []string{"200 bodymap[]", "INTERNAL_ERROR", "200 byemap[X-T:[v]]", "204 map[]", "deadline"} {
			if got := do(); !strings.Contains(got, want) {
				t.Errorf("%d: %q; want %q", i, got, want)
			}
			synctest.Wait() // for the client to have seen the GOAWAY
		}
		if all, _ := o.Conns(); all != 2 {
			t.Errorf("%d connections; want a second one after GOAWAY", all)
		}
	})
}
