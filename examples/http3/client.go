// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"

	"github.com/quic-go/quic-go/http3"
)

// fetch writes the reply to a GET by HTTP/3.
func fetch(ctx context.Context, url, ca string, out io.Writer) error {
	pem, err := os.ReadFile(ca)
	if err != nil {
		return fmt.Errorf("-ca: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	tr := &http3.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	defer tr.Close()
	r, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		return err
	}
	res, err := (&http.Client{Transport: tr}).Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	fmt.Fprintln(out, res.Proto, res.Status)
	_, err = io.Copy(out, res.Body)
	return err
}
