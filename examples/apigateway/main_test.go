// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
)

func TestGateway(t *testing.T) {
	var users, orders balance.Pool
	require.NoError(t, users.Set(inside("users-1"), inside("users-2")))
	require.NoError(t, orders.Set(inside("orders-1")))
	h := gateway(&users, &orders, nil)
	get := func(target, user, password string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodGet, target, nil)
		if user != "" {
			r.SetBasicAuth(user, password)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	require.Equal(t, 200, get("/alive", "", "").Code)
	require.Equal(t, 401, get("/api/users/7", "", "").Code)
	require.Equal(t, 401, get("/api/users/7", "ann", "two").Code)

	w := get("/api/users/7", "ann", "one")
	require.Regexp(t, `^users-[12]: /users/7 for ann\n$`, w.Body.String())
	require.Len(t, w.Header().Get("X-Request-Id"), 32)
	require.Equal(t, `"user";r=4;t=1`, w.Header().Get("RateLimit"))
	require.Equal(t, "orders-1: /orders for ann\n", get("/api/orders", "ann", "one").Body.String())
	require.Equal(t, 404, get("/", "ann", "one").Code)

	refused := 0
	for range 10 {
		if get("/api/users/7", "ann", "one").Code == 429 {
			refused++
		}
	}
	require.GreaterOrEqual(t, refused, 7)
	require.Equal(t, 200, get("/api/users/7", "bob", "two").Code, "bob has his own limit")
}
