// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l7/l7test"
)

// A body whose chunks are of one byte each costs no write to the server for each of
// them: a client would make us write 4000 times by sending once.
func TestTinyChunksOfARequestAreJoined(t *testing.T) {
	const chunks = 4000
	fronts(t, proxyTo("10.0.0.1:80"), func(t *testing.T, f *front) {
		ln, err := f.network.Listen("tcp", "10.0.0.1:80")
		require.NoError(t, err)
		defer ln.Close()
		got := make(chan []byte, 1)
		go func() {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			var all []byte
			for b := make([]byte, 1<<10); !bytes.HasSuffix(all, []byte("\r\n0\r\n\r\n")); {
				n, err := c.Read(b)
				if all = append(all, b[:n]...); err != nil {
					break
				}
			}
			io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\n")
			got <- all
		}()
		f.dial(t).send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"+strings.Repeat("1\r\nx\r\n", chunks)+"0\r\n\r\n").wantReply(204, "")
		_, body, _ := bytes.Cut(<-got, []byte("\r\n\r\n"))
		require.Equal(t, chunks, bytes.Count(body, []byte("x")))
		require.LessOrEqual(t, bytes.Count(body, []byte("\r\n")), chunks/20, "two for each chunk to the server")
	})
}

// Nor does a reply of such chunks cost as many pieces.
func TestTinyChunksOfAReplyAreJoined(t *testing.T) {
	const chunks = 4000
	reply := "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n" + strings.Repeat("1\r\nx\r\n", chunks) + "0\r\nX-Sum: 1\r\n\r\n"
	fronts(t, proxyTo("10.0.0.1:80"), func(t *testing.T, f *front) {
		origin(t, f.network, "10.0.0.1:80", l7test.Script{l7test.Send(reply), l7test.Close()})
		c := f.dial(t).send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTE: trailers\r\n\r\n")
		_, body, _ := strings.Cut(c.rest(), "\r\n\r\n")
		require.Equal(t, chunks, strings.Count(body, "x"))
		require.LessOrEqual(t, strings.Count(body, "\r\n"), chunks/20, "two for each chunk to the client")
	})
}
