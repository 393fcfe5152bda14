// SPDX-License-Identifier: Apache-2.0

package jwt

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

// A Key verifies the signatures of one algorithm (RFC 8725, section 3.1).
type Key struct {
	ID string // the kid that tokens name it by; "" fits tokens of any

	// Algorithm is one of RFC 7518, section 3.1, or of RFC 8037: RS256, PS384, ES512,
	// EdDSA, HS256 and so on. No key is of "none".
	Algorithm string

	// Public is a *rsa.PublicKey of 2048 bits or more, a *ecdsa.PublicKey of the curve
	// that the algorithm asks for, an ed25519.PublicKey, or, of HMAC, a secret as
	// []byte that is as long as the hash or longer (RFC 7518, section 3.2).
	Public any
}

// Keys are where a [Verify] finds them: [Static], a [*JWKS], or a [KeyFunc].
type Keys interface {
	// Keys returns the keys that a token with that kid, "" if it has none, may be
	// signed by. An error says that they are not to be had at the moment. It may be
	// called by several goroutines at once.
	Keys(ctx context.Context, kid string) ([]Key, error)
}

// Static are keys that do not change.
type Static []Key

// Keys implements [Keys].
func (s Static) Keys(context.Context, string) ([]Key, error) { return s, nil }

// Check returns what is wrong with the keys.
func (s Static) Check() error {
	var errs []error
	if len(s) == 0 {
		errs = append(errs, errors.New("jwt: Static has no keys"))
	}
	for i, k := range s {
		if err := k.usable(); err != nil {
			errs = append(errs, fmt.Errorf("jwt: Static[%d]: %w", i, err))
		}
	}
	return errors.Join(errs...)
}

// A KeyFunc is a func as [Keys].
type KeyFunc func(ctx context.Context, kid string) ([]Key, error)

// Keys calls f.
func (f KeyFunc) Keys(ctx context.Context, kid string) ([]Key, error) { return f(ctx, kid) }

// ParsePEM returns the public keys of a file of PEM blocks: public keys (PKIX, or
// PKCS #1 for RSA) and certificates, whose dates do not matter. Algorithm is that of
// all of them; "" means RS256 for RSA, and what their kind allows for others.
func ParsePEM(algorithm string, file []byte) (Static, error) {
	var keys Static
	for block, rest := pem.Decode(file); block != nil; block, rest = pem.Decode(rest) {
		public, err := parseBlock(block)
		if err != nil {
			return nil, fmt.Errorf("jwt: block %d of the PEM file: %w", len(keys)+1, err)
		}
		k := Key{Algorithm: algorithm, Public: public}
		if algorithm == "" {
			k.Algorithm = algorithmOf(public)
		}
		if err := k.usable(); err != nil {
			return nil, fmt.Errorf("jwt: block %d of the PEM file: %w", len(keys)+1, err)
		}
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		return nil, errors.New("jwt: no PEM block in the file")
	}
	return keys, nil
}

func parseBlock(block *pem.Block) (crypto.PublicKey, error) {
	switch block.Type {
	case "PUBLIC KEY":
		return x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		return x509.ParsePKCS1PublicKey(block.Bytes)
	case "CERTIFICATE":
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		return c.PublicKey, nil
	}
	return nil, fmt.Errorf("%s is no public key", block.Type)
}

// algorithmOf returns the algorithm of a key that does not say which one it is for.
func algorithmOf(public any) string {
	switch k := public.(type) {
	case *rsa.PublicKey:
		return "RS256"
	case *ecdsa.PublicKey:
		return curveAlgorithm(k)
	case ed25519.PublicKey:
		return "EdDSA"
	}
	return ""
}

func curveAlgorithm(k *ecdsa.PublicKey) string {
	switch k.Curve.Params().BitSize {
	case 256:
		return "ES256"
	case 384:
		return "ES384"
	case 521:
		return "ES512"
	}
	return ""
}

const minRSABits = 2048 // RFC 7518, section 3.3

// usable returns why a key must not be used: it is weak, or not of its algorithm.
func (k *Key) usable() error {
	switch family := strings.TrimRight(k.Algorithm, "0123456789"); {
	case !known(k.Algorithm):
		return fmt.Errorf("%q is no algorithm of signatures", k.Algorithm)
	case family == "HS":
		secret, ok := k.Public.([]byte)
		if n := hashBytes(k.Algorithm); !ok || len(secret) < n {
			return fmt.Errorf("a key of %s must be a secret of at least %d bytes", k.Algorithm, n)
		}
	case family == "RS" || family == "PS":
		public, ok := k.Public.(*rsa.PublicKey)
		if !ok || public.N == nil || public.N.BitLen() < minRSABits || public.E < 3 || public.E&1 == 0 {
			return fmt.Errorf("a key of %s must be one of RSA of at least %d bits", k.Algorithm, minRSABits)
		}
	case family == "ES":
		public, ok := k.Public.(*ecdsa.PublicKey)
		if !ok || public.Curve == nil || curveAlgorithm(public) != k.Algorithm {
			return fmt.Errorf("a key of %s must be one of ECDSA on its curve", k.Algorithm)
		}
	default:
		if public, ok := k.Public.(ed25519.PublicKey); !ok || len(public) != ed25519.PublicKeySize {
			return errors.New("a key of EdDSA must be one of Ed25519")
		}
	}
	return nil
}

func known(algorithm string) bool {
	switch algorithm {
	case "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "HS256", "HS384", "HS512":
		return true
	}
	return false
}

// hashBytes returns the length of the hash of an algorithm.
func hashBytes(algorithm string) int {
	switch algorithm[2:] {
	case "256":
		return 32
	case "384":
		return 48
	}
	return 64
}
