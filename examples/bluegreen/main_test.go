// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestReleases(t *testing.T) {
	site, orders := releases()
	get := func(c *http.Cookie) (string, *http.Cookie) {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		if c != nil {
			r.AddCookie(c)
		}
		w := httptest.NewRecorder()
		site.ServeHTTP(w, r)
		if list := w.Result().Cookies(); len(list) > 0 {
			c = list[0]
		}
		return w.Body.String(), c
	}
	put := func(percent string) int {
		w := httptest.NewRecorder()
		orders.ServeHTTP(w, httptest.NewRequest(http.MethodPut, "/?green="+percent, nil))
		return w.Code
	}
	release, cookie := get(nil)
	require.Equal(t, "blue\n", release)
	require.NotNil(t, cookie)

	require.Equal(t, 200, put("100"))
	release, _ = get(nil)
	require.Equal(t, "green\n", release, "new clients go to green")
	release, _ = get(cookie)
	require.Equal(t, "blue\n", release, "who was on blue stays")

	require.Equal(t, 200, put("50"))
	seen := map[string]bool{}
	for range 100 {
		release, _ := get(nil)
		seen[release] = true
	}
	require.Len(t, seen, 2)
	require.Equal(t, 400, put("101"))
}
