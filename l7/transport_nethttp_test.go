// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/l7/l7test"
)

// The windows of HTTP/2 are given back before a read of the reply waits, however
// little is read at once.
func TestTransportReadsMoreThanAWindowOverHTTP2(t *testing.T) {
	withTransport(t, []string{one}, func(t *testing.T, n *l4test.Network, tr *l7.Transport) {
		tr.Upstream.Protocols = protocols("h2c")
		startOrigin(t, n, one, nil, true, func(w http.ResponseWriter, r *http.Request) {
			size, _ := strconv.Atoi(r.URL.Query().Get("size"))
			_, _ = io.WriteString(w, strings.Repeat("a", size))
		})
		for _, size := range []int{1, 64 << 10, 512 << 10, 1 << 20, 8 << 20} {
			for _, piece := range []int{1 << 10, 8 << 10, 64 << 10} {
				res, err := tr.RoundTrip(get("http://a.test/?size=" + strconv.Itoa(size)))
				if err != nil {
					t.Fatal(err)
				}
				got, buf, start := 0, make([]byte, piece), time.Now()
				for {
					m, err := res.Body.Read(buf)
					if got += m; err == io.EOF {
						break
					} else if err != nil {
						t.Fatalf("after %d bytes of %d: %v", got, size, err)
					}
					synctest.Wait() // the server has sent all that it may
				}
				res.Body.Close()
				if d := time.Since(start); got != size || d > 0 { // a PING would end the wait, after a while
					t.Errorf("read %d bytes of %d in %v", got, size, d)
				}
			}
		}
	})
}

// The channel of Request.Cancel ends a request as its context does.
func TestTransportFollowsRequestCancel(t *testing.T) {
	for _, when := range []string{"before", "waiting", "reading"} {
		withTransport(t, []string{one}, func(t *testing.T, n *l4test.Network, tr *l7.Transport) {
			gone := make(chan struct{})
			startOrigin(t, n, one, nil, false, func(w http.ResponseWriter, r *http.Request) {
				defer close(gone)
				if when == "reading" {
					w.(http.Flusher).Flush()
				}
				<-r.Context().Done()
			})
			cancel := make(chan struct{})
			req := get("http://a.test/")
			req.Cancel = cancel //lint:ignore SA1019 programs still set it
			if when == "before" {
				close(cancel)
			} else {
				time.AfterFunc(time.Second, func() { close(cancel) })
			}
			res, err := tr.RoundTrip(req)
			if when == "reading" {
				if err != nil {
					t.Fatal(err)
				}
				_, err = io.ReadAll(res.Body)
				res.Body.Close()
			}
			if !errors.Is(err, context.Canceled) {
				t.Errorf("%s: %v", when, err)
			}
			if when != "before" {
				<-gone
			}
		})
	}
}

// A server is told that the connection ends with its reply.
func TestTransportTellsOfRequestClose(t *testing.T) {
	for _, te := range []string{"", "trailers"} {
		withTransport(t, []string{one}, func(t *testing.T, n *l4test.Network, tr *l7.Transport) {
			startOrigin(t, n, one, nil, false, func(w http.ResponseWriter, r *http.Request) {
				if !r.Close || r.Header.Get("Te") != te {
					t.Errorf("Close = %v, TE %q", r.Close, r.Header.Get("Te"))
				}
			})
			req := get("http://a.test/")
			req.Close = true
			if te != "" {
				req.Header.Set("TE", te)
			}
			res, err := tr.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
		})
	}
}

// The names of a trailer are in Response.Trailer, and not in the head.
func TestTransportTakesTrailerOutOfTheHead(t *testing.T) {
	withTransport(t, []string{one}, func(t *testing.T, n *l4test.Network, tr *l7.Transport) {
		origin(t, n, one, l7test.Script{l7test.Send("HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n")})
		res, err := tr.RoundTrip(get("http://a.test/"))
		if err != nil {
			t.Fatal(err)
		}
		if _, announced := res.Trailer["X-Sum"]; !announced || res.Header["Trailer"] != nil {
			t.Errorf("Trailer %v, Header %v", res.Trailer, res.Header)
		}
		if b, err := io.ReadAll(res.Body); string(b) != "a" || err != nil || res.Trailer.Get("X-Sum") != "1" {
			t.Errorf("%q, %v, %v", b, err, res.Trailer)
		}
	})
}

// A TransportError is a net.Error.
func TestTransportErrorIsANetError(t *testing.T) {
	withTransport(t, []string{one}, func(t *testing.T, n *l4test.Network, tr *l7.Transport) {
		tr.HeaderTimeout = time.Second
		startOrigin(t, n, one, nil, false, func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		_, err := tr.RoundTrip(get("http://a.test/"))
		if ne, ok := err.(net.Error); !ok || !ne.Timeout() {
			t.Errorf("%T: %v", err, err)
		}
	})
}
