// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
)

// A server may send interim replies and the final one at the moment at which the client
// is asked for its body: the 100 comes before all of them, and once. The race detector
// sees if two goroutines look after it.
func TestContinueWhileTheServerReplies(t *testing.T) {
	const wait = time.Second // for a 100 of the server
	for name, said := range map[string][]string{
		"an interim reply": {"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"},
		"a late 100":       {"HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"},
		"the reply":        {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"},
	} {
		for _, expect := range []string{"", "Expect: 100-continue\r\n"} {
			t.Run(fmt.Sprintf("%s, %q", name, expect), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					byteFront(t, proxyTo(one), new(l7.Server), func(t *testing.T, f *front) {
						serveOrigin(t, f.network, one, func(c *l4test.Conn, br *bufio.Reader) {
							if _, err := http.ReadRequest(br); err != nil {
								return
							}
							time.Sleep(wait)
							for _, s := range said {
								io.WriteString(c, s)
							}
							io.Copy(io.Discard, br)
						})
						c := f.dial(t).send("PUT / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n" + expect + "\r\n")
						if expect == "" {
							c.send("12345")
						}
						got := c.rest()
						if n := strings.Index(got, "100 Continue"); strings.Count(got, "HTTP/1.1 200") != 1 || n > strings.Index(got, "HTTP/1.1 200") {
							t.Errorf("%q", got)
						}
					})
				})
			})
		}
	}
}
