// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"iter"
	"strings"
)

// Forwarding fields are of two sorts. Those that came with the request are claims, of
// the client or of a proxy. Those that a handler sets are the host's own word: they
// have no kind, are never dropped as claims, and take the place of ours.

// kindSet is kindOf for a field that a handler sets. Its forwarding fields are
// its own word, and no claim of the client's.
func (f *Fields) kindSet(name string) kind {
	k := kindOf(name)
	if k == kindForwarded {
		f.tells, k = true, kindOther
	}
	return k
}

// tell reports whether a handler has set that forwarding field.
func (f *Fields) tell(name string) bool {
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

// lastClaim returns the last item of the last line of a list: what the nearest proxy
// has said, behind what others may have.
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
