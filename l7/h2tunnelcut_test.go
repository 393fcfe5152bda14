// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
)

// A server that has ended its direction of a tunnel can still be cut, and can still break
// the other direction off: a stream of HTTP/2 is told of that as a connection is, although
// nothing reads from it any more.
func TestTunnelHalfEndedByTheServer(t *testing.T) {
	for _, client := range []string{"HTTP/1", "HTTP/2"} {
		for _, server := range []string{"h2c", "1"} {
			for _, broken := range []bool{false, true} {
				name := client + " to " + server + ", cut"
				if broken {
					name = client + " to " + server + ", connection lost"
				}
				t.Run(name, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						var p *l7.Proxy
						site := func(n *l4test.Network) http.Handler {
							p = tunnelTo(server)(n).(*l7.Proxy)
							return p
						}
						byteFront(t, site, new(l7.Server), func(t *testing.T, f *front) {
							var asked string
							if server == "1" {
								serveOrigin(t, f.network, one, func(c *l4test.Conn, br *bufio.Reader) {
									http.ReadRequest(br)
									io.WriteString(c, "HTTP/1.1 200 OK\r\nX-By: proxy\r\n\r\nall")
									c.CloseWrite()
									if !broken {
										io.Copy(io.Discard, br)
									}
								})
							} else {
								h2TunnelServer(t, f.network, false, &asked, func(s *h2ServerStream, fr *http2.Framer) {
									var b bytes.Buffer
									enc := hpack.NewEncoder(&b)
									enc.WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
									enc.WriteField(hpack.HeaderField{Name: "x-by", Value: "proxy"})
									fr.WriteHeaders(http2.HeadersFrameParam{StreamID: s.id, BlockFragment: b.Bytes(), EndHeaders: true})
									fr.WriteData(s.id, true, []byte("all"))
									if broken {
										fr.WriteRawFrame(http2.FrameSettings, 0, s.id, nil) // ends the connection
									}
								})
							}
							open := f.openH1
							if client == "HTTP/2" {
								open = f.openH2
							}
							c := open(t, true)
							if b, err := io.ReadAll(c); string(b) != "all" || err != nil {
								t.Fatalf("got %q, %v", b, err)
							}
							synctest.Wait()
							start := time.Now()
							if broken {
								for time.Since(start) < time.Hour && len(f.done()) == 0 {
									if _, err := c.Write([]byte("more")); err != nil {
										break
									}
									time.Sleep(10 * time.Second)
								}
							} else {
								p.Pool.Server(one).Cut(true, "test")
							}
							want := map[bool]string{true: "SD", false: "DD"}[broken]
							rs := f.done()
							if len(rs) != 1 || rs[0].Termination.String() != want || time.Since(start) > time.Minute {
								t.Errorf("after %v: the records: %+v; want one that says %s", time.Since(start), rs, want)
							}
							if n := p.Pool.Server(one).InFlight(); n != 0 {
								t.Errorf("%d in flight", n)
							}
						})
					})
				})
			}
		}
	}
}
