// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
)

// A handler of net/http that answers a request whose body does not come waits for it,
// as net/http does before it sends a head, but not longer than BodyTimeout.
func TestForeignReplyWaitsForNoBody(t *testing.T) {
	for name, write := range map[string]func(w http.ResponseWriter){
		"flushed": func(w http.ResponseWriter) {
			io.WriteString(w, "reply")
			w.(http.Flusher).Flush()
		},
		"long":    func(w http.ResponseWriter) { w.Write([]byte(strings.Repeat("reply", 2000))) },
		"strings": func(w http.ResponseWriter) { io.WriteString(w, strings.Repeat("reply", 2000)) },
		"pieces": func(w http.ResponseWriter) {
			for range 2000 {
				io.WriteString(w, "reply")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				site := fixed(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { write(w) }))
				byteFront(t, site, &l7.Server{BodyTimeout: 4 * time.Second}, func(t *testing.T, f *front) {
					start := time.Now()
					c := f.dial(t).send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\n")
					res, body, err := c.reply("POST")
					if err != nil || res.StatusCode != 200 || !strings.HasPrefix(body, "reply") {
						t.Errorf("%v, %.10q, %v", res, body, err)
					}
					c.wantEnd()
					if d := time.Since(start); d < 4*time.Second || d > 8*time.Second {
						t.Errorf("it took %v", d)
					}
				})
			})
		})
	}
}

// A reply of which the body came in time may take longer than BodyTimeout.
func TestForeignReplyOutlivesTheWaitForTheBody(t *testing.T) {
	for _, read := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			site := func(*l4test.Network) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if read {
						_, _ = r.Body.Read(make([]byte, 1))
					}
					io.WriteString(w, "one ")
					w.(http.Flusher).Flush()
					time.Sleep(time.Minute)
					if err := r.Context().Err(); err != nil {
						t.Error(err)
					}
					io.WriteString(w, "two")
				})
			}
			byteFront(t, site, &l7.Server{BodyTimeout: 4 * time.Second}, func(t *testing.T, f *front) {
				c := f.dial(t).send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\n12345")
				time.Sleep(2 * time.Second)
				c.send("67890")
				if res, body, err := c.reply("POST"); err != nil || res.StatusCode != 200 || body != "one two" {
					t.Errorf("%v, %q, %v", res, body, err)
				}
				c.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").wantReply(200, "one two")
			})
		})
	}
}
