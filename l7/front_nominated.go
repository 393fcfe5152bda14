// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"net/http"
	"slices"
	"strings"
	"unsafe"
)

// nominated holds the fields that Connection names in a request that was lent to a
// foreign handler: their names in lower case, with the values that the client sent. The
// foreign handler sees them, as it does under an http.Server, and they are not
// forwarded. Fields of these names that a handler has set stay: otherwise a client could
// have them removed by naming them.
type nominated map[string][]string

// nominatedIn returns the fields that Connection names in h. If f is changed, h was made
// of it, and has none of the client's any more.
func nominatedIn(h http.Header, f *Fields) nominated {
	var n nominated
	for _, v := range h["Connection"] {
		eachItem(v, func(item string) {
			if equalFold(item, "close") || kindOf(item).owned() {
				return
			}
			if n == nil {
				n = make(nominated)
			}
			n[strings.ToLower(item)] = nil
		})
	}
	if n == nil || f.changed() {
		return n
	}
	for name, values := range h {
		if name = strings.ToLower(name); n.has(name) {
			n[name] = slices.Clone(values)
		}
	}
	return n
}

func (n nominated) has(name string) bool {
	_, ok := n[name]
	return ok
}

// drop removes what the client has sent of them from f, and what the foreign handler has
// named in options besides.
func (n nominated) drop(f *Fields, options *lines) {
	more := make(map[string]bool)
	options.eachItem(func(item string) {
		if item = strings.ToLower(item); !n.has(item) {
			more[item] = true
		}
	})
	f.DelFunc(func(name, value string) bool {
		name = strings.ToLower(name)
		return more[name] || slices.ContainsFunc(n[name], func(v string) bool { return sameBytes(v, value) })
	})
	f.edited = false
}

// sameBytes reports whether two strings are the same memory: an equal value that a
// handler has set is not the client's.
func sameBytes(a, b string) bool {
	return len(a) == len(b) && unsafe.StringData(a) == unsafe.StringData(b)
}
