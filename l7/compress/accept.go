// SPDX-License-Identifier: Apache-2.0

package compress

import "strings"

// A coding is a content coding that replies can have.
type coding int

// The codings, in the order in which they are preferred.
const (
	zstdCoding coding = iota
	brotliCoding
	gzipCoding
	codings

	identity = codings // no coding
)

func (c coding) String() string { return [...]string{"zstd", "br", "gzip", "identity"}[c] }

// accepted is the weight of each coding, and of codings that are not named (the last), in
// thousandths: 0 means refused, unlisted means that the client has not named it.
type accepted [codings + 2]int

const (
	others   = codings + 1 // "*"
	unlisted = -1
)

// parseAccept reads Accept-Encoding (RFC 9110, section 12.5.3). A coding whose weight is
// malformed counts as refused, other malformed members as absent, and of two about the same
// coding the lower weight is taken: a client may get an uncompressed reply where it could
// have got a compressed one, but never a coding that it may not understand.
func parseAccept(line string) accepted {
	a := accepted{unlisted, unlisted, unlisted, unlisted, unlisted}
	for line != "" {
		var member string
		member, line, _ = strings.Cut(line, ",")
		name, params, _ := strings.Cut(member, ";")
		c, known := codingOf(strings.Trim(name, " \t"))
		q, ok := weight(params)
		if !ok && known && c < codings { // "*" must not let it in
			q, ok = 0, true
		}
		if known && ok && (a[c] == unlisted || q < a[c]) {
			a[c] = q
		}
	}
	return a
}

func codingOf(name string) (coding, bool) {
	switch {
	case name == "*":
		return others, true
	case strings.EqualFold(name, "gzip"), strings.EqualFold(name, "x-gzip"): // RFC 9110, section 8.4.1.3
		return gzipCoding, true
	case strings.EqualFold(name, "br"):
		return brotliCoding, true
	case strings.EqualFold(name, "zstd"):
		return zstdCoding, true
	case strings.EqualFold(name, "identity"):
		return identity, true
	}
	return 0, false
}

// weighs returns the weight of a coding. Identity is unlisted unless it was named, or
// refused by "*".
func (a *accepted) weighs(c coding) int {
	switch q := a[c]; {
	case q != unlisted:
		return q
	case c != identity:
		return max(a[others], 0)
	case a[others] == 0:
		return 0
	}
	return unlisted
}

// best returns the coding with the highest weight among those in use, the first among
// equals; identity if the client accepts none of them, or prefers identity.
func (a *accepted) best(use func(coding) bool) coding {
	best, most := identity, 0
	for c := range codings {
		if q := a.weighs(c); q > most && use(c) {
			best, most = c, q
		}
	}
	if a.weighs(identity) > most {
		return identity
	}
	return best
}

// weight reads the parameters of a member: nothing, or a weight (RFC 9110, section 12.4.2)
// in thousandths.
func weight(params string) (q int, ok bool) {
	if params = strings.Trim(params, " \t"); params == "" {
		return 1000, true
	}
	if len(params) < 3 || len(params) > len("q=0.000") || params[0]|0x20 != 'q' || params[1] != '=' {
		return 0, false
	}
	switch params[2] {
	case '0':
	case '1':
		q = 1000
	default:
		return 0, false
	}
	if len(params) > 3 && params[3] != '.' {
		return 0, false
	}
	for i, place := 4, 100; i < len(params); i, place = i+1, place/10 {
		d := params[i]
		if d < '0' || d > '9' {
			return 0, false
		}
		q += int(d-'0') * place
	}
	return q, q <= 1000
}
