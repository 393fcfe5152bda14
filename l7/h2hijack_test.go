// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-lb/penstock/l7"
)

func keyAnswer(r *http.Request) string {
	sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// A handler of net/http takes a WebSocket over HTTP/2 as it takes one over HTTP/1:
// by Hijack, in both of the ways there are.
func TestForeignWebSocketOverHTTP2(t *testing.T) {
	raw := func(w http.ResponseWriter, r *http.Request) (net.Conn, *bufio.ReadWriter) {
		c, brw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
		}
		// In pieces, as nothing says that a head is written at once.
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Up")
		io.WriteString(c, "grade\r\nSec-WebSocket-Protocol: chat\r\nSec-WebSocket-Accept: "+keyAnswer(r)+"\r\n\r\nhello ")
		return c, brw
	}
	written := func(w http.ResponseWriter, r *http.Request) (net.Conn, *bufio.ReadWriter) {
		h := w.Header()
		h.Set("Upgrade", "websocket")
		h.Set("Connection", "Upgrade")
		h.Set("Sec-WebSocket-Protocol", "chat")
		h.Set("Sec-WebSocket-Accept", keyAnswer(r))
		w.WriteHeader(101)
		c, brw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
		}
		io.WriteString(c, "hello ")
		return c, brw
	}
	for name, take := range map[string]func(http.ResponseWriter, *http.Request) (net.Conn, *bufio.ReadWriter){"raw": raw, "written": written} {
		for _, outlives := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var wg sync.WaitGroup
					h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						if r.Method != "GET" || r.Header.Get("Connection") != "Upgrade" || r.Header.Get("Upgrade") != "websocket" || r.Header.Get("Sec-WebSocket-Version") != "13" {
							t.Errorf("%s %v", r.Method, r.Header)
						}
						c, brw := take(w, r)
						echo := func() {
							defer c.Close()
							io.Copy(c, brw)
						}
						if outlives {
							wg.Go(echo)
							return
						}
						echo()
					})
					byteFront(t, fixed(h), new(l7.Server), func(t *testing.T, f *front) {
						res, out, err := f.socket(t, "/chat", "websocket")
						if err != nil || res.StatusCode != 200 || res.Header.Get("Sec-WebSocket-Protocol") != "chat" || len(res.Header["Sec-Websocket-Accept"]) > 0 {
							t.Fatalf("%v, %v", res, err)
						}
						time.Sleep(time.Minute)
						go func() {
							io.WriteString(out, "world")
							out.Close()
						}()
						if b, err := io.ReadAll(res.Body); string(b) != "hello world" || err != nil {
							t.Errorf("%q, %v", b, err)
						}
						if r := f.last(t); r.Status != 101 || r.Termination.String() != "--" {
							t.Errorf("the record: %d, %v", r.Status, r.Termination)
						}
						// The connection goes on.
						res, out, err = f.socket(t, "/chat", "websocket")
						if err != nil || res.StatusCode != 200 {
							t.Fatalf("%v, %v", res, err)
						}
						out.Close()
						io.ReadAll(res.Body)
						wg.Wait()
					})
				})
			})
		}
	}
}

// What a handler does instead ends the stream, and nothing but it: HTTP/2 has no
// 101 (RFC 9113, section 8.6).
func TestForeignWebSocketThatDoesNotOpen(t *testing.T) {
	take := func(w http.ResponseWriter) net.Conn {
		c, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
		}
		return c
	}
	for name, tc := range map[string]struct {
		h    http.HandlerFunc
		want string
	}{
		"403":          {func(w http.ResponseWriter, r *http.Request) { http.Error(w, "no", http.StatusForbidden) }, "403"},
		"200":          {func(w http.ResponseWriter, r *http.Request) {}, "501"},
		"101 alone":    {func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(101) }, "reset INTERNAL_ERROR"},
		"hijack alone": {func(w http.ResponseWriter, r *http.Request) { take(w).Close() }, "reset CANCEL"},
		"another reply": {func(w http.ResponseWriter, r *http.Request) {
			c := take(w)
			defer c.Close()
			io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
		}, "reset CANCEL"},
		"wrong answer": {func(w http.ResponseWriter, r *http.Request) {
			c := take(w)
			defer c.Close()
			if _, err := io.WriteString(c, "HTTP/1.1 101 OK\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n"); err == nil {
				t.Error("no error")
			}
		}, "reset CANCEL"},
		"panic": {func(w http.ResponseWriter, r *http.Request) {
			c := take(w)
			go io.Copy(io.Discard, c) // is not left behind
			panic(http.ErrAbortHandler)
		}, "reset INTERNAL_ERROR"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				byteFront(t, fixed(tc.h), new(l7.Server), func(t *testing.T, f *front) {
					got := h2Ask(t, f.network, "hello", nil, ":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":path", "/", ":authority", "a.test")
					if got != tc.want {
						t.Errorf("got %s; want %s", got, tc.want)
					}
				})
			})
		})
	}
	// A request that does not ask gets no 101 either.
	synctest.Test(t, func(t *testing.T) {
		h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(101) })
		byteFront(t, fixed(h), new(l7.Server), func(t *testing.T, f *front) {
			got := h2Ask(t, f.network, "", nil, ":method", "GET", ":scheme", "http", ":path", "/", ":authority", "a.test")
			if got != "reset INTERNAL_ERROR" {
				t.Errorf("got %s", got)
			}
		})
	})
}

// A connection that was hijacked may be closed under whoever reads it, and used
// after its end: the stream may be another's by then.
func TestHijackedStreamAfterItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var old []net.Conn
		h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			for _, o := range old {
				if _, err := o.Write([]byte("stale")); err == nil {
					t.Error("a write to a closed connection went through")
				}
				o.SetDeadline(time.Unix(1, 0))
				o.Close()
			}
			old = append(old, c)
			io.WriteString(c, "HTTP/1.1 101 OK\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "+keyAnswer(r)+"\r\n\r\n")
			var wg sync.WaitGroup
			wg.Go(func() { io.Copy(io.Discard, c) })
			io.WriteString(c, "fresh")
			time.Sleep(time.Second)
			c.Close()
			wg.Wait()
		})
		byteFront(t, fixed(h), new(l7.Server), func(t *testing.T, f *front) {
			for range 5 {
				res, _, err := f.socket(t, "/chat", "websocket")
				if err != nil {
					t.Fatal(err)
				}
				if b, _ := io.ReadAll(res.Body); string(b) != "fresh" {
					t.Errorf("got %q", b)
				}
			}
			f.last(t)
		})
	})
}
