// SPDX-License-Identifier: Apache-2.0

//go:build linux

package health_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// certificate writes a certificate for localhost, and its key.
func certificate(t *testing.T, dir string) (cert, key string) {
	k, err := rsa.GenerateKey(rand.Reader, 2048) // OpenSMTPD signs with nothing else
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	require.NoError(t, err)
	raw, err := x509.MarshalPKCS8PrivateKey(k)
	require.NoError(t, err)
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	require.NoError(t, os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644))
	require.NoError(t, os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}), 0o644))
	return cert, key
}

// trustOnly trusts the certificate in file, for localhost.
func trustOnly(t *testing.T, file string) *tls.Config {
	pool := x509.NewCertPool()
	b, err := os.ReadFile(file)
	require.NoError(t, err)
	require.True(t, pool.AppendCertsFromPEM(b))
	return &tls.Config{RootCAs: pool, ServerName: "localhost"}
}

func trustAll() *tls.Config { return &tls.Config{InsecureSkipVerify: true} }
