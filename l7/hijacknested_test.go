// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"bufio"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
)

// A handler of net/http inside another one takes a connection over TLS.
func TestHijackOfANestedHandlerOverTLS(t *testing.T) {
	leaf := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if assert.NoError(t, err) {
			io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
			c.Close()
		}
	})
	inner := &l7.Wrap{With: func(http.Handler) http.Handler { return leaf }, Next: l7.HandlerFunc(func(*l7.Exchange) {})}
	for name, h := range map[string]http.Handler{
		"alone":     inner,
		"in a Wrap": &l7.Wrap{With: func(next http.Handler) http.Handler { return http.HandlerFunc(next.ServeHTTP) }, Next: inner},
		"in a func": http.HandlerFunc(inner.ServeHTTP),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := l4test.NewNetwork()
				c, _ := clientOf(t, n, serveAs(t, n, &l7.Server{Handler: h}, true))
				c.SetDeadline(time.Now().Add(time.Minute))
				io.WriteString(c, "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
				res, err := http.ReadResponse(bufio.NewReader(c), nil)
				require.NoError(t, err)
				assert.Equal(t, http.StatusSwitchingProtocols, res.StatusCode)
			})
		})
	}
}
