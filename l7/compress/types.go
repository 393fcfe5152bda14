// SPDX-License-Identifier: Apache-2.0

package compress

import (
	"strings"
	"sync/atomic"
)

// defaultTypes are the media types that are text of some kind, or compress as well as
// text.
func defaultTypes() []string {
	return []string{
		"text/*", "*+json", "*+xml", "*+text",
		"application/json", "application/javascript", "application/xml", "application/x-javascript",
		"application/x-ndjson", "application/yaml", "application/toml",
		"application/wasm", "application/vnd.ms-fontobject", "application/x-font-ttf",
		"font/ttf", "font/otf", "image/bmp", "image/x-icon", "image/vnd.microsoft.icon",
	}
}

// A typeSet is a list of types as it is looked up: the whole type, and what is before the
// slash or after the last plus of "text/*" and "*+json", all in lower case.
type typeSet struct {
	whole, kind, suffix map[string]bool

	seen [16]atomic.Pointer[seenType] // by length: a server sends few types
}

// A seenType is a Content-Type as some server has sent it.
type seenType struct {
	text string
	held bool
}

const maxSeenType = 64 // bytes

func newTypeSet(types []string) *typeSet {
	s := &typeSet{whole: make(map[string]bool), kind: make(map[string]bool), suffix: make(map[string]bool)}
	for _, t := range types {
		t = strings.ToLower(t)
		if suffix, ok := strings.CutPrefix(t, "*+"); ok {
			s.suffix[suffix] = true
		} else if kind, ok := strings.CutSuffix(t, "/*"); ok {
			s.kind[kind] = true
		} else {
			s.whole[t] = true
		}
	}
	return s
}

// holds reports whether a Content-Type is one of the set.
func (s *typeSet) holds(contentType string) bool {
	slot := &s.seen[len(contentType)%len(s.seen)]
	if t := slot.Load(); t != nil && t.text == contentType {
		return t.held
	}
	held := s.find(contentType)
	if len(contentType) <= maxSeenType {
		slot.Store(&seenType{strings.Clone(contentType), held})
	}
	return held
}

func (s *typeSet) find(contentType string) bool {
	t, _, _ := strings.Cut(contentType, ";")
	t = strings.ToLower(strings.Trim(t, " \t")) // copies only what is not in lower case
	if s.whole[t] {
		return true
	}
	kind, sub, ok := strings.Cut(t, "/")
	if !ok || sub == "" {
		return false
	}
	if s.kind[kind] {
		return true
	}
	for { // "*+b+c" is a type as well
		_, rest, more := strings.Cut(sub, "+")
		if !more {
			return false
		}
		if s.suffix[rest] {
			return true
		}
		sub = rest
	}
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
