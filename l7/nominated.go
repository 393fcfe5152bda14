// SPDX-License-Identifier: Apache-2.0

package l7

import "strings"

// lines holds the values of a field that may come on several lines. One line,
// the usual case, needs no allocation.
type lines struct {
	first string
	more  []string
}

func (l *lines) add(value string) {
	if l.first == "" {
		l.first = value
	} else if value != "" {
		l.more = append(l.more, value)
	}
}

// join returns the lines as one list (RFC 9110, section 5.3).
func (l *lines) join() string {
	if len(l.more) == 0 {
		return l.first
	}
	return l.first + ", " + strings.Join(l.more, ", ")
}

// eachItem calls do for each item of the lists.
func (l *lines) eachItem(do func(item string)) {
	eachItem(l.first, do)
	for _, v := range l.more {
		eachItem(v, do)
	}
}

// shortOptions is the length of options in bytes up to which searching them for
// each field is cheaper than building an index.
const shortOptions = 256

// dropNominated removes the fields that Connection names. Fields that the
// engine owns are not in the list, so a client cannot have them removed.
func (f *Fields) dropNominated(options *lines) {
	if len(options.more) == 0 && len(options.first) <= shortOptions {
		f.DelFunc(func(name, _ string) bool { return hasItem(options.first, name) })
	} else {
		f.dropIndexed(options)
	}
	f.edited = false
}

// dropIndexed is dropNominated for options of any length. It is linear in both
// the options and the fields, since both come from outside.
func (f *Fields) dropIndexed(options *lines) {
	names := make(map[string]int, len(f.list))
	var lengths uint64 // bit n: there is a name of n bytes (63: or more)
	longest := 0
	for i := range f.list {
		name := f.list[i].Name
		names[strings.ToLower(name)] = i
		lengths |= 1 << min(len(name), 63)
		longest = max(longest, len(name))
	}
	drop := make([]bool, len(f.list))
	folded := make([]byte, longest)
	options.eachItem(func(item string) {
		n := len(item)
		if n > longest || lengths&(1<<min(n, 63)) == 0 {
			return
		}
		for i := range n {
			folded[i] = lower(item[i])
		}
		if i, ok := names[string(folded[:n])]; ok {
			drop[i] = true
		}
	})
	f.DelFunc(func(name, _ string) bool { return drop[names[strings.ToLower(name)]] })
}
