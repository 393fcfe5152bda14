// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/l7/l7test"
)

// A client that resets or closes its connection at any byte of its request
// leaves nothing behind: no lease, no connection to the server, no request that
// looks complete there; the bubble sees to goroutines.
func TestClientEndsAnywhere(t *testing.T) {
	requests := []string{
		"GET /x HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n",
	}
	for _, request := range requests {
		for _, reset := range []bool{true, false} {
			fronts(t, proxyTo(one), func(t *testing.T, f *front) {
				// The reply comes long after: a request that is whole waits for it.
				o := origin(t, f.network, one, l7test.Script{l7test.Wait(20 * time.Second), l7test.Reply(200, "ok")})
				for i := range len(request) + 1 {
					c := f.dial(t).send(request[:i])
					synctest.Wait()
					if reset {
						c.Reset()
					} else {
						c.Close()
					}
					time.Sleep(time.Second)
				}
				synctest.Wait()
				complete := 0
				for _, r := range o.Requests() {
					if r.Complete {
						complete++
					}
				}
				if complete > 1 {
					t.Errorf("%.4s, reset %v: %d requests look complete; only one was", request, reset, complete)
				}
				time.Sleep(20 * time.Second)
				synctest.Wait()
				if _, open := o.Conns(); open != 0 {
					t.Errorf("%.4s, reset %v: %d connections to the server are left", request, reset, open)
				}
				for _, r := range f.done() {
					if r.Termination.Cause != l4.ClientAborted {
						t.Errorf("%.4s, reset %v: record says %v, %v", request, reset, r.Termination, r.Err)
					}
				}
			})
		}
	}
}

// A client that goes away at each stage of its exchange: the record says that
// it was the client and when, and nothing is left.
func TestClientEndsInEachPhase(t *testing.T) {
	const head = "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
	for _, tc := range []struct {
		name   string
		script l7test.Script
		phase  l4.Phase
	}{
		{"before the head", l7test.Script{l7test.Stall()}, l4.PhaseHeaders},
		{"after an interim reply", l7test.Script{l7test.Interim(103), l7test.Stall()}, l4.PhaseHeaders},
		{"in the head", l7test.Script{l7test.Send(head[:20]), l7test.Stall()}, l4.PhaseHeaders},
		{"in the body", l7test.Script{l7test.Send(head + "x"), l7test.Stall()}, l4.PhaseData},
		{"in a body of chunks", l7test.Script{l7test.Send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel"), l7test.Stall()}, l4.PhaseData},
		{"in a body without length", l7test.Script{l7test.Send("HTTP/1.1 200 OK\r\n\r\nhel"), l7test.Stall()}, l4.PhaseData},
		{"while it is sent", l7test.Script{l7test.Send(strings.Replace(head, "1000", "100000000", 1)), l7test.Repeat(10000, strings.Repeat("x", 10000))}, l4.PhaseData},
		{"in the queue", nil, l4.PhaseQueue},
		{"while connecting", nil, l4.PhaseConnect},
	} {
		for _, reset := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/reset=%v", tc.name, reset), func(t *testing.T) {
				var p *l7.Proxy
				fronts(t, func(n *l4test.Network) http.Handler {
					p = newProxy(n, one)
					return p
				}, func(t *testing.T, f *front) {
					o := origin(t, f.network, one, tc.script)
					s := p.Pool.Server(one)
					switch tc.phase {
					case l4.PhaseQueue:
						if err := s.SetMaxConns(1); err != nil {
							t.Fatal(err)
						}
						o.Choose = func(*l7test.Request) l7test.Script {
							return l7test.Script{l7test.Wait(3 * time.Second), l7test.Reply(200, "ok")}
						}
						first := f.dial(t).send(getA)
						synctest.Wait()
						defer first.wantReply(200, "ok")
					case l4.PhaseConnect:
						f.network.Drop("tcp", one)
					}
					c := f.dial(t).send(getA)
					synctest.Wait()
					if reset {
						c.Reset()
					} else {
						c.Close()
					}
					time.Sleep(time.Second)
					r := f.last(t)
					if want := (l4.Termination{Cause: l4.ClientAborted, Phase: tc.phase}); r.Termination != want {
						t.Errorf("record: %v, %v; want %v", r.Termination, r.Err, want)
					}
					if tc.phase != l4.PhaseQueue {
						if _, open := o.Conns(); open != 0 || s.InFlight() != 0 {
							t.Errorf("%d connections to the server and %d leases are left", open, s.InFlight())
						}
					}
				})
			})
		}
	}
}
