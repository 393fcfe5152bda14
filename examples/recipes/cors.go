// SPDX-License-Identifier: Apache-2.0

package recipes

import (
	"net/http"

	"github.com/rs/cors"

	"github.com/penstock-lb/penstock/l7"
)

// CORS lets pages of the given origins ("https://app.example") call next from a browser,
// with cookies. It only sets fields of replies, except for preflights, so that a Wrap
// keeps all other requests on the byte front.
func CORS(next http.Handler, origins ...string) http.Handler {
	return &l7.Wrap{Next: next, With: cors.New(cors.Options{
		AllowedOrigins:   origins,
		AllowedMethods:   []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete},
		AllowedHeaders:   []string{"Authorization", "Content-Type"},
		AllowCredentials: true,
		MaxAge:           600, // seconds that a browser remembers a preflight
	}).Handler}
}
