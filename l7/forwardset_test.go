// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Forwarding fields that a client sends are dropped; those that a handler sets
// are forwarded as they are, in the place of ours.
func TestForwardWhatHandlersSet(t *testing.T) {
	set := func(next http.Handler, pairs ...string) http.Handler {
		var list []FieldEdit
		for i := 0; i < len(pairs); i += 2 {
			list = append(list, SetField{Name: pairs[i], Value: pairs[i+1]})
		}
		return &EditHeader{Request: list, Next: next}
	}
	cases := map[string]struct {
		tree func(p *Proxy) http.Handler
		want []string // beside what the mode says
	}{
		"client only": {func(p *Proxy) http.Handler { return p }, nil},
		"native": {func(p *Proxy) http.Handler {
			return set(p, "X-Forwarded-Proto", "host", "X-Real-IP", "192.0.2.1", "X-Forwarded-Prefix", "/p")
		}, []string{"X-Forwarded-Prefix: /p", "X-Forwarded-Proto: host", "X-Real-Ip: 192.0.2.1"}},
		"the client's own value": {func(p *Proxy) http.Handler { return set(p, "X-Real-IP", "6.6.6.6") }, []string{"X-Real-Ip: 6.6.6.6"}},
		"foreign": {func(p *Proxy) http.Handler {
			return &Capture{Next: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				r.Header.Set("X-Real-IP", "192.0.2.1")
				r.Header.Set("X-Forwarded-For", "192.0.2.2")
				p.ServeHTTP(w, r)
			})}
		}, []string{"X-Forwarded-For: 192.0.2.2", "X-Real-Ip: 192.0.2.1"}},
		"native through foreign": {func(p *Proxy) http.Handler {
			return set(foreigners["clone"](p), "X-Forwarded-User", "ann")
		}, []string{"X-Forwarded-User: ann"}},
		"UserField": {func(p *Proxy) http.Handler {
			return &BasicAuth{Verify: func(_, _ string) bool { return true }, UserField: "X-Forwarded-User", Next: p}
		}, []string{"X-Forwarded-User: ann"}},
	}
	for name, tc := range cases {
		for mode, ours := range map[Forward][]string{
			ForwardX:        {"X-Forwarded-For: 10.9.9.9", "X-Forwarded-Host: 10.0.0.1", "X-Forwarded-Proto: http"},
			ForwardStandard: {`Forwarded: for=10.9.9.9;host="10.0.0.1";proto=http`},
			ForwardNone:     nil,
		} {
			t.Run(name, func(t *testing.T) {
				onBoth(t, func(s *site) http.Handler {
					s.origin("10.0.1.1:80", func(w http.ResponseWriter, r *http.Request) {
						var got []string
						for k, vs := range r.Header {
							for _, v := range vs {
								if kindOf(k) == kindForwarded {
									got = append(got, k+": "+v)
								}
							}
						}
						slices.Sort(got)
						_, _ = w.Write([]byte(strings.Join(got, "\n")))
					})
					p := s.proxy("10.0.1.1:80")
					p.Forward = mode
					return tc.tree(p)
				}, func(s *site) {
					want := slices.Clone(tc.want)
					for _, o := range ours {
						field, _, _ := strings.Cut(o, ":")
						if !slices.ContainsFunc(want, func(v string) bool { return strings.HasPrefix(v, field+":") }) {
							want = append(want, o)
						}
					}
					slices.Sort(want)
					for range 2 {
						a := s.get("/", "X-Real-IP", "6.6.6.6", "X-Forwarded-For", "6.6.6.6", "X-Forwarded-Proto", "x", "X-Forwarded-User", "eve", "Authorization", "Basic YW5uOm9wZW4=", "Forwarded", "for=6.6.6.6", "X_Real_Ip", "6.6.6.6")
						require.Equal(s, strings.Join(want, "\n"), a.body)
					}
				})
			})
		}
	}
}
