// SPDX-License-Identifier: Apache-2.0

package recipes

import (
	"net/http"

	coreruleset "github.com/corazawaf/coraza-coreruleset/v4"
	"github.com/corazawaf/coraza/v3"
	corazahttp "github.com/corazawaf/coraza/v3/http"
)

// WAF puts the OWASP Core Rule Set before next: what looks like an attack gets 403 and
// does not reach a server. Request bodies are read up to a bound before they are passed
// on, so put it before the routes that need it only. More are directives of coraza, in
// the language of ModSecurity: exceptions to rules, a paranoia level.
func WAF(next http.Handler, more string) (http.Handler, error) {
	waf, err := coraza.NewWAF(coraza.NewWAFConfig().WithRootFS(coreruleset.FS).WithDirectives(`
		Include @coraza.conf-recommended
		SecRuleEngine On
		SecRequestBodyLimit 1048576
		SecRequestBodyInMemoryLimit 1048576
		SecResponseBodyAccess Off
		SecAuditEngine Off
		Include @crs-setup.conf.example
		Include @owasp_crs/*.conf
	` + more))
	if err != nil {
		return nil, err
	}
	return corazahttp.WrapHandler(waf, next), nil
}
