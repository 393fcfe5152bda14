// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"runtime"
	"testing"
	"time"

	"github.com/penstock-lb/penstock/l7"
)

// Connections that idle, over TLS or not, take no goroutine, go on when their
// client does, and end in good order: at Shutdown or after IdleTimeout.
func TestParkedTCP(t *testing.T) {
	for _, over := range []string{"TCP", "TLS"} {
		for _, end := range []string{"Shutdown", "IdleTimeout"} {
			t.Run(over+" "+end, func(t *testing.T) { testParked(t, over == "TLS", end == "Shutdown") })
		}
	}
}

func testParked(t *testing.T, secure, shutdown bool) {
	srv := &l7.Server{
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{selfSigned(t)}},
		Handler:   l7.HandlerFunc(func(x *l7.Exchange) { x.Respond(200, nil, "ok") }),
		Logger:    discardLog(),
	}
	if !shutdown {
		srv.IdleTimeout = 3 * time.Second // more than the others take to ask
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serve := srv.Serve
	if secure {
		serve = func(ln net.Listener) error { return srv.ServeTLS(ln, "", "") }
	}
	go serve(ln)
	defer srv.Close()
	before := runtime.NumGoroutine()
	conns := make([]net.Conn, 20)
	ask := func() {
		t.Helper()
		for _, c := range conns {
			io.WriteString(c, getA[:5])
		}
		for _, c := range conns { // the rest is a record of its own
			io.WriteString(c, getA[5:])
			res, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, res.Body)
		}
	}
	for i := range conns {
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if conns[i] = c; secure {
			conns[i] = tls.Client(c, &tls.Config{InsecureSkipVerify: true})
		}
		_ = conns[i].SetDeadline(time.Now().Add(time.Minute))
	}
	for range 2 {
		ask()
		// Goroutines that ended since before was taken must not hide those of connections
		// which are not parked yet.
		for end := time.Now().Add(30 * time.Second); runtime.NumGoroutine() > before+len(conns)/2 || srv.Stats().Parked < len(conns)/2; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%d connections idle on %d goroutines", len(conns), runtime.NumGoroutine()-before)
			}
		}
		if st := srv.Stats(); st.Open != len(conns) || st.Parked < len(conns)/2 || st.Parked > len(conns) {
			t.Errorf("%d of %d connections are counted, %d as parked", st.Open, len(conns), st.Parked)
		}
	}
	if shutdown {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		if err := srv.Shutdown(ctx); err != nil {
			t.Error(err)
		}
	}
	defer func() {
		for end := time.Now().Add(30 * time.Second); srv.Stats().Open+srv.Stats().Parked > 0; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%d connections are left, %d parked", srv.Stats().Open, srv.Stats().Parked)
			}
		}
	}()
	for _, c := range conns {
		if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("read %d, %v", n, err)
		}
	}
}
