// SPDX-License-Identifier: Apache-2.0

package jwt

import (
	"net/http/httptest"
	"testing"

	"github.com/penstock-lb/penstock/l7"
)

// BenchmarkVerify is what a request with a token costs beside one without Verify: by
// the signature, and by the memory of it.
func BenchmarkVerify(b *testing.B) {
	i := newIssuer(b)
	var key l7.Key[*Token]
	token := "Bearer " + i.token(claims{"email": "ann@example.com", "roles": []string{"staff", "admin"}, "azp": "web", "sid": "0123456789abcdef0123456789abcdef"})
	for _, test := range []struct {
		name string
		made func(h *Verify)
		pass bool
	}{
		{"none", nil, true},
		{"kept", func(h *Verify) {}, false},
		{"signature", func(h *Verify) { h.KeepFor = -1 }, false},
	} {
		b.Run(test.name, func(b *testing.B) {
			h := i.verifier()
			h.ToRequest, h.Token, h.Next = []ToField{{"sub", "X-User"}}, &key, l7.HandlerFunc(func(*l7.Exchange) {})
			if test.made != nil {
				test.made(h)
			}
			r := httptest.NewRequest("GET", "/", nil)
			l7.ServeHTTP(l7.HandlerFunc(func(x *l7.Exchange) {
				b.ReportAllocs()
				for b.Loop() {
					x.Header.Set("Authorization", token)
					x.Record.Decision = ""
					if test.pass {
						x.Header.Del("Authorization")
						continue
					}
					h.ServeExchange(x)
				}
				x.Respond(200, nil, "")
			}), httptest.NewRecorder(), r)
		})
	}
}
