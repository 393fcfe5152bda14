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

// A Transfer-Encoding in HTTP/1.0 leaves the end of the request in doubt, whatever the
// method and the Content-Length (RFC 9112, section 6.1): the connection ends.
func TestTransferEncodingInHTTP10(t *testing.T) {
	const coded = "Host: a\r\nConnection: keep-alive\r\nTransfer-Encoding: "
	for name, request := range map[string]string{
		"no length":        "GET / HTTP/1.0\r\n" + coded + "chunked\r\n\r\n0\r\n\r\n",
		"DELETE":           "DELETE / HTTP/1.0\r\n" + coded + "chunked\r\n\r\n0\r\n\r\n",
		"gzip":             "GET / HTTP/1.0\r\n" + coded + "gzip\r\n\r\n",
		"length":           "POST / HTTP/1.0\r\n" + coded + "chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
		"length 0":         "POST / HTTP/1.0\r\n" + coded + "chunked\r\nContent-Length: 0\r\n\r\n",
		"length 0 and GET": "GET / HTTP/1.0\r\n" + coded + "chunked\r\nContent-Length: 0\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			fronts(t, proxyTo("10.0.0.1:80"), func(t *testing.T, f *front) {
				o := origin(t, f.network, "10.0.0.1:80")
				c := f.dial(t).send(request + smuggled)
				res, _, err := c.reply("GET")
				if err != nil {
					t.Fatal(err)
				}
				if !res.Close || f.name != "standard" && res.StatusCode != 400 {
					t.Errorf("%d, close %v", res.StatusCode, res.Close)
				}
				c.wantEnd()
				for _, r := range o.Requests() {
					if r.Target != "/" || f.name != "standard" {
						t.Errorf("the server got %s %s", r.Method, r.Target)
					}
				}
			})
		})
	}
}
