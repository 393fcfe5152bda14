// SPDX-License-Identifier: Apache-2.0

package l7

import "testing"

// Wherever a head is cut into two reads, its end is the same.
func TestHeadEnd(t *testing.T) {
	const head, rest = "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "\r\n\r\nGET"
	b := []byte(head + rest)
	for cut := range len(head) {
		if n, err := headEnd(b[:cut], 0); n != 0 || err != nil {
			t.Errorf("the first %d bytes: %d, %v", cut, n, err)
		}
		for _, have := range []int{len(head), len(b)} {
			if n, err := headEnd(b[:have], cut); n != len(head) || err != nil {
				t.Errorf("%d bytes, %d of them seen before: %d, %v", have, cut, n, err)
			}
		}
	}
	for _, s := range []string{"\n", "GET / HTTP/1.1\n", "GET / HTTP/1.1\r\nHost: a\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n\n"} {
		if n, err := headEnd([]byte(s), 0); err == nil {
			t.Errorf("%q: %d", s, n)
		}
		var err *headError
		for i := range s {
			_, e := headEnd([]byte(s[:i+1]), i)
			if e != nil {
				err = e
			}
		}
		if err == nil {
			t.Errorf("%q, byte by byte: no error", s)
		}
	}
}

// A head that comes again is not copied again, and one that is almost the same
// is not taken for it.
func TestSameOr(t *testing.T) {
	const head = "GET /1 HTTP/1.1\r\nHost: a\r\n\r\n"
	if n := testing.AllocsPerRun(100, func() { sameOr(head, []byte(head)) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
	for _, other := range []string{"", "GET /2 HTTP/1.1\r\nHost: a\r\n\r\n", head[:len(head)-1], head + "\n"} {
		if got := sameOr(head, []byte(other)); got != other {
			t.Errorf("%q for %q", got, other)
		}
	}
}
