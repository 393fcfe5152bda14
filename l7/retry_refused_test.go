// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
)

// TestRefusedIsNotTheBudgetsBusiness has a server refuse every connection,
// with no retry budget at all: the other one serves every request, so that a
// server which dies under load costs no reply.
func TestRefusedIsNotTheBudgetsBusiness(t *testing.T) {
	site := func(n *l4test.Network) http.Handler {
		pool := &balance.Pool{Policy: balance.RoundRobin{}, Budget: balance.Budget{Share: -1, Min: -1}}
		if err := pool.Set(
			balance.Endpoint{Name: "gone", Addr: "10.0.0.1:80"},
			balance.Endpoint{Name: "here", Addr: "10.0.0.2:80"},
		); err != nil {
			t.Fatal(err)
		}
		return &l7.Proxy{Pool: pool, Upstream: &l7.Upstream{Dial: n.DialContext}}
	}
	fronts(t, site, func(t *testing.T, f *front) {
		serveOrigin(t, f.network, "10.0.0.2:80", func(c *l4test.Conn, br *bufio.Reader) {
			for {
				if _, err := http.ReadRequest(br); err != nil {
					return
				}
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			}
		})
		tries := 0
		for range 6 {
			if status, body := f.get(t, "/"); status != 200 || body != "ok" {
				t.Fatalf("GET = %d %q; want 200 ok", status, body)
			}
			tries += f.last(t).Tries
		}
		if tries <= 6 {
			t.Errorf("6 requests took %d tries; want some to be refused", tries)
		}
	})
}

// A server that held every request dies: with a budget of one retry for each
// request under way all of them are served elsewhere, though none has a lease
// while it waits for its retry.
func TestRetriesThatWaitNeedNoBudget(t *testing.T) {
	const clients = 40
	site := func(n *l4test.Network) http.Handler {
		pool := &balance.Pool{Policy: balance.First{}, Budget: balance.Budget{Share: 1, Min: -1}}
		if err := pool.Set(balance.Endpoint{Addr: one}, balance.Endpoint{Addr: two}); err != nil {
			panic(err)
		}
		return &l7.Proxy{Pool: pool, Upstream: &l7.Upstream{Dial: n.DialContext}}
	}
	fronts(t, site, func(t *testing.T, f *front) {
		die := make(chan struct{})
		serveOrigin(t, f.network, one, func(c *l4test.Conn, br *bufio.Reader) {
			http.ReadRequest(br)
			<-die
			c.Reset()
		})
		serveHTTP(t, f.network, two, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "ok") })
		var all []*rawConn
		for range clients {
			all = append(all, f.dial(t).send(getA))
		}
		synctest.Wait()
		close(die)
		for _, c := range all {
			c.wantReply(200, "ok")
		}
		if n := f.done()[0].Tries; n != 2 {
			t.Errorf("%d tries; want 2", n)
		}
	})
}

// A gateway without descriptors says so, and blames no server for it, so that none is taken out
// of use.
func TestNoDescriptorIsNotTheServersFault(t *testing.T) {
	var outcomes []balance.Outcome
	site := func(n *l4test.Network) http.Handler {
		pool := &balance.Pool{OnOutcome: []func(*balance.Server, balance.Outcome){
			func(_ *balance.Server, o balance.Outcome) { outcomes = append(outcomes, o) },
		}}
		if err := pool.Set(balance.Endpoint{Addr: one}); err != nil {
			panic(err)
		}
		return &l7.Proxy{Pool: pool, Upstream: &l7.Upstream{Dial: func(_ context.Context, network, _ string) (net.Conn, error) {
			return nil, &net.OpError{Op: "dial", Net: network, Err: os.NewSyscallError("socket", syscall.EMFILE)}
		}}}
	}
	fronts(t, site, func(t *testing.T, f *front) {
		outcomes = nil
		if status, _ := f.get(t, "/"); status != http.StatusServiceUnavailable {
			t.Errorf("GET = %d; want 503", status)
		}
		if r := f.last(t); r.Termination.String() != "RC" || !errors.Is(r.Err, syscall.EMFILE) {
			t.Errorf("the record says %v, %v; want RC", r.Termination, r.Err)
		}
		if len(outcomes) == 0 || outcomes[0].Class != balance.Canceled {
			t.Errorf("the pool heard %v; want it canceled", outcomes)
		}
	})
}

// A list of classes that has ConnectFailed covers a connection that this machine has no
// resource for, as nil does: it may have a port for another server.
func TestRetryWithoutAPort(t *testing.T) {
	for _, test := range []struct {
		classes []balance.Class
		want    int
	}{
		{nil, 200},
		{l7.DefaultRetryClasses(), 200},
		{[]balance.Class{balance.ConnectFailed}, 200},
		{[]balance.Class{balance.Reset}, 503},
	} {
		fronts(t, func(n *l4test.Network) http.Handler {
			p := newProxy(n, one, two)
			p.Retry.Classes = test.classes
			p.Upstream.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
				if addr == one {
					return nil, &net.OpError{Op: "dial", Net: network, Err: os.NewSyscallError("connect", syscall.EADDRNOTAVAIL)}
				}
				return n.DialContext(ctx, network, addr)
			}
			return p
		}, func(t *testing.T, f *front) {
			serveHTTP(t, f.network, two, func(http.ResponseWriter, *http.Request) {})
			worst := 0
			for range 2 { // one of them begins at each server
				got, _ := f.get(t, "/")
				worst = max(worst, got)
			}
			if worst != test.want {
				t.Errorf("%v: %d; want %d", test.classes, worst, test.want)
			}
		})
	}
}
