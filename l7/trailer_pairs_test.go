// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4/l4test"
)

// trailerText writes a trailer in one line, in order of names; absent values are those that
// were announced and did not come.
func trailerText(h http.Header) string {
	var lines []string
	for name, values := range h {
		for _, v := range values {
			lines = append(lines, name+"="+v)
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, " ")
}

// Trailers pass between all pairs of fronts and servers, in both directions, announced or
// not, with a body or without; what may be in none does not (RFC 9110, section 6.5.1).
func TestTrailersBetweenAllPairs(t *testing.T) {
	for _, c := range carriers {
		if c.foreign {
			continue // the servers are what counts here
		}
		for _, proto := range []string{"1", "h2c", "2"} {
			t.Run(c.name+"/"+proto, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n := l4test.NewNetwork()
					var cfg *tls.Config
					if proto == "2" {
						cfg = &tls.Config{Certificates: []tls.Certificate{selfSigned(t)}}
					}
					var reply string // the body
					var trailer bool
					startOrigin(t, n, one, cfg, proto != "1", func(w http.ResponseWriter, r *http.Request) {
						b, err := io.ReadAll(r.Body)
						w.Header().Set("X-Got", fmt.Sprint(len(b), " ", trailerText(r.Trailer), " ", err))
						if !trailer {
							io.WriteString(w, reply)
							return
						}
						w.Header().Set("Trailer", "X-Sum, X-Unused")
						w.WriteHeader(200)
						io.WriteString(w, reply)
						w.(http.Flusher).Flush()
						w.Header()["X-Sum"] = []string{"1", "2"}
						w.Header().Set(http.TrailerPrefix+"X-Late", "3")
						w.Header().Set(http.TrailerPrefix+"Set-Cookie", "a=b")
						w.Header().Set(http.TrailerPrefix+"Content-Type", "text/html")
					})
					p := newProxy(n, one)
					p.Upstream.Protocols = protocols(proto)
					if cfg != nil {
						p.Upstream.TLS = func(*balance.Server) *tls.Config { return &tls.Config{InsecureSkipVerify: true} }
					}
					c.run(t, n, p, func(client *http.Client) {
						for i, size := range []int{0, 5, 200_000} {
							for _, trailer = range []bool{true, false, true} { // the connections go on
								reply = strings.Repeat("r", size)
								req, err := http.NewRequest("POST", "http://a.test/", struct{ io.Reader }{strings.NewReader(strings.Repeat("q", size))})
								if err != nil {
									t.Fatal(err)
								}
								wantSent, want := "", ""
								if trailer {
									req.Trailer = http.Header{"X-Sum": {"6", "7"}, "Content-Type": {"text/html"}, "X-Forwarded-For": {"6.6.6.6"}}
									wantSent, want = "X-Sum=6 X-Sum=7", "X-Late=3 X-Sum=1 X-Sum=2"
								}
								res, err := client.Do(req)
								if err != nil {
									t.Fatal(err)
								}
								b, err := io.ReadAll(res.Body)
								res.Body.Close()
								if len(b) != size || err != nil {
									t.Errorf("%d: %d bytes of %d, %v", i, len(b), size, err)
								}
								if got, want := res.Header.Get("X-Got"), fmt.Sprint(size, " ", wantSent, " <nil>"); got != want {
									t.Errorf("%d: the server got %q; want %q", i, got, want)
								}
								if got := trailerText(res.Trailer); got != want {
									t.Errorf("%d: the client got %q; want %q", i, got, want)
								}
							}
						}
					})
					p.Upstream.CloseIdle()
				})
			})
		}
	}
}
