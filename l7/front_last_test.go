// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"bufio"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
)

func (c *wildConn) CloseWrite() error {
	c.w.tick("CloseWrite")
	return c.Conn.(interface{ CloseWrite() error }).CloseWrite()
}

// An exchange has its record even if the connection panics when the reply is sent.
func TestRecordOfAReplyThatPanics(t *testing.T) {
	for _, method := range []string{"Write", "SetWriteDeadline", "CloseWrite"} {
		t.Run(method, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := l4test.NewNetwork()
				ln, err := n.Listen("tcp", siteAddr)
				require.NoError(t, err)
				w := &wildConns{method: method}
				var ends []l4.Termination
				srv := &l7.Server{
					Handler: l7.HandlerFunc(func(x *l7.Exchange) { x.Respond(200, nil, "hello"); w.armed.Store(true) }),
					OnDone:  func(r *l7.Record) { ends = append(ends, r.Termination) },
					Logger:  discardLog(),
				}
				defer srv.Close()
				go srv.Serve(&wildListener{ln, w})
				c, err := n.DialContext(t.Context(), "tcp", siteAddr)
				require.NoError(t, err)
				defer c.Close()
				io.WriteString(c, strings.Replace(getA, "\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1))
				io.ReadAll(c)
				synctest.Wait()
				require.Len(t, ends, 1)
				require.Equal(t, l4.Internal, ends[0].Cause)
			})
		})
	}
}

// A reply does not wait for OnDone, which ought not to block, and may.
func TestReplyDoesNotWaitForOnDone(t *testing.T) {
	for name, request := range map[string]string{
		"kept":      getA,
		"last":      strings.Replace(getA, "\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1),
		"malformed": "GET  / HTTP/1.1\r\n\r\n",
		"too slow":  "GET /",
		"too long":  "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := l4test.NewNetwork()
				ln, err := n.Listen("tcp", siteAddr)
				require.NoError(t, err)
				read := make(chan struct{})
				srv := &l7.Server{
					Handler: l7.HandlerFunc(func(x *l7.Exchange) { x.Respond(200, nil, "hello") }),
					OnDone: func(r *l7.Record) {
						select {
						case <-read:
						case <-time.After(time.Minute):
							t.Error("it does")
						}
					},
					MaxBodyBytes: 1,
					Logger:       discardLog(),
				}
				defer srv.Close()
				go srv.Serve(ln)
				c, err := n.DialContext(t.Context(), "tcp", siteAddr)
				require.NoError(t, err)
				defer c.Close()
				io.WriteString(c, request)
				res, err := http.ReadResponse(bufio.NewReader(c), nil)
				require.NoError(t, err)
				_, err = io.ReadAll(res.Body)
				require.NoError(t, err)
				close(read)
			})
		})
	}
}
