// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l7"
)

func TestTenants(t *testing.T) {
	var r l7.Router
	get := func(host string) (int, string) {
		req := httptest.NewRequest(http.MethodGet, "/", nil)
		req.Host = host
		w := httptest.NewRecorder()
		r.ServeHTTP(w, req)
		return w.Code, w.Body.String()
	}
	require.NoError(t, load(&r, strings.NewReader("acme.example 100\nzeta.example 2\n")))
	_, body := get("acme.example")
	require.Equal(t, "the app of acme.example\n", body)
	for range 2 {
		code, _ := get("zeta.example")
		require.Equal(t, 200, code)
	}
	code, _ := get("zeta.example")
	require.Equal(t, 429, code)
	code, _ = get("new.example")
	require.Equal(t, 404, code)

	require.Error(t, load(&r, strings.NewReader("new.example 5\nnew.example 6\n")), "a host that is there twice")
	require.Error(t, load(&r, strings.NewReader("new.example\n")))
	code, _ = get("new.example")
	require.Equal(t, 404, code, "the old table stays")

	require.NoError(t, load(&r, strings.NewReader("new.example 5\n")))
	code, _ = get("new.example")
	require.Equal(t, 200, code)
	code, _ = get("acme.example")
	require.Equal(t, 404, code)
}
