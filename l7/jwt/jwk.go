// SPDX-License-Identifier: Apache-2.0

package jwt

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
)

// A jwk is a public key as JSON (RFC 7517, section 4, and RFC 7518, section 6).
type jwk struct {
	Kty, Kid, Use, Alg, Crv string
	KeyOps                  []string `json:"key_ops"`
	N, E, X, Y              string
}

// ParseJWKS returns the keys of a JWK Set (RFC 7517, section 5). Keys that are not for
// signatures, of a kind that is not known, weak, or secret are left out, and skipped
// says why. A key that names no algorithm is one of RS256, or of what its curve asks
// for. It is an error if none is left.
func ParseJWKS(file []byte) (keys Static, skipped []error, err error) {
	var set struct{ Keys []json.RawMessage }
	if err := json.Unmarshal(file, &set); err != nil {
		return nil, nil, fmt.Errorf("jwt: no JWK Set: %w", err)
	}
	for i, raw := range set.Keys {
		k, err := parseJWK(raw)
		if err != nil {
			skipped = append(skipped, fmt.Errorf("jwt: key %d of the set: %w", i, err))
			continue
		}
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		return nil, skipped, errors.Join(append([]error{errors.New("jwt: the JWK Set has no key to verify by")}, skipped...)...)
	}
	return keys, skipped, nil
}

func parseJWK(raw []byte) (k Key, err error) {
	var j jwk
	if err := json.Unmarshal(raw, &j); err != nil {
		return k, err
	}
	if j.Use != "" && j.Use != "sig" || len(j.KeyOps) > 0 && !slices.Contains(j.KeyOps, "verify") {
		return k, errors.New("it is not for signatures")
	}
	k = Key{ID: j.Kid, Algorithm: j.Alg}
	switch j.Kty {
	case "RSA":
		k.Public, err = j.rsa()
	case "EC":
		k.Public, err = j.ecdsa()
	case "OKP":
		k.Public, err = j.ed25519()
	default: // "oct" is a secret, and not for who fetches a set
		return k, fmt.Errorf("kind %q is not for verifying", j.Kty)
	}
	if err != nil {
		return k, err
	}
	if k.Algorithm == "" {
		k.Algorithm = algorithmOf(k.Public)
	}
	if k.Algorithm == "Ed25519" { // RFC 9864
		k.Algorithm = "EdDSA"
	}
	return k, k.usable()
}

func (j *jwk) rsa() (any, error) {
	n, err := field("n", j.N)
	if err != nil {
		return nil, err
	}
	e, err := field("e", j.E)
	if err != nil {
		return nil, err
	}
	exponent := new(big.Int).SetBytes(e)
	if exponent.BitLen() > 31 || len(n) > 16384/8 {
		return nil, errors.New("a key of RSA that is too large")
	}
	return &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(exponent.Int64())}, nil
}

func (j *jwk) ecdsa() (any, error) {
	var curve elliptic.Curve
	switch j.Crv {
	case "P-256":
		curve = elliptic.P256()
	case "P-384":
		curve = elliptic.P384()
	case "P-521":
		curve = elliptic.P521()
	default:
		return nil, fmt.Errorf("curve %q is not known", j.Crv)
	}
	point := []byte{4} // uncompressed
	for _, c := range [...]string{j.X, j.Y} {
		b, err := field("x or y", c)
		if err != nil {
			return nil, err
		}
		if len(b) != (curve.Params().BitSize+7)/8 {
			return nil, errors.New("a coordinate of another length than the curve's")
		}
		point = append(point, b...)
	}
	return ecdsa.ParseUncompressedPublicKey(curve, point) // and is on it (RFC 8725, section 3.4)
}

func (j *jwk) ed25519() (any, error) {
	x, err := field("x", j.X)
	if err != nil || j.Crv != "Ed25519" || len(x) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("no key of Ed25519, or not a whole one: curve %q", j.Crv)
	}
	return ed25519.PublicKey(x), nil
}

func field(name, value string) ([]byte, error) {
	b, err := base64.RawURLEncoding.DecodeString(value)
	if err != nil || len(b) == 0 {
		return nil, fmt.Errorf("%s is not there, or not in base64url", name)
	}
	return b, nil
}
