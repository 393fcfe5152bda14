// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/balance/file"
	"github.com/penstock-lb/penstock/health"
	"github.com/penstock-lb/penstock/l7"
)

// A target is a server of -to.
type target struct {
	scheme string // one of schemes
	addr   string // HOST:PORT or unix:/PATH
}

var (
	errTarget = errors.New("want HOST:PORT or unix:/PATH, alone or behind http://, h2c:// or https://")
	schemes   = []string{"http", "h2c", "https"}
)

func parseTarget(s string) (target, error) {
	t := target{"http", s}
	if scheme, rest, ok := strings.Cut(s, "://"); ok {
		t = target{strings.ToLower(scheme), rest}
		if !strings.HasPrefix(rest, "unix:") {
			t.addr = strings.TrimSuffix(rest, "/")
		}
	}
	if !slices.Contains(schemes, t.scheme) {
		return t, errTarget
	}
	if path, ok := strings.CutPrefix(t.addr, "unix:"); ok && path != "" {
		return t, nil
	}
	if host, port, err := net.SplitHostPort(t.addr); err != nil || host == "" || port == "" || strings.ContainsAny(t.addr, "/@?#") {
		return t, errTarget
	}
	return t, nil
}

// schemeLabel is the label of an endpoint that holds its scheme.
const schemeLabel = "scheme"

// Endpoints are the servers of -to. One that is listed twice gets twice the
// traffic: the second is a server of its own, "ADDR#2".
func (o *Options) Endpoints() []balance.Endpoint {
	seen := map[string]int{}
	var all []balance.Endpoint
	for _, s := range o.To {
		t, _ := parseTarget(s) // which has been checked
		e := balance.Endpoint{Addr: t.addr, Labels: map[string]string{schemeLabel: t.scheme}}
		if seen[t.addr]++; seen[t.addr] > 1 {
			e.Name = fmt.Sprintf("%s#%d", t.addr, seen[t.addr])
		}
		all = append(all, e)
	}
	return all
}

// withScheme is what a line of -from says with the default scheme.
func withScheme(e *balance.Endpoint) {
	if e.Labels[schemeLabel] != "" {
		return
	}
	if e.Labels == nil {
		e.Labels = make(map[string]string)
	}
	e.Labels[schemeLabel] = "http"
}

// file returns the servers that are in the file of -from now.
func (o *Options) file() ([]balance.Endpoint, error) {
	text, err := os.ReadFile(o.From)
	if err != nil {
		return nil, err
	}
	all, err := file.Parse(text)
	if err == nil && len(all) == 0 {
		err = errors.New("no server in it")
	}
	for i := range all {
		withScheme(&all[i])
	}
	return all, err
}

// secures reports whether a server may be asked over TLS.
func (o *Options) secures() bool {
	return o.From != "" || slices.ContainsFunc(o.To, func(s string) bool {
		t, _ := parseTarget(s)
		return t.scheme == "https"
	})
}

// clientTLS returns what https servers are asked with.
func (o *Options) clientTLS() (*tls.Config, error) {
	cfg := &tls.Config{InsecureSkipVerify: o.Insecure}
	if o.CA != "" {
		pem, err := os.ReadFile(o.CA)
		if err != nil {
			return nil, fmt.Errorf("-ca: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("-ca %q: no certificate in it", o.CA)
		}
	}
	return cfg, nil
}

// upstream speaks with each server as its scheme says.
func (o *Options) upstream() *l7.Upstream {
	var one, two, either http.Protocols
	one.SetHTTP1(true)
	two.SetUnencryptedHTTP2(true)
	either.SetHTTP1(true)
	either.SetHTTP2(true)
	spoken := map[string]*http.Protocols{"http": &one, "h2c": &two, "https": &either}
	return &l7.Upstream{
		ProtocolsOf: func(s *balance.Server) *http.Protocols { return spoken[s.Endpoint().Labels[schemeLabel]] },
		TLS: func(s *balance.Server) *tls.Config {
			if s.Endpoint().Labels[schemeLabel] != "https" {
				return nil
			}
			return o.secure
		},
	}
}

// probes checks each server by HTTP as its scheme says, https ones by HTTP/1.1.
type probes struct {
	path   string
	secure *tls.Config
}

// Probe implements [health.Probe].
func (p probes) Probe(ctx context.Context, e balance.Endpoint) error {
	h := health.HTTP{Path: p.path}
	switch e.Labels[schemeLabel] {
	case "h2c":
		h.HTTP2 = true
	case "https":
		h.Connect.TLS = p.secure
	}
	return h.Probe(ctx, e)
}
