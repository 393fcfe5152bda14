// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
)

// A farListener's connections take their time to the client.
type farListener struct{ net.Listener }

func (l farListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		c.(*l4test.Conn).SetLatency(time.Millisecond)
	}
	return c, err
}

// A client that has sent requests behind the last one that is answered gets that reply: closing
// the connection with them unread would reset it (RFC 9112, section 9.6).
func TestLastReplyOfAPipelineArrives(t *testing.T) {
	for name, srv := range map[string]*l7.Server{
		"client": {},
		"server": {MaxRequests: 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := l4test.NewNetwork()
				ln, err := n.Listen("tcp", siteAddr)
				require.NoError(t, err)
				srv.Handler, srv.Logger = l7.HandlerFunc(func(x *l7.Exchange) { x.Respond(200, nil, "hello") }), discardLog()
				defer srv.Close()
				go srv.Serve(farListener{ln})
				c, err := n.DialContext(t.Context(), "tcp", siteAddr)
				require.NoError(t, err)
				defer c.Close()
				request := getA
				if srv.MaxRequests == 0 {
					request = strings.Replace(getA, "\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1)
				}
				go io.WriteString(c, request+strings.Repeat(getA, 3000))
				got, err := io.ReadAll(c)
				require.NoError(t, err)
				require.Equal(t, 1, strings.Count(string(got), "hello"))
			})
		})
	}
}

// Nor does a client lose its reply that is still sending a body which a handler of net/http
// does not read, whether or not it has asked for the end of the connection.
func TestReplyArrivesWhileTheBodyIsSent(t *testing.T) {
	for _, fields := range []string{"", "Connection: close\r\n"} {
		synctest.Test(t, func(t *testing.T) {
			n := l4test.NewNetwork()
			ln, err := n.Listen("tcp", siteAddr)
			require.NoError(t, err)
			srv := &l7.Server{Logger: discardLog(), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				http.Error(w, "who are you?", http.StatusUnauthorized)
			})}
			defer srv.Close()
			go srv.Serve(farListener{ln})
			c, err := n.DialContext(t.Context(), "tcp", siteAddr)
			require.NoError(t, err)
			defer c.Close()
			go io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\n"+fields+"Content-Length: 200000\r\n\r\n"+strings.Repeat("x", 200000))
			res, err := http.ReadResponse(bufio.NewReader(c), nil)
			require.NoError(t, err, fields)
			body, err := io.ReadAll(res.Body)
			require.NoError(t, err)
			require.Equal(t, "who are you?\n", string(body))
		})
	}
}

// Net/http reads on from the connection if it has read the body to its end, while it closes it.
func TestNoReadBesideThatOfNetHTTP(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	srv := &l7.Server{Logger: discardLog(), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "who are you?", http.StatusUnauthorized)
	})}
	defer srv.Close()
	go srv.Serve(ln)
	c, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	defer c.Close()
	io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
	got, err := io.ReadAll(c)
	require.NoError(t, err)
	require.Contains(t, string(got), "who are you?")
}
