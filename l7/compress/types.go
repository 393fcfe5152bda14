// SPDX-License-Identifier: Apache-2.0

package compress

import "strings"

// defaultTypes are the media types that are text of some kind, or as good as that.
func defaultTypes() []string {
	return []string{
		"text/*", "*+json", "*+xml", "*+text",
		"application/json", "application/javascript", "application/xml", "application/x-javascript",
		"application/x-ndjson", "application/yaml", "application/toml",
		"application/wasm", "application/vnd.ms-fontobject", "application/x-font-ttf",
		"font/ttf", "font/otf", "image/bmp", "image/x-icon", "image/vnd.microsoft.icon",
	}
}

// fits reports whether a Content-Type is one of types.
func fits(types []string, contentType string) bool {
	t, _, _ := strings.Cut(contentType, ";")
	t = strings.Trim(t, " \t")
	for _, want := range types {
		switch {
		case want[0] == '*': // "*+json"
			if n := len(t) - len(want) + 1; n > 0 && strings.EqualFold(t[n:], want[1:]) {
				return true
			}
		case want[len(want)-1] == '*': // "text/*"
			if n := len(want) - 1; len(t) > n && strings.EqualFold(t[:n], want[:n]) {
				return true
			}
		case len(t) == len(want) && strings.EqualFold(t, want):
			return true
		}
	}
	return false
}

// validType reports whether t has one of the forms that Types may have.
func validType(t string) bool {
	if suffix, ok := strings.CutPrefix(t, "*+"); ok {
		return isName(suffix)
	}
	kind, sub, ok := strings.Cut(t, "/")
	return ok && isName(kind) && (sub == "*" || isName(sub))
}

// isName reports whether s can be a part of a media type (RFC 6838, section 4.2).
func isName(s string) bool {
	for i := range len(s) {
		c := s[i] | 0x20
		if ('a' > c || c > 'z') && ('0' > s[i] || s[i] > '9') && !strings.ContainsRune("!#$&-^_.+", rune(s[i])) {
			return false
		}
	}
	return s != ""
}
