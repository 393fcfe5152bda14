// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-lb/penstock/l7/l7test"
)

const smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"

// A server may answer before it has read the body. What the client then still
// sends of the body never becomes a request, nor does what is in flight.
func TestEarlyReplyLeavesNoRequest(t *testing.T) {
	for name, head := range map[string]string{
		"length":      "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200\r\n\r\n",
		"chunked":     "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n80\r\n",
		"expect":      "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200\r\nExpect: 100-continue\r\n\r\n",
		"http/1.0":    "POST / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nContent-Length: 200\r\n\r\n",
		"long":        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n",
		"some behind": "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200\r\n\r\n" + smuggled,
	} {
		t.Run(name, func(t *testing.T) {
			fronts(t, proxyTo("10.0.0.1:80"), func(t *testing.T, f *front) {
				o := origin(t, f.network, "10.0.0.1:80", l7test.Script{l7test.Early(), l7test.Reply(200, "early"), l7test.ReadBody()})
				c := f.dial(t).send(head)
				c.wantReply(200, "early")
				time.Sleep(10 * time.Millisecond)
				for range 3 {
					c.Conn.Write([]byte(smuggled))
					time.Sleep(10 * time.Millisecond)
				}
				if s := c.rest(); strings.Contains(s, "early") {
					t.Errorf("a second reply: %q", s)
				}
				synctest.Wait()
				for _, r := range o.Requests() {
					if r.Target != "/" {
						t.Errorf("the server got %s %s", r.Method, r.Target)
					}
				}
			})
		})
	}
}
