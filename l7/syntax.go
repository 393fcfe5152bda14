// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"encoding/binary"
	"strconv"
	"strings"
	"unsafe"
)

// Character classes of RFC 9110, section 5.6.2 (token), and of request targets
// and authorities (RFC 3986 without the parts that HTTP/1.1 does not use).
const (
	isTokenByte = 1 << iota
	isTargetByte
	isHostByte
	isDigitByte
	isHexByte
	isPlainByte // package url escapes it neither in a path that it parses nor in one that it writes
)

var class = func() (t [256]uint8) {
	for c := 0x21; c < 0x7f; c++ {
		t[c] |= isTokenByte | isTargetByte
	}
	for _, c := range `"(),/:;<=>?@[\]{}` {
		t[c] &^= isTokenByte
	}
	t['#'] &^= isTargetByte // a fragment is never sent (RFC 9112, section 3.2)
	for c := 'a'; c <= 'z'; c++ {
		t[c] |= isHostByte | isPlainByte
		t[c-32] |= isHostByte | isPlainByte
	}
	for c := '0'; c <= '9'; c++ {
		t[c] |= isHostByte | isPlainByte | isDigitByte | isHexByte
	}
	for _, c := range "-_.~/$&+,:;=@" {
		t[c] |= isPlainByte
	}
	for c := 'a'; c <= 'f'; c++ {
		t[c] |= isHexByte
		t[c-32] |= isHexByte
	}
	for _, c := range "-._~!$&'()*+;=%" { // reg-name without the comma
		t[c] |= isHostByte
	}
	return
}()

func all[S ~string | ~[]byte](s S, c uint8) bool {
	for i := 0; i < len(s); i++ {
		if class[s[i]]&c == 0 {
			return false
		}
	}
	return true
}

func isToken(s string) bool { return s != "" && all(s, isTokenByte) }

// valueEnd returns the index of the first control character in s, from i on,
// that is not HTAB: where a field value ends (RFC 9110, section 5.5), normally
// at its CRLF. It is len(s) if there is none. It scans eight bytes at a time.
func valueEnd(s string, i int) int {
	const (
		ones = 0x0101010101010101
		high = 0x8080808080808080
	)
	for b := unsafeBytes(s); i+8 <= len(b); i += 8 {
		w := binary.LittleEndian.Uint64(b[i:])
		low := (w - ones*0x20) &^ w // high bit set where a byte is below 0x20
		x := w ^ ones*0x7f
		del := (x - ones) &^ x // high bit set where a byte is 0x7f
		if (low|del)&high != 0 {
			break // in these eight, or an HTAB
		}
	}
	for ; i < len(s); i++ {
		if c := s[i]; c < 0x20 && c != '\t' || c == 0x7f {
			return i
		}
	}
	return i
}

// validValue reports whether v has no control character but HTAB.
func validValue(v string) bool { return valueEnd(v, 0) == len(v) }

// cleanValue makes v fit to be sent: it replaces control characters by spaces
// and trims white space.
func cleanValue(v string) string {
	if !validValue(v) {
		b := []byte(v)
		for i, c := range b {
			if c < 0x20 && c != '\t' || c == 0x7f {
				b[i] = ' '
			}
		}
		v = string(b)
	}
	return trimOWS(v)
}

func trimOWS[S ~string | ~[]byte](s S) S {
	for len(s) > 0 && (s[0] == ' ' || s[0] == '\t') {
		s = s[1:]
	}
	for len(s) > 0 && (s[len(s)-1] == ' ' || s[len(s)-1] == '\t') {
		s = s[:len(s)-1]
	}
	return s
}

// equalFold compares ASCII strings without regard to case.
func equalFold[A, B ~string | ~[]byte](a A, b B) bool {
	if len(a) != len(b) {
		return false
	}
	for i := 0; i < len(a); i++ {
		if a[i] != b[i] && lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 32
	}
	return c
}

// eachItem calls do for each non-empty item of a comma-separated list, white
// space removed (RFC 9110, section 5.6.1).
func eachItem(list string, do func(item string)) {
	for list != "" {
		item := list
		if i := indexByte(list, ','); i >= 0 {
			item, list = list[:i], list[i+1:]
		} else {
			list = ""
		}
		if item = trimOWS(item); item != "" {
			do(item)
		}
	}
}

// hasItem reports whether a comma-separated list has item, in any case.
func hasItem(list, item string) bool {
	for list != "" {
		v := list
		if i := indexByte(list, ','); i >= 0 {
			v, list = list[:i], list[i+1:]
		} else {
			list = ""
		}
		if equalFold(trimOWS(v), item) {
			return true
		}
	}
	return false
}

func indexByte(s string, c byte) int {
	for i := 0; i < len(s); i++ {
		if s[i] == c {
			return i
		}
	}
	return -1
}

func quote(s string) string { return strconv.Quote(s) }

// unsafeBytes views s as bytes that must not be written to.
func unsafeBytes(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

// unsafeString views b as a string while b does not change.
func unsafeString(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

func cmpOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func formatInt(n int64) string { return strconv.FormatInt(n, 10) }

func pathOK(path string) bool {
	return (path == "*" || strings.HasPrefix(path, "/")) && all(path, isTargetByte) && strings.IndexByte(path, '?') < 0
}

// isUnreserved is RFC 3986, section 2.3.
func isUnreserved(c byte) bool {
	return 'a' <= lower(c) && lower(c) <= 'z' || '0' <= c && c <= '9' || indexByte("-._~", c) >= 0
}

// httpScheme returns "http" or "https" for the scheme in a forwarding field, or
// "". Some proxies send ws or wss for a WebSocket (RFC 6455, section 3).
func httpScheme(s string) string {
	switch {
	case equalFold(s, "https"), equalFold(s, "wss"):
		return "https"
	case equalFold(s, "http"), equalFold(s, "ws"):
		return "http"
	}
	return ""
}
