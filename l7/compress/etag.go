// SPDX-License-Identifier: Apache-2.0

package compress

import (
	"strings"

	"github.com/penstock-lb/penstock/l7"
)

// maxTags bounds what is added to If-None-Match, in bytes.
const maxTags = 1 << 10

// weaken makes a strong ETag weak. A strong one promises the same bytes (RFC 9110,
// section 8.8.1), which does not hold for a reply that is compressed for some clients
// only.
func weaken(f *l7.Fields) {
	if tag := f.Get("ETag"); strings.HasPrefix(tag, `"`) {
		f.Set("ETag", "W/"+tag)
	}
}

// addStrong adds the strong form of each weak tag of If-None-Match. Tags are compared
// there without regard to weakness (RFC 9110, section 13.1.2), so this changes nothing by
// the RFC; but many servers compare strings, and would not recognize a tag that was made
// weak here.
func addStrong(f *l7.Fields) {
	f.Edit(func(name, value string) string {
		if !strings.EqualFold(name, "If-None-Match") {
			return value
		}
		var b strings.Builder
		for tag := range tagsOf(value) {
			strong, weak := strings.CutPrefix(tag, "W/")
			if weak && !lists(value, strong) && b.Len()+len(strong)+2 <= maxTags {
				b.WriteString(", " + strong)
			}
		}
		return value + b.String()
	})
}

// lists reports whether tags, a value of If-None-Match, contains exactly that tag.
func lists(tags, tag string) bool {
	for t := range tagsOf(tags) {
		if t == tag {
			return true
		}
	}
	return false
}

// tagsOf yields the entity tags of a list, up to the first that is malformed.
func tagsOf(list string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for {
			list = strings.TrimLeft(list, " \t,")
			from := 0
			if strings.HasPrefix(list, "W/") {
				from = 2
			}
			if len(list) <= from || list[from] != '"' {
				return
			}
			n := strings.IndexByte(list[from+1:], '"')
			if n < 0 {
				return
			}
			end := from + 1 + n + 1
			if !yield(list[:end]) {
				return
			}
			list = list[end:]
		}
	}
}
