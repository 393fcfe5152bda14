// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
)

// A lateTrailer is a request body that sets a trailer at its end.
type lateTrailer struct {
	io.Reader
	set    func()
	closed bool
}

func (b *lateTrailer) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err == io.EOF {
		b.set()
	}
	return n, err
}

func (b *lateTrailer) Close() error { b.closed = true; return nil }

// A trailer that must not be sent is refused as such a header is: before anything
// is sent or, if it comes with the end of the body, before the request is complete.
func TestTransportRefusesTrailers(t *testing.T) {
	refused := map[string]http.Header{
		"name":        {"X y": {"a"}},
		"empty name":  {"": {"a"}},
		"name only":   {"X\r\nY": nil},
		"value":       {"X": {"fine", "a\r\nb: c"}},
		"second name": {"X-A": {"a"}, "X-B": {"a\x00"}},
	}
	for _, name := range []string{
		"Authorization", "Cache-Control", "Connection", "Content-Encoding", "Content-Length", "Content-Range", "Content-Type", "Expect", "Host", "If-Match",
		"If-None-Match", "Keep-Alive", "Max-Forwards", "Pragma", "Proxy-Authenticate", "Proxy-Authorization", "Proxy-Connection", "Range", "Realm", "Te",
		"Trailer", "Transfer-Encoding", "Www-Authenticate", "Upgrade", "Cookie", "transfer-encoding", "Content_Length", "if_match", // net/http's, and ours
	} {
		refused[name] = http.Header{name: {"a"}}
	}
	for name, trailer := range refused {
		for _, proto := range []string{"1", "h2c"} {
			for _, when := range []string{"at once", "at once, with a length", "announced", "late", "late, with a length"} {
				if when == "announced" && (len(trailer) > 1 || name == "value") || strings.HasPrefix(when, "late") && name == "name only" || when == "late, with a length" && proto == "1" {
					continue // it has none there
				}
				t.Run(name+"/"+proto+"/"+when, func(t *testing.T) {
					refusesTrailer(t, proto, when, trailer)
				})
			}
		}
	}
}

func refusesTrailer(t *testing.T, proto, when string, trailer http.Header) {
	withTransport(t, []string{one}, func(t *testing.T, n *l4test.Network, tr *l7.Transport) {
		tr.Upstream.Protocols = protocols(proto)
		var asked, complete atomic.Bool
		startOrigin(t, n, one, nil, proto == "h2c", func(w http.ResponseWriter, r *http.Request) {
			asked.Store(true)
			if _, err := io.ReadAll(r.Body); err == nil {
				complete.Store(true)
			}
		})
		body := &lateTrailer{Reader: strings.NewReader("request"), set: func() {}}
		req, _ := http.NewRequest("POST", "http://a.test/", body)
		if strings.HasSuffix(when, "length") {
			req.ContentLength = int64(len("request"))
		}
		switch {
		case strings.HasPrefix(when, "late"):
			req.Trailer = http.Header{"X-Known": nil}
			body.set = func() {
				for k, v := range trailer {
					req.Trailer[k] = v
				}
			}
		case when == "announced":
			for k := range trailer {
				if req.Header.Set("Trailer", "X-A, "+k); strings.ContainsAny(k, "\r\n") || k == "" {
					return
				}
			}
		default:
			req.Trailer = trailer
		}
		res, err := tr.RoundTrip(req)
		if err == nil {
			res.Body.Close()
			t.Errorf("it was sent")
		} else if !strings.Contains(err.Error(), "trailer") || strings.ContainsAny(err.Error(), "\r\n\x00") {
			t.Errorf("error %v", err)
		}
		synctest.Wait()
		if late := strings.HasPrefix(when, "late"); complete.Load() || !late && asked.Load() {
			t.Errorf("the server was asked, completely: %v", complete.Load())
		}
		if !body.closed {
			t.Error("the body is left open")
		}
	})
}

// What names a trailer may have goes through, also when its values come with the
// end of a body whose length is known.
func TestTransportLateTrailer(t *testing.T) {
	for _, proto := range []string{"1", "h2c"} {
		for _, length := range []int64{-1, 7} {
			withTransport(t, []string{one}, func(t *testing.T, n *l4test.Network, tr *l7.Transport) {
				tr.Upstream.Protocols = protocols(proto)
				got := make(chan http.Header, 1)
				startOrigin(t, n, one, nil, proto == "h2c", func(w http.ResponseWriter, r *http.Request) {
					_, _ = io.ReadAll(r.Body)
					got <- r.Trailer
				})
				pr, pw := io.Pipe()
				req, _ := http.NewRequest("POST", "http://a.test/", pr)
				req.ContentLength, req.Trailer = length, http.Header{"X-Sum": nil, "If": nil}
				go func() {
					io.WriteString(pw, "request")
					time.Sleep(time.Second) // or the end comes with the last byte
					req.Trailer.Set("X-Sum", "8")
					req.Trailer.Set("If", "(so)")
					pw.Close()
				}()
				res, err := tr.RoundTrip(req)
				if err != nil {
					t.Fatal(err)
				}
				res.Body.Close()
				h := <-got
				want := "8 (so)"
				if proto == "1" && length > 0 {
					want = " " // only chunks have a trailer there
				}
				if v := h.Get("X-Sum") + " " + h.Get("If"); v != want {
					t.Errorf("over %s, length %d: %v", proto, length, h)
				}
				time.Sleep(2 * time.Second)
			})
		}
	}
}
