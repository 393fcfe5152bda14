// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"context"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"testing"

	"github.com/penstock-lb/penstock/l4/l4test"
)

func quietLog() *log.Logger { return slog.NewLogLogger(slog.DiscardHandler, 0) }

// siteDialer dials the site under test, whatever it is asked for.
type siteDialer struct{ n *l4test.Network }

func newFrontOn(n *l4test.Network) siteDialer { return siteDialer{n} }

func (d siteDialer) dialContext(ctx context.Context, _, _ string) (net.Conn, error) {
	return d.n.DialContext(ctx, "tcp", siteAddr)
}

// toSite is a transport to the site: its URLs say only what is asked for.
type toSite struct {
	*http.Transport
	secure bool
}

func (s *toSite) RoundTrip(r *http.Request) (*http.Response, error) {
	r.URL.Scheme = "http"
	if s.secure {
		r.URL.Scheme = "https"
	}
	return s.Transport.RoundTrip(r)
}

// fetchSite asks a.test for a path and returns the body.
func fetchSite(t *testing.T, client *http.Client, path string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", "http://a.test"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "text/x")
	res, err := client.Do(req)
	if err != nil {
		t.Errorf("%s: %v", path, err)
		return ""
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Errorf("%s: %v", path, err)
	}
	return string(b)
}
