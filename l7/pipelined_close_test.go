// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"io"
	"net"
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
