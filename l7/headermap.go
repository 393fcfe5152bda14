// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"maps"
	"net/http"
	"slices"
)

// fieldsOf lists a header map sorted by name, without the connection's fields.
func fieldsOf(h http.Header) Fields {
	var f Fields
	f.list = make([]Field, 0, len(h)+2)
	for _, name := range slices.Sorted(maps.Keys(h)) {
		k := kindOf(name)
		if k.owned() || !isToken(name) {
			continue
		}
		for _, v := range h[name] {
			f.list = append(f.list, Field{name, cleanValue(v), k, true})
		}
	}
	return f
}

// trailerOf lists the trailer fields that may be forwarded, nil if there are
// none.
func trailerOf(h http.Header) *Fields {
	if len(h) == 0 {
		return nil
	}
	f := fieldsOf(h)
	f.DelFunc(func(name, _ string) bool { return forbiddenTrailer(name) })
	return &f
}
