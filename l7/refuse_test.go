// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-lb/penstock/l7"
)

// What no further byte can make a request of is refused at once, not when the
// time for a head is over.
func TestHopelessHeadIsRefusedAtOnce(t *testing.T) {
	for _, head := range []string{
		"GET /\r\n",                                // HTTP/0.9
		"GET / HTTP/1.1\r\nHost : a\r\n",           // the name cannot get better
		"GET / HTTP/1.1\r\nHost: a\r\n folded\r\n", // RFC 9112, section 5.2
		"GET / HTTQ",
		"GET / HTTP/1.1 \r\n",
		"GET  /",
		" GET / HTTP/1.1\r\n",
		"GE\x00T",
		"GET / HTTP/1.1\r\nHost: a\x01",
		"GET / HTTP/1.1\r\nHost: a\rb",
		"GET / HTTP/1.1\nHost",
		"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", // TLS
	} {
		t.Run(head, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				byteFront(t, proxyTo("10.0.0.1:80"), new(l7.Server), func(t *testing.T, f *front) {
					start := time.Now()
					c := f.dial(t)
					for i := range len(head) { // however it comes
						c.send(head[i : i+1])
						synctest.Wait()
					}
					if res, _, err := c.reply("GET"); err != nil || res.StatusCode != 400 || !res.Close {
						t.Errorf("got %v, %v; want 400 and Connection: close", res, err)
					}
					if took := time.Since(start); took > 0 {
						t.Errorf("after %v", took)
					}
				})
			})
		})
	}
}

// A head is not refused as long as it may become a request, however it comes.
func TestHeadByteByByte(t *testing.T) {
	fronts(t, proxyTo("10.0.0.1:80"), func(t *testing.T, f *front) {
		origin(t, f.network, "10.0.0.1:80")
		c := f.dial(t)
		for _, head := range []string{getA, "\r\n" + getA, "OPTIONS * HTTP/1.1\r\nX-A:\tb: \"\xff\r\nHost:a\r\n\r\n", "GET http://a/?b HTTP/1.0\r\n\r\n"} {
			for i := range len(head) {
				if f.name == "byte" || head[0] != '\r' { // net/http takes no empty line
					c.send(head[i : i+1])
					synctest.Wait()
				}
			}
			if f.name == "byte" || head[0] != '\r' {
				if res, _, err := c.reply("GET"); err != nil || res.StatusCode != 200 {
					t.Fatalf("%q: %v, %v", head, res, err)
				}
			}
		}
	})
}

// The request line has the bound of the head: what alone is longer gets 414,
// and what becomes too long with its fields 431.
func TestRequestLineBound(t *testing.T) {
	line := func(n int) string {
		return "GET /" + strings.Repeat("a", n-len("GET / HTTP/1.1\r\n")) + " HTTP/1.1\r\n"
	}
	for _, c := range []struct {
		name  string
		limit int
		head  string
		want  int
	}{
		{"default", 0, line(31 << 10), 200},
		{"default, longer", 0, line(33 << 10), 414},
		{"raised", 64 << 10, line(60 << 10), 200},
		{"raised, longer", 64 << 10, line(65 << 10), 414},
		{"lowered", 2 << 10, line(2<<10 + 100), 414},
		{"lowered, with fields", 2 << 10, line(2<<10-100) + "X: " + strings.Repeat("b", 200) + "\r\n", 431},
		{"none", -1, line(256 << 10), 200},
	} {
		for _, whole := range []bool{true, false} {
			synctest.Test(t, func(t *testing.T) {
				byteFront(t, fixed(&l7.FixedReply{}), &l7.Server{MaxHeaderBytes: c.limit}, func(t *testing.T, f *front) {
					head := c.head + "Host: a\r\n\r\n"
					conn := f.dial(t)
					if !whole {
						conn.send(head[:1000])
						synctest.Wait()
						head = head[1000:]
					}
					if res, _, err := conn.send(head).reply("GET"); err != nil || res.StatusCode != c.want {
						t.Errorf("%s, at once %v: %v, %v; want %d", c.name, whole, res, err, c.want)
					}
				})
			})
		}
	}
}
