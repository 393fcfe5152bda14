// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"net/http"
	"slices"
)

// fieldsOf lists a header map sorted by name, without the connection's fields.
func fieldsOf(h http.Header) Fields {
	return Fields{list: appendFieldsOf(make([]Field, 0, len(h)+2), h)}
}

// appendFieldsOf appends what fieldsOf lists.
func appendFieldsOf(list []Field, h http.Header) []Field {
	var few [16]string // on the stack
	for _, name := range sortedNames(few[:0], h) {
		k := kindOf(name)
		if k.owned() || !isToken(name) {
			continue
		}
		for _, v := range h[name] {
			list = append(list, Field{Name: name, Value: cleanValue(v), kind: k, checked: true})
		}
	}
	return list
}

// sortedNames appends the names of h and returns them sorted.
func sortedNames(names []string, h http.Header) []string {
	for name := range h {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
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
