// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"iter"
	"slices"
	"strings"
)

// A Field is one header field line.
type Field struct {
	Name  string // as sent; compared without regard to case
	Value string // without leading and trailing white space

	kind      kind
	checked   bool // fit to be sent: parsed, or cleaned
	sensitive bool // must enter no table of HTTP/2 (RFC 7541, section 7.1.3)
}

// named reports whether f has that name. Most fields have another length, which
// is compared without a call.
func (f *Field) named(name string) bool { return len(f.Name) == len(name) && sameName(f.Name, name) }

// sameName is not inlined so that named can be.
//
//go:noinline
func sameName(a, b string) bool { return a == b || equalFold(a, b) }

// Fields is an ordered list of header or trailer fields. The zero value is
// empty. Lines keep their order and case, and are not merged: two Set-Cookie
// lines stay two (RFC 9110, section 5.3).
//
// Fields that are about one connection or about framing (Connection,
// Keep-Alive, Proxy-Connection, TE, Transfer-Encoding, Content-Length,
// Upgrade) and Host are never in the list of an [Exchange] or a [Reply]: the
// engine owns them, and adding them has no effect on what is sent. The one exception is
// Upgrade in a reply of status 426, which goes to clients of HTTP/1.1.
//
// Fields may not be used by several goroutines at once.
type Fields struct {
	list   []Field
	own    []ownName // names that handlers have written or removed in a request
	edited bool
	tells  bool    // a handler has set a forwarding field
	home   *Fields // f itself, if the list's memory is reused; a copy of f does not own it
}

// MakeFields returns the fields of pairs: name, value, name, value, ...
// It panics if a value is missing or a name is not a token.
func MakeFields(pairs ...string) Fields {
	if len(pairs)%2 != 0 {
		panic("l7: MakeFields with a name that has no value")
	}
	var f Fields
	for i := 0; i < len(pairs); i += 2 {
		f.Add(pairs[i], pairs[i+1])
	}
	return f
}

// Len returns the number of field lines.
func (f *Fields) Len() int { return len(f.list) }

// All yields name and value of each line in order.
func (f *Fields) All() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for i := range f.list {
			if !yield(f.list[i].Name, f.list[i].Value) {
				return
			}
		}
	}
}

// Get returns the value of the first line of that name, or "".
func (f *Fields) Get(name string) string {
	v, _ := f.Lookup(name)
	return v
}

// Lookup returns the value of the first line of that name and whether there
// is one.
func (f *Fields) Lookup(name string) (string, bool) {
	if i := f.index(name); i >= 0 {
		return f.list[i].Value, true
	}
	return "", false
}

// Has reports whether there is a line of that name.
func (f *Fields) Has(name string) bool { return f.index(name) >= 0 }

// Values yields the values of all lines of that name in order.
func (f *Fields) Values(name string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for i := range f.list {
			if equalFold(f.list[i].Name, name) && !yield(f.list[i].Value) {
				return
			}
		}
	}
}

// Set gives the field one line: the first line of that name takes the value, and its
// other lines are removed; if there is none, a line is added at the end. Lines of
// the other spelling, with "_" for "-" or the reverse, are removed as well: a server
// that makes variables of names (RFC 3875, section 4.1.18) would take them for the
// field. In the header of a request, the name belongs to the gateway from then on: a
// trailer field of that name from the client is not forwarded.
//
// Control characters in a value are replaced by spaces (RFC 9110, section 5.5).
// A name that is not a token panics, since names come from the program, not
// from outside.
func (f *Fields) Set(name, value string) {
	f.ownField(name)
	at, more := -1, false
	for i := range f.list {
		switch fd := &f.list[i]; {
		case len(fd.Name) != len(name) || !alike(fd.Name, name):
		case at < 0 && equalFold(fd.Name, name):
			at = i
		default:
			more = true
		}
	}
	if at >= 0 && f.list[at].kind == kindForwarded {
		f.list[at].kind = f.kindSet(name)
	}
	if at >= 0 && f.list[at].Value != value {
		f.list[at].Value = cleanValue(value)
		f.edited = true
	}
	if more {
		i := -1
		f.DelFunc(func(n, _ string) bool {
			i++
			return i != at && alike(n, name)
		})
	}
	if at < 0 {
		f.Add(name, value)
	}
}

// Add appends a line, under the rules of [Fields.Set].
func (f *Fields) Add(name, value string) {
	if !isToken(name) {
		panic("l7: field name " + quote(name) + " is not a token")
	}
	f.edited = true
	f.list = append(f.list, Field{Name: name, Value: cleanValue(value), kind: f.kindSet(name), checked: true})
}

// Del removes all lines of that name, in both spellings as Set does.
func (f *Fields) Del(name string) {
	f.ownField(name)
	if f.hasAlike(name) {
		f.DelFunc(func(n, _ string) bool { return alike(n, name) })
	}
}

// hasAlike is Has for all spellings.
func (f *Fields) hasAlike(name string) bool {
	for i := range f.list {
		if n := f.list[i].Name; len(n) == len(name) && alike(n, name) {
			return true
		}
	}
	return false
}

// DelFunc removes the lines for which del reports true.
func (f *Fields) DelFunc(del func(name, value string) bool) {
	keep := f.list[:0]
	for _, fd := range f.list {
		if !del(fd.Name, fd.Value) {
			keep = append(keep, fd)
		}
	}
	f.edited = f.edited || len(keep) != len(f.list)
	f.truncate(keep)
}

// Edit replaces each line's value by what edit returns for it, under the
// rules of [Fields.Set].
func (f *Fields) Edit(edit func(name, value string) string) {
	for i := range f.list {
		if v := edit(f.list[i].Name, f.list[i].Value); v != f.list[i].Value {
			f.list[i].Value = cleanValue(v)
			f.edited = true
		}
	}
}

// Clone returns a copy that shares only the strings with f.
func (f *Fields) Clone() Fields {
	return Fields{list: slices.Clone(f.list), edited: f.edited, tells: f.tells}
}

func (f *Fields) index(name string) int {
	for i := range f.list {
		if f.list[i].named(name) {
			return i
		}
	}
	return -1
}

// truncate sets the list to keep, a prefix of the same array, and clears the
// strings after it.
func (f *Fields) truncate(keep []Field) {
	clear(f.list[len(keep):])
	f.list = keep
}

// reset empties the list for the next message and keeps its memory. A list that
// was assigned to f has another owner and is not changed.
func (f *Fields) reset() {
	if f.home != f {
		f.list, f.own, f.home = nil, nil, f
	}
	f.truncate(f.list[:0])
	clear(f.own)
	f.own = f.own[:0]
	f.edited, f.tells = false, false
}

// changed reports whether f has another list than the one parsed after reset.
func (f *Fields) changed() bool { return f.edited || f.home != f }

func (f *Fields) hasUnderscore() bool {
	for i := range f.list {
		if strings.IndexByte(f.list[i].Name, '_') >= 0 {
			return true
		}
	}
	return false
}
