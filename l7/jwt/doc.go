// SPDX-License-Identifier: Apache-2.0

// Package jwt lets requests pass that carry a valid JSON Web Token (RFC 7519), as
// [Verify], a handler of package l7. Signatures are checked by golang-jwt.
//
//	verify := &jwt.Verify{
//		Keys:      &jwt.JWKS{URL: "https://id.example/.well-known/jwks.json"},
//		Issuer:    "https://id.example",
//		Audience:  []string{"shop"},
//		ToRequest: []jwt.ToField{{Claim: "sub", Field: "X-User"}},
//		Next:      proxy,
//	}
//
// What RFC 8725 asks for is not left to the host: a key is used with one algorithm
// only, so that the token cannot choose another ("none" is none, and a public key is
// no secret of HMAC); weak keys are refused; a token without an end, or for another
// audience, does not pass; claims that the gateway tells to servers are removed from
// what the client says first.
//
// It is a module of its own. Besides penstock it brings github.com/golang-jwt/jwt/v5, which
// depends on no other module.
package jwt
