// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"net/http"
	"net/url"
	"strings"
)

// requestTarget returns the target as the client sent it or, if an outer
// handler has changed the URL, that of the URL. It is empty if the client's
// target is malformed.
func requestTarget(r *http.Request) string {
	raw := r.RequestURI
	if raw == "" || r.Method == http.MethodConnect {
		return cmpOr(raw, r.URL.RequestURI())
	}
	path, query, _ := strings.Cut(raw, "?")
	if r.ProtoMajor > 1 && path != "*" && !strings.HasPrefix(path, "/") {
		return "" // RFC 9113, section 8.3.1
	}
	if path != "*" && !strings.HasPrefix(path, "/") && !strings.Contains(path, "://") {
		return "" // although net/http accepts it ("http:/path")
	}
	if i := strings.Index(path, "://"); i >= 0 && path[0] != '/' { // absolute form
		if path = path[i+3:]; strings.IndexByte(path, '/') >= 0 {
			path = path[strings.IndexByte(path, '/'):]
		} else {
			path = r.URL.Path
		}
	}
	if query != r.URL.RawQuery {
		return r.URL.RequestURI()
	}
	if path != r.URL.Path {
		if un, err := url.PathUnescape(path); err != nil || un != r.URL.Path {
			return r.URL.RequestURI()
		}
	}
	return raw
}
