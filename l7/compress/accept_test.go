// SPDX-License-Identifier: Apache-2.0

package compress

import (
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseAccept(t *testing.T) {
	for _, test := range []struct {
		lines []string
		want  [codings + 1]int // zstd, br, gzip, identity
	}{
		{nil, [codings + 1]int{0, 0, 0, unlisted}},
		{[]string{""}, [codings + 1]int{0, 0, 0, unlisted}},
		{[]string{"gzip"}, [codings + 1]int{0, 0, 1000, unlisted}},
		{[]string{"gzip;q=0.123 , br ; Q=1.000"}, [codings + 1]int{0, 1000, 123, unlisted}},
		{[]string{"gzip", "zstd;q=0.5"}, [codings + 1]int{500, 0, 1000, unlisted}},
		{[]string{"*"}, [codings + 1]int{1000, 1000, 1000, unlisted}},
		{[]string{"*;q=0"}, [codings + 1]int{0, 0, 0, 0}},
		{[]string{"*;q=0,identity;q=0.1"}, [codings + 1]int{0, 0, 0, 100}},
		{[]string{"identity;q=0"}, [codings + 1]int{0, 0, 0, 0}},
		{[]string{"br;q=0,*;q=0.5"}, [codings + 1]int{500, 0, 500, unlisted}},
		{[]string{"gzip;q=0,gzip"}, [codings + 1]int{0, 0, 0, unlisted}},
		{[]string{"x-gzip;q=0.4"}, [codings + 1]int{0, 0, 400, unlisted}},
		// Malformed.
		{[]string{"gzip;q=2", "br;q=1.001", "zstd;q=.5"}, [codings + 1]int{0, 0, 0, unlisted}},
		{[]string{"gzip;q=0.1234,br;q=-1,zstd;q"}, [codings + 1]int{0, 0, 0, unlisted}},
		{[]string{"gzip;level=1,br;q=0,5,zstd;q=1.0x"}, [codings + 1]int{0, 0, 0, unlisted}},
		{[]string{",,;q=1,gz ip,gzip"}, [codings + 1]int{0, 0, 1000, unlisted}},
		{[]string{"*,zstd;q=0.0000,br;q=0;x=y"}, [codings + 1]int{0, 0, 1000, unlisted}},
		{[]string{"gzip,gzip;q=0,0", "identity;q=x,*;q=x"}, [codings + 1]int{0, 0, 0, unlisted}},
	} {
		a := parseAccept(strings.Join(test.lines, ","))
		got := [codings + 1]int{a.weighs(zstdCoding), a.weighs(brotliCoding), a.weighs(gzipCoding), a.weighs(identity)}
		require.Equal(t, test.want, got, "%q", test.lines)
	}
}

// FuzzAccept compares with a reading of the grammar that is slow and plain: a coding is
// never used that the client has not named, or has refused.
func FuzzAccept(f *testing.F) {
	for _, s := range []string{"", "gzip", "gzip;q=0", "br;q=1.0, *;q=0", "identity;q=0, zstd;q=0.001", "*", "gzip;q=0.5,GZIP", " ,x-gzip ; q=0.9", "gzip;q=1.001", "a\nb"} {
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, one, two string) {
		if len(one)+len(two) > 4<<10 {
			return
		}
		lines := []string{one, two}
		a := parseAccept(one + "," + two)
		best := a.best(func(coding) bool { return true })
		for c := range codings {
			want, named := weightOf(lines, c.String())
			if c == gzipCoding {
				if q, ok := weightOf(lines, "x-gzip"); ok && (!named || q < want) {
					want, named = q, true
				}
			}
			if !named {
				want, named = weightOf(lines, "*")
			}
			if !named {
				want = 0
			}
			require.Equal(t, int(want*1000+0.5), a.weighs(c), "%s of %q", c, lines)
			if c == best {
				require.Positive(t, want)
			}
		}
	})
}

func weightOf(lines []string, name string) (lowest float64, named bool) {
	for _, member := range strings.Split(strings.Join(lines, ","), ",") {
		n, params, _ := strings.Cut(member, ";")
		if !strings.EqualFold(strings.Trim(n, " \t"), name) {
			continue
		}
		q := 1.0
		if params = strings.Trim(params, " \t"); params != "" {
			digits, ok := strings.CutPrefix(strings.ToLower(params), "q=")
			whole, rest, _ := strings.Cut(digits, ".")
			v, err := strconv.ParseFloat("0"+digits, 64)
			if !ok || whole != "0" && whole != "1" || len(rest) > 3 || strings.Trim(rest, "0123456789") != "" || err != nil || v > 1 {
				if name == "*" || name == "identity" {
					continue
				}
				v = 0
			}
			q = v
		}
		if !named || q < lowest {
			lowest, named = q, true
		}
	}
	return lowest, named
}
