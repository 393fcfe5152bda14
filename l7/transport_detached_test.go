// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"bufio"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"testing"
	"time"

	"github.com/penstock-lb/penstock/l7"
)

// A client that pauses in the middle of its body does not delay the news that the server
// has failed, nor a reply that does not wait for the body: neither in RoundTrip nor in a
// handler that closes the body. Close of net/http's body waits for the client.
func TestTransportLeavesAStalledBodyBehind(t *testing.T) {
	for name, answer := range map[string]string{"reset": "", "early reply": "HTTP/1.1 413 Request Entity Too Large\r\nContent-Length: 2\r\n\r\nno"} {
		for _, reverse := range []bool{false, true} {
			t.Run(name+map[bool]string{true: ", ReverseProxy"}[reverse], func(t *testing.T) {
				origin, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				defer origin.Close()
				go func() {
					for {
						c, err := origin.Accept()
						if err != nil {
							return
						}
						br := bufio.NewReader(c)
						if r, err := http.ReadRequest(br); err == nil {
							io.ReadFull(r.Body, make([]byte, 4))
						}
						io.WriteString(c, answer)
						c.(*net.TCPConn).CloseWrite()
						time.AfterFunc(time.Minute, func() { c.Close() })
						if answer == "" {
							c.(*net.TCPConn).SetLinger(0)
							c.Close()
						}
					}
				}()
				tr := &l7.Transport{Pool: newPool(origin.Addr().String())}
				defer tr.CloseIdleConnections()
				var h http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					out, _ := http.NewRequestWithContext(r.Context(), "POST", "http://x/", r.Body)
					out.ContentLength = r.ContentLength
					res, err := tr.RoundTrip(out)
					if err != nil {
						w.WriteHeader(502)
						return
					}
					defer res.Body.Close()
					w.WriteHeader(res.StatusCode)
					io.Copy(w, res.Body)
				})
				if reverse {
					h = &httputil.ReverseProxy{Transport: tr, ErrorLog: log.New(io.Discard, "", 0), Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: "http", Host: "x"}) }}
				}
				ln, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				srv := &l7.Server{Handler: h, Logger: discardLog()}
				go srv.Serve(ln)
				defer srv.Close()
				c, err := net.Dial("tcp", ln.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				c.SetDeadline(time.Now().Add(20 * time.Second)) // less than BodyTimeout
				io.WriteString(c, "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100\r\n\r\npart")
				res, err := http.ReadResponse(bufio.NewReader(c), nil)
				if err != nil {
					t.Fatal(err)
				}
				if want := map[string]int{"reset": 502, "early reply": 413}[name]; res.StatusCode != want {
					t.Errorf("status %d; want %d", res.StatusCode, want)
				}
			})
		}
	}
}
