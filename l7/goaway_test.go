// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/l7/l7test"
)

// A GOAWAY says which streams the server has looked at (RFC 9113, section 6.8): one
// behind them is sent again, whatever its method, and one of them never is.
func TestGoAwayTellsWhatWasProcessed(t *testing.T) {
	const post = " HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"
	for name, tc := range map[string]struct {
		behind bool // the POST is a stream behind the last
		code   uint32
		status int
		sent   int32
	}{
		"not processed":            {true, 0, 200, 2},
		"not processed, an error":  {true, 2, 200, 2},
		"processed":                {false, 0, 502, 1},
		"processed, then an error": {false, 2, 502, 1},
	} {
		t.Run(name, func(t *testing.T) {
			fronts(t, proxyH2(func(p *l7.Proxy) { p.Retry.Backoff = -1 }), func(t *testing.T, f *front) {
				var sent atomic.Int32
				arrived := make(chan struct{})
				ln, err := f.network.Listen("tcp", one)
				if err != nil {
					t.Fatal(err)
				}
				o := &l7test.Origin{Choose: func(r *l7test.Request) l7test.Script {
					switch {
					case r.Target == "/first":
						wait := l7test.Do(func(*l7test.Call) error { <-arrived; return nil })
						return l7test.Script{wait, l7test.GoAway(tc.code), l7test.Reply(200, "first"), l7test.Close()}
					case sent.Add(1) > 1:
						return l7test.Script{l7test.Reply(200, "posted")}
					case tc.behind:
						close(arrived)
						return l7test.Script{l7test.Stall()}
					}
					return l7test.Script{l7test.GoAway(tc.code), l7test.Close()}
				}}
				go o.Serve(ln)
				defer o.Close()
				if tc.behind {
					first := f.dial(t).send("GET /first HTTP/1.1\r\nHost: h\r\n\r\n")
					synctest.Wait()
					defer first.wantReply(200, "first")
				}
				c := f.dial(t).send("POST /second" + post)
				res, _, err := c.reply("POST")
				if err != nil || res.StatusCode != tc.status || sent.Load() != tc.sent {
					t.Errorf("got %v, %v, sent %d times; want %d, %d times", res, err, sent.Load(), tc.status, tc.sent)
				}
			})
		})
	}
}
