// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sort"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
)

// proxyH2 returns a site: a proxy before a server of HTTP/2 in plain text.
func proxyH2(set func(p *l7.Proxy)) func(n *l4test.Network) http.Handler {
	return func(n *l4test.Network) http.Handler {
		p := newProxy(n, one)
		p.Upstream.Protocols = protocols("h2c")
		if set != nil {
			set(p)
		}
		return p
	}
}

// What a server of HTTP/2 gets is what one of HTTP/1 would.
func TestHTTP2Request(t *testing.T) {
	for _, tc := range []struct{ send, want string }{
		{"GET //a%2Fb/?x&y=%20 HTTP/1.1\r\nHost: h:81\r\n\r\n", `GET h:81 //a%2Fb/?x&y=%20 0 [X-Forwarded-For=192.0.2.1 X-Forwarded-Host=h:81 X-Forwarded-Proto=http] "" []`},
		{"GET /? HTTP/1.1\r\nHost: h\r\nConnection: close, x-hop\r\nX-Hop: 1\r\nX-Forwarded-For: 6.6.6.6\r\nTE: trailers\r\nUser-Agent: u\r\n\r\n",
			`GET h /? 0 [Te=trailers User-Agent=u X-Forwarded-For=192.0.2.1 X-Forwarded-Host=h X-Forwarded-Proto=http] "" []`},
		{"POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody", `POST h /p 4 [Content-Length=4 X-Forwarded-For=192.0.2.1 X-Forwarded-Host=h X-Forwarded-Proto=http] "body" []`},
		{"POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum, Host\r\n\r\n4\r\nbody\r\n0\r\nX-Sum: 7\r\n\r\n", `POST h /p -1 [X-Forwarded-For=192.0.2.1 X-Forwarded-Host=h X-Forwarded-Proto=http] "body" [X-Sum=7]`},
		{"GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", `GET h /ws 0 [X-Forwarded-For=192.0.2.1 X-Forwarded-Host=h X-Forwarded-Proto=http] "" []`},
	} {
		fronts(t, proxyH2(nil), func(t *testing.T, f *front) {
			startOrigin(t, f.network, one, nil, true, func(w http.ResponseWriter, r *http.Request) {
				b, _ := io.ReadAll(r.Body)
				fmt.Fprintf(w, "%s %s %s %d %v %q %v", r.Method, r.Host, r.RequestURI, r.ContentLength, lines(r.Header), b, lines(r.Trailer))
			})
			c := f.dial(t).send(tc.send)
			if _, body, err := c.reply("GET"); err != nil || body != tc.want {
				t.Errorf("the server got\n\t%s, %v\nwant\n\t%s", body, err, tc.want)
			}
		})
	}
}

func lines(h http.Header) (l []string) {
	for name, values := range h {
		for _, v := range values {
			l = append(l, name+"="+v)
		}
	}
	sort.Strings(l)
	return l
}

func TestHTTP2Reply(t *testing.T) {
	fronts(t, proxyH2(nil), func(t *testing.T, f *front) {
		startOrigin(t, f.network, one, nil, true, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", "</a.css>")
			w.WriteHeader(103)
			w.Header().Del("Link")
			w.Header().Add("Set-Cookie", "a=1")
			w.Header().Add("Set-Cookie", "b=2")
			w.Header().Set("Trailer", "X-Sum")
			io.WriteString(w, "first ")
			w.(http.Flusher).Flush()
			time.Sleep(time.Second)
			io.WriteString(w, "second")
			w.Header().Set("X-Sum", "7")
		})
		c := f.dial(t).send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
		res, err := http.ReadResponse(c.br, nil)
		if err != nil || res.StatusCode != 103 || res.Header.Get("Link") != "</a.css>" {
			t.Fatalf("interim reply %v, %v", res, err)
		}
		if res, err = http.ReadResponse(c.br, nil); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		b := make([]byte, 6)
		io.ReadFull(res.Body, b)
		if string(b) != "first " || time.Since(start) != 0 {
			t.Errorf("%q after %v: what there is has to be passed on", b, time.Since(start))
		}
		b, err = io.ReadAll(res.Body)
		if string(b) != "second" || err != nil || res.Trailer.Get("X-Sum") != "7" {
			t.Errorf("then %q, %v, trailer %v", b, err, res.Trailer)
		}
		if got := res.Header["Set-Cookie"]; len(got) != 2 || got[1] != "b=2" {
			t.Errorf("Set-Cookie %q", got)
		}
	})
}

// A client that waits for 100 Continue gets it, once, from the server or from
// the proxy if the server does not say.
func TestHTTP2Expect(t *testing.T) {
	fronts(t, proxyH2(nil), func(t *testing.T, f *front) {
		startOrigin(t, f.network, one, nil, true, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/no" {
				w.WriteHeader(417)
				return
			}
			b, _ := io.ReadAll(r.Body)
			w.Write(b)
		})
		c := f.dial(t).send("POST /yes HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
		if res, err := http.ReadResponse(c.br, nil); err != nil || res.StatusCode != 100 {
			t.Fatalf("got %v, %v; want 100", res, err)
		}
		c.send("body").wantReply(200, "body")
		f.dial(t).send("POST /no HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n").wantReply(417, "")
	})
}

// A stream that breaks ends the reply so that it shows.
func TestHTTP2Aborts(t *testing.T) {
	fronts(t, proxyH2(nil), func(t *testing.T, f *front) {
		startOrigin(t, f.network, one, nil, true, func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "begun")
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		})
		c := f.dial(t).send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
		if _, body, err := c.reply("GET"); err == nil || body != "begun" {
			t.Errorf("got %q, %v; want an error", body, err)
		}
		if r := f.last(t); r.Termination.String() != "SD" {
			t.Errorf("ended with %v; want SD", r.Termination)
		}
	})
}

// Transport over HTTP/2: cancelling ends the stream, not the connection.
func TestHTTP2Transport(t *testing.T) {
	withTransport(t, []string{one}, func(t *testing.T, n *l4test.Network, tr *l7.Transport) {
		tr.Upstream.Protocols = protocols("h2c")
		ended := make(chan error, 1)
		o := startOrigin(t, n, one, nil, true, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/hang" {
				w.(http.Flusher).Flush()
				<-r.Context().Done()
				ended <- r.Context().Err()
				return
			}
			b, _ := io.ReadAll(r.Body)
			fmt.Fprintf(w, "%s %d", r.Proto, len(b))
		})
		ctx, cancel := context.WithCancel(t.Context())
		res, err := tr.RoundTrip(get("http://a.test/hang").WithContext(ctx))
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		<-ended
		if _, err := res.Body.Read(make([]byte, 1)); err != context.Canceled {
			t.Errorf("Read = %v; want context.Canceled", err)
		}
		res.Body.Close()
		post, err := (&http.Client{Transport: tr}).Post("http://a.test/", "text/plain", strings.NewReader(strings.Repeat("x", 300_000)))
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(post.Body)
		post.Body.Close()
		if string(b) != "HTTP/2.0 300000" || o.conns.Load() != 1 {
			t.Errorf("%q over %d connections", b, o.conns.Load())
		}
		// Idle connections end by themselves.
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := fetch(t, tr, "http://a.test/"); got != "200 HTTP/2.0 0" || o.conns.Load() != 2 {
			t.Errorf("%q over connection %d; want a second one", got, o.conns.Load())
		}
	})
}
