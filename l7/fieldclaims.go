// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"iter"
	"strings"
)

// There are two sorts of forwarding fields. Those that came with the request are
// claims of the client or of a proxy. Those that a handler sets are statements of the
// host: they have no kind, are never dropped as claims, and replace ours.

// kindSet is kindOf for a field that a handler sets: forwarding fields are not
// claims of the client then.
func (f *Fields) kindSet(name string) kind {
	k := kindOf(name)
	if k == kindForwarded {
		f.tells, k = true, kindOther
	}
	return k
}

// setByHost reports whether a handler has set that forwarding field.
func (f *Fields) setByHost(name string) bool {
	if f.tells {
		for i := range f.list {
			if fd := &f.list[i]; fd.kind == kindOther && alike(fd.Name, name) {
				return true
			}
		}
	}
	return false
}

// claims yields the values of that name that came with the request.
func (f *Fields) claims(name string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for i := range f.list {
			if fd := &f.list[i]; fd.kind == kindForwarded && equalFold(fd.Name, name) && !yield(fd.Value) {
				return
			}
		}
	}
}

// lastClaim returns the last item of the last line of a list: the one that the
// nearest proxy has added.
func (f *Fields) lastClaim(name string) string {
	last := ""
	for v := range f.claims(name) {
		last = v
	}
	return trimOWS(last[strings.LastIndexByte(last, ',')+1:])
}

// dropClaims drops the claims that keep does not accept.
func (f *Fields) dropClaims(keep func(name string) bool) {
	rest := f.list[:0]
	for _, fd := range f.list {
		if fd.kind != kindForwarded || keep(fd.Name) {
			rest = append(rest, fd)
		}
	}
	f.edited = f.edited || len(rest) != len(f.list)
	f.truncate(rest)
}
