// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestHandler(t *testing.T) {
	var to []*url.URL
	for i := range 2 {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, i, " ", r.Host, r.URL.Path, " for ", r.Header.Get("X-Forwarded-For"))
		}))
		defer s.Close()
		u, err := url.Parse(s.URL)
		require.NoError(t, err)
		to = append(to, u)
	}
	ask := func(h http.Handler, path string) (int, string) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "http://a.test"+path, nil))
		text, err := io.ReadAll(w.Body)
		require.NoError(t, err)
		return w.Code, strings.TrimSpace(string(text))
	}
	h := handler(to, 4, 0)
	for _, server := range []string{"1", "0", "1"} {
		_, text := ask(h, "/x")
		require.Equal(t, server+" a.test/x for 192.0.2.1", text)
	}
	h = handler(to, 4, 3)
	code, text := ask(h, "/r2/")
	require.Equal(t, 200, code)
	require.Contains(t, text, "a.test/r2/")
	code, _ = ask(h, "/r3/")
	require.Equal(t, 404, code)
}
