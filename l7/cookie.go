// SPDX-License-Identifier: Apache-2.0

package l7

import "strings"

// CookieValue returns the value of the first cookie of that name that the
// client sent.
func CookieValue(x *Exchange, name string) (string, bool) {
	at, ok := findCookie(&x.Header, name)
	if !ok {
		return "", false
	}
	return x.Header.cookie(at), true
}

// eachCookie calls do for each pair of the Cookie lines until it returns
// false (RFC 6265, section 5.4; quotes are part of the value).
func eachCookie(f *Fields, do func(name, value string) bool) {
	for i := range f.list {
		if !f.list[i].named("Cookie") {
			continue
		}
		rest := f.list[i].Value
		for rest != "" {
			var pair string
			pair, rest, _ = strings.Cut(rest, ";")
			name, value, _ := strings.Cut(pair, "=")
			if name = trimOWS(name); name != "" && !do(name, trimOWS(value)) {
				return
			}
		}
	}
}

// A cookieAt is the position of a cookie in the fields of a request: the line,
// and the offsets in it where the pair begins, its value begins, and both end.
type cookieAt struct {
	line              int
	start, value, end int
}

// findCookie returns where the first cookie of that name is.
func findCookie(f *Fields, name string) (at cookieAt, ok bool) {
	for i := range f.list {
		fd := &f.list[i]
		if !fd.named("Cookie") {
			continue
		}
		if start, value, end := findPair(fd.Value, 0, name); start >= 0 {
			return cookieAt{i, start, value, end}, true
		}
	}
	return at, false
}

// cookie returns the value of a cookie.
func (f *Fields) cookie(at cookieAt) string {
	return trimOWS(f.list[at.line].Value[at.value:at.end])
}

// dropCookie removes the cookies of that name from a request, the first of
// which is at at. It removes lines that held nothing else.
func dropCookie(f *Fields, at cookieAt, name string) { editCookie(f, at, name, "") }

// replaceCookie changes the value of the cookies of that name.
func replaceCookie(f *Fields, at cookieAt, name, value string) {
	editCookie(f, at, name, name+"="+value)
}

// editCookie replaces the pairs of that name by pair, or removes them if pair
// is empty. Other pairs keep their bytes.
func editCookie(f *Fields, at cookieAt, name, pair string) {
	f.edited = true
	keep := f.list[:at.line]
	for i := at.line; i < len(f.list); i++ {
		fd := f.list[i]
		start, end := at.start, at.end
		if i > at.line {
			start = -1
			if fd.named("Cookie") {
				start, _, end = findPair(fd.Value, 0, name)
			}
		}
		if start >= 0 {
			if fd.Value = editPairs(fd.Value, start, end, name, pair); fd.Value == "" {
				continue
			}
		}
		keep = append(keep, fd)
	}
	f.truncate(keep)
}

// editPairs is linear in the length of the line. It copies only if it must: not
// to remove the first or last pair. The first pair of that name is
// line[start:end].
func editPairs(line string, start, end int, name, pair string) string {
	if pair == "" {
		if end == len(line) {
			return line[:max(0, start-1)]
		}
		if again, _, _ := findPair(line, end+1, name); start == 0 && again < 0 {
			return trimOWS(line[end+1:])
		}
	}
	var b strings.Builder
	at := 0
	for start >= 0 {
		b.WriteString(line[at:start])
		if pair != "" {
			if start > 0 {
				b.WriteByte(' ')
			}
			b.WriteString(pair)
			at = end
		} else {
			at = min(end+1, len(line))
		}
		start, _, end = findPair(line, end+1, name)
	}
	b.WriteString(line[at:])
	return strings.TrimRight(trimOWS(b.String()), ";")
}

// findPair returns the offsets of the first pair of that name, at or after
// from, and of its value; start is -1 if there is none.
func findPair(line string, from int, name string) (start, value, end int) {
	for from < len(line) {
		i := skipOWS(line, from)
		if j := i + len(name); j <= len(line) && line[i:j] == name {
			switch j = skipOWS(line, j); {
			case j == len(line) || line[j] == ';':
				return from, j, j
			case line[j] == '=':
				return from, j + 1, pairEnd(line, j+1)
			}
		}
		from = pairEnd(line, from) + 1
	}
	return -1, -1, -1
}

func skipOWS(s string, i int) int {
	for i < len(s) && (s[i] == ' ' || s[i] == '\t') {
		i++
	}
	return i
}

func pairEnd(line string, from int) int {
	if i := strings.IndexByte(line[from:], ';'); i >= 0 {
		return from + i
	}
	return len(line)
}

// cookieAttr reports whether s can be the value of an attribute of a cookie
// (RFC 6265, section 4.1.1).
func cookieAttr(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f || s[i] == ';' {
			return false
		}
	}
	return true
}
