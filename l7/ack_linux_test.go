// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/penstock-lb/penstock/l7"
)

// A client without TCP_NODELAY that sends a request in two pieces sends the second once the
// first is acknowledged, which the kernel would delay by 40 ms at least.
func TestPieceOfARequestIsAcknowledged(t *testing.T) {
	cert, roots := certFor(t, "a.test")
	srv := &l7.Server{
		Handler: l7.HandlerFunc(func(x *l7.Exchange) {
			b, _ := io.ReadAll(x.Body())
			x.Respond(200, nil, string(b))
		}),
		Logger: slog.New(slog.DiscardHandler), TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}},
	}
	plain, secure := loopback(t), loopback(t)
	go srv.Serve(plain)
	go srv.ServeTLS(secure, "", "")
	defer srv.Close()
	for name, pieces := range map[string][2]string{
		"head":         {"POST / HTTP/1.1\r\nHost: x\r\n", "Content-Length: 4\r\n\r\nbody"},
		"body":         {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n", "body"},
		"rest of body": {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbo", "dy"},
		"chunk":        {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", "4\r\nbody\r\n0\r\n\r\n"},
	} {
		for _, ln := range []net.Listener{plain, secure} {
			t.Run(fmt.Sprint(name, ", TLS: ", ln == secure), func(t *testing.T) {
				nc, err := net.Dial("tcp", ln.Addr().String())
				require.NoError(t, err)
				defer nc.Close()
				require.NoError(t, nc.(*net.TCPConn).SetNoDelay(false))
				if ln == secure {
					nc = tls.Client(nc, &tls.Config{RootCAs: roots, ServerName: "a.test"})
				}
				replies, fastest := bufio.NewReader(nc), time.Hour
				for i := range 6 {
					began := time.Now()
					io.WriteString(nc, pieces[0])
					io.WriteString(nc, pieces[1])
					reply, err := http.ReadResponse(replies, nil)
					require.NoError(t, err)
					body, err := io.ReadAll(reply.Body)
					require.NoError(t, err)
					require.Equal(t, "body", string(body))
					if i > 0 { // a new connection acknowledges at once
						fastest = min(fastest, time.Since(began))
					}
				}
				require.Less(t, fastest, 30*time.Millisecond)
			})
		}
	}
}

// So it is with a stream of HTTP/2 whose HEADERS and DATA are sent apart.
func TestHeadersAreAcknowledged(t *testing.T) {
	srv := &l7.Server{
		Handler: l7.HandlerFunc(func(x *l7.Exchange) {
			io.ReadAll(x.Body())
			x.Respond(200, nil, "")
		}),
		Logger: slog.New(slog.DiscardHandler),
	}
	ln := loopback(t)
	go srv.Serve(ln)
	defer srv.Close()
	nc, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	defer nc.Close()
	require.NoError(t, nc.(*net.TCPConn).SetNoDelay(false))
	_ = nc.SetDeadline(time.Now().Add(time.Minute))
	io.WriteString(nc, http2.ClientPreface)
	f, head := http2.NewFramer(nc, nc), new(bytes.Buffer)
	require.NoError(t, f.WriteSettings())
	enc := hpack.NewEncoder(head)
	fastest := time.Hour
	for id := uint32(1); id < 20; id += 2 {
		head.Reset()
		for _, field := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":authority", "x"}, {":path", "/"}} {
			enc.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]})
		}
		began := time.Now()
		require.NoError(t, f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: head.Bytes(), EndHeaders: true}))
		require.NoError(t, f.WriteData(id, true, []byte("body")))
		for ended := false; !ended; {
			got, err := f.ReadFrame()
			require.NoError(t, err)
			if s, ok := got.(*http2.SettingsFrame); ok && !s.IsAck() {
				require.NoError(t, f.WriteSettingsAck())
			}
			ended = got.Header().StreamID == id && got.Header().Flags.Has(http2.FlagHeadersEndStream)
		}
		if id > 5 {
			fastest = min(fastest, time.Since(began))
		}
	}
	require.Less(t, fastest, 30*time.Millisecond)
}

func loopback(t *testing.T) net.Listener {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	return ln
}
