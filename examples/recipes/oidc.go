// SPDX-License-Identifier: Apache-2.0

package recipes

import (
	"net/http"
	"time"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l7"
)

// Login lets only those pass to next who have logged in by OpenID Connect (Google, GitHub,
// Keycloak, Entra and others). Members of service are processes of oauth2-proxy, run with
//
//	oauth2-proxy --reverse-proxy --upstream=static://202 --set-xauthrequest --skip-provider-button ...
//
// and the gateway's own https://HOST/oauth2/callback as the redirect URL. Servers see who asks
// in X-Auth-Request-User and X-Auth-Request-Email; what clients send under these names is
// removed. Scripts are told 401 when they ask for JSON, not to go to the login page.
func Login(service *balance.Pool, next http.Handler) http.Handler {
	ask := &l7.Proxy{Pool: service, Timeout: 5 * time.Second}
	return l7.NewRouter(
		l7.Route{Name: "login", Match: l7.PathPrefix("/oauth2"), Handler: &l7.Proxy{Pool: service}},
		l7.Route{Name: "pages", Handler: &l7.ForwardAuth{
			Service:   ask,
			Target:    "/",
			Fields:    []string{"Authorization", "Cookie", "Accept"},
			ToRequest: []string{"X-Auth-Request-User", "X-Auth-Request-Email"},
			ToClient:  []string{"Set-Cookie"}, // of a session that was refreshed
			UserField: "X-Auth-Request-Email",
			KeepFor:   10 * time.Second, Key: l7.ByHost, // one question for a page and its pictures
			Next: next,
		}},
	)
}
