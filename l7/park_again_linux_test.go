// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/penstock-lb/penstock/l7"
)

// A pipeline sends requests in one write each time, and reads their replies.
type pipeline interface{ ask(t *testing.T, n int) }

type pipeline1 struct {
	net.Conn
	br *bufio.Reader
}

func (p *pipeline1) ask(t *testing.T, n int) {
	t.Helper()
	if _, err := io.WriteString(p, strings.Repeat(getA, n)); err != nil {
		t.Fatal(err)
	}
	for range n {
		res, err := http.ReadResponse(p.br, nil)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(res.Body); string(b) != "ok" || err != nil {
			t.Fatalf("got %q, %v", b, err)
		}
	}
}

type pipeline2 struct {
	net.Conn
	*http2.Framer
	out  bytes.Buffer
	head bytes.Buffer
	enc  *hpack.Encoder
	next uint32
}

func newPipeline2(c net.Conn) *pipeline2 {
	p := &pipeline2{Conn: c, next: 1}
	p.enc = hpack.NewEncoder(&p.head)
	p.Framer = http2.NewFramer(&p.out, bufio.NewReader(c))
	p.out.WriteString(http2.ClientPreface)
	_ = p.WriteSettings()
	return p
}

func (p *pipeline2) ask(t *testing.T, n int) {
	t.Helper()
	for range n {
		p.head.Reset()
		for _, f := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", "a.test"}, {":path", "/"}} {
			_ = p.enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
		}
		_ = p.WriteHeaders(http2.HeadersFrameParam{StreamID: p.next, BlockFragment: p.head.Bytes(), EndHeaders: true, EndStream: true})
		p.next += 2
	}
	if _, err := p.out.WriteTo(p.Conn); err != nil {
		t.Fatal(err)
	}
	for n > 0 {
		f, err := p.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		switch f := f.(type) {
		case *http2.DataFrame:
			if f.StreamEnded() {
				n--
			}
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			t.Fatal(f)
		}
	}
}

// A connection that was parked goes on, however often, with one request or with several that
// come at once, over TLS and HTTP/2 too. A handler of net/http that may not be served on the
// byte front takes the connection of HTTP/1 out of the Parker's hands for good.
func TestParkedConnectionsGoOn(t *testing.T) {
	native := l7.HandlerFunc(func(x *l7.Exchange) { x.Respond(200, nil, "ok") })
	foreign := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })
	through := func(next http.Handler) http.Handler { return http.HandlerFunc(next.ServeHTTP) }
	for name, h := range map[string]http.Handler{"native": native, "foreign": foreign, "wrapped": &l7.Wrap{With: through, Next: native}} {
		for _, secure := range []bool{false, true} {
			for _, two := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, TLS %v, HTTP/2 %v", name, secure, two), func(t *testing.T) {
					t.Parallel()
					srv := &l7.Server{Handler: h, Logger: discardLog()}
					ln, err := net.Listen("tcp", "127.0.0.1:0")
					if err != nil {
						t.Fatal(err)
					}
					defer srv.Close()
					c, err := net.Dial("tcp", ln.Addr().String())
					if err != nil {
						t.Fatal(err)
					}
					defer c.Close()
					if secure {
						srv.TLSConfig = &tls.Config{Certificates: []tls.Certificate{selfSigned(t)}}
						go srv.ServeTLS(ln, "", "")
						alpn := "http/1.1"
						if two {
							alpn = "h2"
						}
						c = tls.Client(c, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{alpn}})
					} else {
						go srv.Serve(ln)
					}
					_ = c.SetDeadline(time.Now().Add(2 * time.Minute))
					p := pipeline(&pipeline1{c, bufio.NewReader(c)})
					if two {
						p = newPipeline2(c)
					}
					for i, n := range []int{1, 3, 1, 1, 2, 5, 1} {
						moved := name == "foreign" && !two && i > 0
						for end := time.Now().Add(30 * time.Second); !moved && !(secure && i == 0) && srv.Stats().Parked == 0; time.Sleep(time.Millisecond) {
							if time.Now().After(end) {
								t.Fatalf("it is not parked before request %d", i)
							}
						}
						p.ask(t, n)
					}
					if st := srv.Stats(); st.Open != 1 {
						t.Errorf("%d connections", st.Open)
					}
				})
			}
		}
	}
}
