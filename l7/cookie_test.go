// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Other cookies keep their bytes and their order.
func dropAll(f *Fields, name string) {
	if at, ok := findCookie(f, name); ok {
		dropCookie(f, at, name)
	}
}

func FuzzDropCookie(f *testing.F) {
	f.Add("a=1; S=2 ;b=3;S=4;  c")
	f.Add("S=1")
	f.Fuzz(func(t *testing.T, line string) {
		if !validValue(line) {
			return
		}
		fields := MakeFields("Cookie", line)
		pairs := func() (list []string) {
			eachCookie(&fields, func(n, v string) bool {
				list = append(list, n+"="+v)
				return true
			})
			return list
		}
		want := slices.DeleteFunc(pairs(), func(p string) bool { return strings.HasPrefix(p, "S=") })
		dropAll(&fields, "S")
		require.Equal(t, strings.Join(want, ";"), strings.Join(pairs(), ";"), "%q", fields.Get("Cookie"))
	})
}

// However many cookies a line has, taking one name out of it is one pass.
func TestDropCookieIsLinear(t *testing.T) {
	f := MakeFields("Cookie", strings.Repeat("S=1; a=2; ", 100_000))
	dropAll(&f, "S")
	require.Equal(t, 100_000, strings.Count(f.Get("Cookie"), "a=2"))
	require.NotContains(t, f.Get("Cookie"), "S=1")
}
