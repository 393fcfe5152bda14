// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// What a handler outside of TrustForwarded has set is the host's own word: it is
// neither dropped with what the client sent nor believed as a proxy's.
func TestTrustForwardedKeepsWhatTheHostSet(t *testing.T) {
	trusts := []netip.Prefix{netip.MustParsePrefix("10.9.9.0/24")}
	for _, standard := range []bool{false, true} {
		for _, through := range []string{"native", "clone", "cloned fields"} {
			t.Run(fmt.Sprint(standard, through), func(t *testing.T) {
				onBoth(t, func(s *site) http.Handler {
					s.origin("10.0.1.1:80", func(w http.ResponseWriter, r *http.Request) {
						for _, name := range []string{"X-Real-Ip", "X_real_ip", "X-Forwarded-User", "X-Forwarded-Proto", "X-Forwarded-Prefix"} {
							_, _ = fmt.Fprintln(w, name+":", strings.Join(r.Header.Values(name), "|"))
						}
					})
					client := HandlerFunc(func(x *Exchange) {
						x.Header.Set("Seen", x.Client.String()+" "+x.Scheme)
						x.OnReply(ReplyFunc(func(_ *Exchange, r *Reply) { r.Header.Set("Seen", x.Header.Get("Seen")) }))
						Serve(s.proxy("10.0.1.1:80"), x)
					})
					var next http.Handler = &TrustForwarded{Prefixes: trusts, Standard: standard, Next: client}
					switch inner := next; through {
					case "clone":
						next = foreigners["clone"](inner)
					case "cloned fields":
						next = HandlerFunc(func(x *Exchange) {
							x.Header = x.Header.Clone()
							Serve(inner, x)
						})
					}
					return &EditHeader{Request: []FieldEdit{
						SetField{Name: "X-Real-IP", Value: "192.0.2.7"},
						SetField{Name: "X-Forwarded-User", Value: "ann"},
						SetField{Name: "X-Forwarded-Proto", Value: "https"},
					}, Next: next}
				}, func(s *site) {
					a := s.get("/", "X-Real-IP", "6.6.6.6", "X_Real_IP", "6.6.6.6", "X-Forwarded-User", "eve",
						"X-Forwarded-For", "192.0.2.99", "Forwarded", "for=192.0.2.98", "X-Forwarded-Prefix", "/p")
					prefix := " /p"
					if standard {
						prefix = " "
					}
					require.Equal(s, "X-Real-Ip: 192.0.2.7\nX_real_ip: \nX-Forwarded-User: ann\nX-Forwarded-Proto: https\nX-Forwarded-Prefix:"+prefix+"\n", a.body)
					want := "192.0.2.99 http"
					if standard {
						want = "192.0.2.98 http"
					}
					require.Equal(s, want, a.Header.Get("Seen"), "the host's https is for servers, no claim of a proxy's")
				})
			})
		}
	}
}
