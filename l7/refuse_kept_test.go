// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
)

// The connection on which a refused reply has come whole is used again. One on which more of
// it is to come is closed.
func TestRefusedReplyKeepsItsConnection(t *testing.T) {
	for path, conns := range map[string]int64{"/length": 1, "/chunked": 1, "/empty": 1, "/unfinished": 3, "/more": 3} {
		t.Run(path, func(t *testing.T) {
			refuse := l7.ReplyFunc(func(_ *l7.Exchange, r *l7.Reply) { r.Refuse(errors.New("not this")) })
			fronts(t, func(n *l4test.Network) http.Handler {
				proxy := newProxy(n, one)
				return l7.HandlerFunc(func(x *l7.Exchange) {
					x.OnReply(refuse)
					l7.Serve(proxy, x)
				})
			}, func(t *testing.T, f *front) {
				o := startOrigin(t, f.network, one, nil, false, func(w http.ResponseWriter, r *http.Request) {
					switch r.URL.Path {
					case "/length":
						_, _ = io.WriteString(w, "a page")
					case "/chunked":
						w.Header().Set("Transfer-Encoding", "chunked")
						_, _ = io.WriteString(w, "a page")
					case "/unfinished":
						_, _ = io.WriteString(w, "a page")
						_ = http.NewResponseController(w).Flush()
						<-r.Context().Done()
					case "/more":
						_, _ = io.WriteString(w, strings.Repeat("a page", 1<<18))
					}
				})
				for range 3 {
					status, _ := f.get(t, path)
					require.Equal(t, 502, status)
				}
				require.Equal(t, conns, int64(o.conns.Load()))
			})
		})
	}
}
