// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
)

func ExampleTransport() {
	// Two servers on a network in memory; the first one is down.
	network := l4test.NewNetwork()
	ln, _ := network.Listen("tcp", "10.0.0.2:80")
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s from 10.0.0.2", r.URL.Path)
	})}
	go server.Serve(ln)
	defer server.Close()

	pool := &balance.Pool{Name: "api", Policy: balance.First{}}
	_ = pool.Set(balance.Endpoint{Addr: "10.0.0.1:80"}, balance.Endpoint{Addr: "10.0.0.2:80"})
	client := &http.Client{Transport: &l7.Transport{
		Pool:     pool,
		Upstream: &l7.Upstream{Dial: network.DialContext},
		OnDone:   func(r *l7.Record) { fmt.Println(r.Status, r.Server, "tries:", r.Tries) },
	}}
	res, err := client.Get("http://api/users")
	if err != nil {
		fmt.Println(err)
		return
	}
	body, _ := io.ReadAll(res.Body)
	res.Body.Close()
	fmt.Println(string(body))
	// Output:
	// 200 10.0.0.2:80 tries: 2
	// /users from 10.0.0.2
}

// withTransport runs do in a bubble with a Transport over servers at addrs.
func withTransport(t *testing.T, addrs []string, do func(t *testing.T, n *l4test.Network, tr *l7.Transport)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := l4test.NewNetwork()
		tr := &l7.Transport{Pool: newPool(addrs...), Upstream: &l7.Upstream{Dial: n.DialContext}}
		defer func() {
			tr.CloseIdleConnections()
			for s := range tr.Pool.All() {
				if s.InFlight() != 0 {
					t.Errorf("%v in flight on %v at the end", s.InFlight(), s.Name())
				}
			}
		}()
		do(t, n, tr)
	})
}

const one = "10.0.0.1:80"

func TestTransportRoundTrip(t *testing.T) {
	withTransport(t, []string{one}, func(t *testing.T, n *l4test.Network, tr *l7.Transport) {
		serveHTTP(t, n, one, func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			w.Header().Set("Trailer", "X-Sum")
			fmt.Fprintf(w, "%s %s %s %q %s %d %v", r.Method, r.Host, r.RequestURI, b, r.Header.Get("X-Forwarded-For"), r.ContentLength, r.Trailer)
			w.Header().Set("X-Sum", "7")
		})
		req, _ := http.NewRequest("PUT", "http://api.test/a//b?c", io.MultiReader(strings.NewReader("bo"), strings.NewReader("dy")))
		req.Header.Set("X-Forwarded-For", "1.2.3.4")
		req.Trailer = http.Header{"X-Client": {"8"}}
		res, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := res.Trailer["X-Sum"]; !ok {
			t.Error("the trailer is not announced")
		}
		b, err := io.ReadAll(res.Body)
		if want := `PUT api.test /a//b?c "body" 1.2.3.4 -1 map[X-Client:[8]]`; err != nil || string(b) != want {
			t.Errorf("body = %s, %v; want %s", b, err, want)
		}
		if res.Trailer.Get("X-Sum") != "7" {
			t.Errorf("trailer = %v", res.Trailer)
		}
	})
}

// The lease lasts as long as the body is open, and so does the connection.
func TestTransportLease(t *testing.T) {
	withTransport(t, []string{one}, func(t *testing.T, n *l4test.Network, tr *l7.Transport) {
		serveHTTP(t, n, one, func(w http.ResponseWriter, r *http.Request) {
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		})
		res, err := tr.RoundTrip(get("http://api.test/"))
		if err != nil {
			t.Fatal(err)
		}
		s := tr.Pool.Server(one)
		if s.InFlight() != 1 {
			t.Errorf("InFlight = %d with an open body", s.InFlight())
		}
		go func() {
			time.Sleep(time.Second)
			res.Body.Close() // while another goroutine reads
		}()
		if _, err := res.Body.Read(make([]byte, 1)); err == nil {
			t.Error("Read of a closed body returned no error")
		}
		synctest.Wait()
		if s.InFlight() != 0 {
			t.Errorf("InFlight = %d after Close", s.InFlight())
		}
	})
}

func get(url string) *http.Request {
	r, _ := http.NewRequest("GET", url, nil)
	return r
}

func TestTransportCancel(t *testing.T) {
	withTransport(t, []string{one}, func(t *testing.T, n *l4test.Network, tr *l7.Transport) {
		serveHTTP(t, n, one, func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		_, err := tr.RoundTrip(get("http://api.test/").WithContext(ctx))
		var te *l7.TransportError
		if !errors.Is(err, context.DeadlineExceeded) || !errors.As(err, &te) || !te.Timeout() || te.Tries != 1 {
			t.Errorf("err = %v", err)
		}
		if d := time.Since(start); d != time.Second {
			t.Errorf("after %v; want 1s", d)
		}
	})
}

func TestTransportNoServer(t *testing.T) {
	withTransport(t, nil, func(t *testing.T, n *l4test.Network, tr *l7.Transport) {
		if _, err := tr.RoundTrip(get("http://api.test/")); !errors.Is(err, balance.ErrNoServer) {
			t.Errorf("err = %v; want ErrNoServer", err)
		}
	})
}

func TestTransportInterim(t *testing.T) {
	withTransport(t, []string{one}, func(t *testing.T, n *l4test.Network, tr *l7.Transport) {
		serveHTTP(t, n, one, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", "</a.css>")
			w.WriteHeader(103)
			w.WriteHeader(204)
		})
		var got string
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			got = fmt.Sprint(code, h["Link"])
			return nil
		}})
		res, err := tr.RoundTrip(get("http://api.test/").WithContext(ctx))
		if err != nil || res.StatusCode != 204 || got != "103 [</a.css>]" {
			t.Errorf("got %v, %v after %q", res, err, got)
		}
	})
}

func TestTransportUpgrade(t *testing.T) {
	withTransport(t, []string{one}, func(t *testing.T, n *l4test.Network, tr *l7.Transport) {
		serveOrigin(t, n, one, func(c *l4test.Conn, br *bufio.Reader) {
			r, err := http.ReadRequest(br)
			if err != nil || r.Header.Get("Upgrade") != "echo" {
				return
			}
			io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nhello ")
			io.Copy(c, br)
		})
		req := get("http://api.test/")
		req.Header.Set("Connection", "Upgrade")
		req.Header.Set("Upgrade", "echo")
		res, err := tr.RoundTrip(req)
		if err != nil || res.StatusCode != 101 {
			t.Fatal(res, err)
		}
		rw := res.Body.(io.ReadWriteCloser)
		io.WriteString(rw, "world")
		b := make([]byte, 11)
		if _, err := io.ReadFull(rw, b); err != nil || string(b) != "hello world" {
			t.Errorf("read %q, %v", b, err)
		}
		if got := tr.Pool.Server(one).InFlight(); got != 1 {
			t.Errorf("InFlight = %d with an open tunnel", got)
		}
		rw.Close()
	})
}

// One pool and one Upstream serve a Proxy and a Transport, in process members
// too.
func TestTransportLocal(t *testing.T) {
	withTransport(t, nil, func(t *testing.T, n *l4test.Network, tr *l7.Transport) {
		h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			w.WriteHeader(201)
			fmt.Fprintf(w, "%s %s %q", r.Host, r.RequestURI, b)
		})
		if err := tr.Pool.Set(balance.Endpoint{Name: "local", Value: h}); err != nil {
			t.Fatal(err)
		}
		res, err := (&http.Client{Transport: tr}).Post("http://api.test/p", "text/plain", strings.NewReader("body"))
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != 201 || string(b) != `api.test /p "body"` {
			t.Errorf("%d %s", res.StatusCode, b)
		}
		synctest.Wait()
	})
}

func TestTransportRefuses(t *testing.T) {
	tr := &l7.Transport{Pool: newPool(one)}
	for _, change := range []func(*http.Request){
		func(r *http.Request) { r.Method = "GE T" },
		func(r *http.Request) { r.Header["X-A"] = []string{"a\r\nb: c"} },
		func(r *http.Request) { r.Header["X A"] = []string{"a"} },
		func(r *http.Request) { r.Host = "a b" },
		func(r *http.Request) { r.URL.Scheme = "ftp" },
		func(r *http.Request) { r.URL.Opaque = "/a b" },
	} {
		r := get("http://api.test/")
		change(r)
		if _, err := tr.RoundTrip(r); err == nil {
			t.Errorf("%v was sent", r)
		}
	}
}

// A body that is longer than Retry.BodyBytes can be sent again if the program can
// give it again.
func TestTransportBodyGivenAgain(t *testing.T) {
	const two = "10.0.0.2:80"
	body := strings.Repeat("0123456789abcdef", 16<<10)
	for _, again := range []bool{false, true} {
		withTransport(t, []string{one, two}, func(t *testing.T, n *l4test.Network, tr *l7.Transport) {
			tr.Pool.Policy = balance.First{}
			tr.Retry = l7.Retry{Statuses: []int{503}}
			var record l7.Record
			tr.OnDone = func(r *l7.Record) { record = *r }
			var got []string
			for addr, status := range map[string]int{one: 503, two: 200} {
				serveHTTP(t, n, addr, func(w http.ResponseWriter, r *http.Request) {
					b, _ := io.ReadAll(r.Body)
					got = append(got, string(b))
					w.WriteHeader(status)
				})
			}
			req, _ := http.NewRequest("PUT", "http://api.test/", strings.NewReader(body))
			want, status := []string{body, body}, 200
			if !again {
				req.GetBody, want, status = nil, want[:1], 503
			}
			res, err := tr.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = res.Body.Close()
			if res.StatusCode != status || !slices.Equal(got, want) {
				t.Errorf("status %d after %d bodies; want %d after %d", res.StatusCode, len(got), status, len(want))
			}
			if record.BytesIn != int64(len(body)) || record.Tries != len(want) {
				t.Errorf("%d bytes in %d tries", record.BytesIn, record.Tries)
			}
		})
	}
}
