// SPDX-License-Identifier: Apache-2.0

package health_test

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/health"
	"github.com/penstock-lb/penstock/health/healthtest"
)

// TestUpgrades goes from the clear to TLS in each protocol's own way.
func TestUpgrades(t *testing.T) {
	web := httptest.NewTLSServer(nil) // for its certificate
	defer web.Close()
	roots := x509.NewCertPool()
	roots.AddCert(web.Certificate())
	config := &tls.Config{Certificates: web.TLS.Certificates}
	good := health.Connect{TLS: &tls.Config{RootCAs: roots, ServerName: "example.com"}}
	other := health.Connect{TLS: &tls.Config{RootCAs: roots, ServerName: "example.net"}}
	for _, tt := range []struct {
		name          string
		service       healthtest.Service
		probe         func(health.Connect) health.Probe
		without, want string
	}{
		{"PostgreSQL", healthtest.PostgreSQL{TLS: config}, func(d health.Connect) health.Probe { return health.PostgreSQL{Connect: d} }, "ok", "ok"},
		{"MySQL", healthtest.MySQL{TLS: config}, func(d health.Connect) health.Probe { return health.MySQL{Connect: d, User: "u"} }, "ok", "ok"},
		{"SMTP", healthtest.SMTP{TLS: config}, func(d health.Connect) health.Probe { return health.SMTP{Connect: d, StartTLS: true} },
			"internal error / STARTTLS: Connect.TLS is nil", "ok"},
		{"PostgreSQL without", healthtest.PostgreSQL{}, func(d health.Connect) health.Probe { return health.PostgreSQL{Connect: d} },
			"ok", "TLS failed / SSLRequest: the server has no TLS"},
		{"MySQL without", healthtest.MySQL{}, func(d health.Connect) health.Probe { return health.MySQL{Connect: d} },
			"ok", "TLS failed / TLS: the server has no TLS"},
		{"SMTP without", healthtest.SMTP{}, func(d health.Connect) health.Probe { return health.SMTP{Connect: d, StartTLS: true} },
			"internal error / STARTTLS: Connect.TLS is nil", "bad status / STARTTLS: 502 not implemented"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			s := &healthtest.Server{Service: tt.service}
			go s.Serve(ln)
			defer s.Close()
			addr := ln.Addr().String()
			require.Equal(t, tt.without, verdict(probe(t, tt.probe(health.Connect{}), addr)))
			require.Equal(t, tt.want, verdict(probe(t, tt.probe(good), addr)))
			if tt.want == "ok" {
				require.Regexp(t, "^TLS failed / TLS: .*not example.net", verdict(probe(t, tt.probe(other), addr)))
			}
		})
	}
}
