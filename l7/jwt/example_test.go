// SPDX-License-Identifier: Apache-2.0

package jwt_test

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	gojwt "github.com/golang-jwt/jwt/v5"

	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/l7/jwt"
	"github.com/penstock-lb/penstock/ratelimit"
)

// Tokens of one issuer, each user limited by the token and not by the address.
func ExampleVerify() {
	secret := bytes.Repeat([]byte("k"), 32) // as a rule: &jwt.JWKS{URL: "https://id.example/keys"}
	var token l7.Key[*jwt.Token]
	h := &jwt.Verify{
		Keys:      jwt.Static{{Algorithm: "HS256", Public: secret}},
		Issuer:    "https://id.example",
		Audience:  []string{"shop"},
		ToRequest: []jwt.ToField{{Claim: "sub", Field: "X-User"}},
		Token:     &token,
		Next: &l7.Limit[string]{
			Limiter: &ratelimit.Keyed[string]{Law: ratelimit.GCRA{Rate: ratelimit.PerMinute(1)}},
			Key:     jwt.ByClaim(&token, "sub"),
			Next: &l7.Access{
				Deny: l7.All{l7.PathPrefix("/admin"), l7.Not(l7.MatchFunc(func(x *l7.Exchange) bool {
					t, _ := token.Get(x)
					return t.Text("role") == "admin"
				}))},
				Next: l7.HandlerFunc(func(x *l7.Exchange) { x.Respond(200, nil, "hello "+x.Header.Get("X-User")) }),
			},
		},
	}
	of := func(user string) string {
		s, err := gojwt.NewWithClaims(gojwt.SigningMethodHS256, gojwt.MapClaims{
			"iss": "https://id.example", "aud": "shop", "sub": user, "exp": time.Now().Add(time.Minute).Unix(),
		}).SignedString(secret)
		if err != nil {
			panic(err)
		}
		return "Bearer " + s
	}
	get := func(path, authorization string) {
		r := httptest.NewRequest(http.MethodGet, path, nil)
		r.Header.Set("Authorization", authorization)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		fmt.Println(w.Code, w.Header().Get("WWW-Authenticate"), w.Body)
	}
	get("/", of("ann"))
	get("/", of("ann"))
	get("/admin", of("bob"))
	get("/", of("eve")+"x")
	// Output:
	// 200  hello ann
	// 429  429 Too Many Requests
	//
	// 403  403 Forbidden
	//
	// 401 Bearer error="invalid_token" 401 Unauthorized
}
