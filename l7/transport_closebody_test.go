// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l4/l4test"
)

// Close of a body waits for the client neither in a Transport nor in a handler, also if
// nothing reads the body at that moment.
func TestCloseOfAStalledBody(t *testing.T) {
	for name, server := range map[string]func(http.Handler, net.Listener) (stop func() error){
		"l7.Server": func(h http.Handler, ln net.Listener) func() error {
			srv := &Server{Handler: h, Logger: slog.New(slog.DiscardHandler)}
			go func() { _ = srv.Serve(ln) }()
			return srv.Close
		},
		"http.Server": func(h http.Handler, ln net.Listener) func() error {
			srv := &http.Server{Handler: h}
			go func() { _ = srv.Serve(ln) }()
			return srv.Close
		},
	} {
		for _, transport := range []bool{false, true} {
			if name == "http.Server" && !transport {
				continue // the handler closes net/http's own body
			}
			t.Run(name+map[bool]string{true: ", Transport"}[transport], func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n := l4test.NewNetwork()
					ln, err := n.Listen("tcp", "10.0.0.1:80")
					require.NoError(t, err)
					took := make(chan time.Duration, 1)
					stop := server(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
						body := r.Body
						if transport {
							body = detached(body)
						}
						_, _ = io.ReadFull(body, make([]byte, 4))
						began := time.Now()
						_ = body.Close()
						took <- time.Since(began)
					}), ln)
					c, err := n.DialContext(t.Context(), "tcp", "10.0.0.1:80")
					require.NoError(t, err)
					_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100\r\n\r\npart")
					require.Zero(t, <-took)
					_ = c.Close()
					_ = stop()
				})
			})
		}
	}
}
