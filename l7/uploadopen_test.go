// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
)

// diesFirst answers requests with their bodies, except for the first times ones: their
// connections are closed a second after the first part of the body.
func diesFirst(t *testing.T, n *l4test.Network, times int32, h2 bool) {
	t.Helper()
	var seen atomic.Int32
	dies := func() bool {
		if seen.Add(1) > times {
			return false
		}
		time.Sleep(time.Second)
		return true
	}
	serveOrigin(t, n, one, func(c *l4test.Conn, br *bufio.Reader) {
		if !h2 {
			for {
				req, err := http.ReadRequest(br)
				if err != nil {
					return
				}
				first := make([]byte, 1)
				if _, err := io.ReadFull(req.Body, first); err != nil || dies() {
					return
				}
				rest, err := io.ReadAll(req.Body)
				if err != nil {
					return
				}
				fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s%s", 1+len(rest), first, rest)
			}
		}
		_, _ = io.ReadFull(br, make([]byte, len(http2.ClientPreface)))
		fr := http2.NewFramer(c, br)
		_ = fr.WriteSettings()
		body := map[uint32]string{}
		for {
			f, err := fr.ReadFrame()
			if err != nil {
				return
			}
			d, ok := f.(*http2.DataFrame)
			if !ok {
				continue
			}
			if _, begun := body[d.StreamID]; !begun && dies() {
				return
			}
			if body[d.StreamID] += string(d.Data()); d.StreamEnded() {
				(&h2ServerStream{fr, d.StreamID}).reply("200", body[d.StreamID])
			}
		}
	})
}

// A client whose body is not at its end, and which sends no more before it has an answer,
// learns at once that its server has died; and a request that may be repeated is, without
// waiting for the rest. That goes to the server of the next try, nothing lost and nothing
// twice. It was noticed only when the client sent more, or was given up.
func TestServerDiesUnderAnOpenUpload(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		for _, length := range []int64{-1, 11} {
			for _, dies := range []int32{1, 2} {
				name := map[bool]string{false: "HTTP/1", true: "HTTP/2"}[h2] + map[int64]string{-1: ", no length", 11: ", length"}[length] + map[int32]string{1: "", 2: ", again"}[dies]
				t.Run(name, func(t *testing.T) {
					fronts(t, func(n *l4test.Network) http.Handler {
						p := newProxy(n, one)
						if h2 {
							p.Upstream.Protocols = protocols("h2c")
						}
						return p
					}, func(t *testing.T, f *front) {
						diesFirst(t, f.network, dies, h2)
						r, w := io.Pipe()
						req, err := http.NewRequest("PUT", "http://a.test/", r)
						if err != nil {
							t.Fatal(err)
						}
						req.ContentLength = length
						begun := time.Now()
						go func() {
							_, _ = io.WriteString(w, "hello")
							time.Sleep(5 * time.Second)
							_, _ = io.WriteString(w, " world")
							w.Close()
						}()
						res, err := f.client.Do(req)
						defer r.Close()
						took := time.Since(begun)
						var body string
						if err == nil {
							b, _ := io.ReadAll(res.Body)
							body = string(b)
						}
						switch {
						case f.name == "standard": // the body of net/http cannot be read on
							if err != nil || res.StatusCode != 502 || took > 3*time.Second {
								t.Errorf("%v after %v; want 502 before the client sends more, got %v", err, took, res)
							}
						case dies == 1:
							if err != nil || res.StatusCode != 200 || body != "hello world" || took != 5*time.Second {
								t.Errorf("%q, %v after %v; want the whole body after 5s, got %v", body, err, took, res)
							}
						case err != nil || res.StatusCode != 502 || took > 2100*time.Millisecond: // with pauses before the tries
							t.Errorf("%v after %v; want 502 after 2s, got %v", err, took, res)
						}
						time.Sleep(10 * time.Second)
					})
				})
			}
		}
	}
}

// A program's body that blocks does not keep its call from ending.
func TestTransportServerDiesUnderAnOpenUpload(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			n := l4test.NewNetwork()
			diesFirst(t, n, 9, h2)
			up := &l7.Upstream{Dial: n.DialContext}
			if h2 {
				up.Protocols = protocols("h2c")
			}
			tr := &l7.Transport{Pool: newPool(one), Upstream: up}
			r, w := io.Pipe()
			go func() { _, _ = io.WriteString(w, "hello") }()
			begun := time.Now()
			res, err := (&http.Client{Transport: tr}).Post("http://a.test/", "text/plain", r)
			if err == nil || time.Since(begun) > 1200*time.Millisecond {
				t.Errorf("%v, %v after %v; want an error after 1.1s", res, err, time.Since(begun))
			}
			if _, err := w.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
				t.Errorf("the body is not closed: %v", err)
			}
			up.CloseIdle()
		})
	}
}
