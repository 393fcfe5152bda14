// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

// The log names a func, and not only the type that most middleware has.
func TestHandlersAreNamed(t *testing.T) {
	middleware := func(http.Handler) http.Handler {
		return http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	}
	require.Contains(t, handlerName(middleware(nil)), "http.HandlerFunc github.com/penstock-lb/penstock/l7.TestHandlersAreNamed")
	require.Equal(t, "http.HandlerFunc net/http.NotFound", handlerName(http.HandlerFunc(http.NotFound)))
	require.Equal(t, "*http.ServeMux", handlerName(http.NewServeMux()))
}
