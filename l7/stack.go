// SPDX-License-Identifier: Apache-2.0

package l7

// The stack of a goroutine begins with 2 KiB and would be doubled on the way down to
// the socket, twice for a request over HTTP/1 and three times for a stream of HTTP/2: about
// a tenth of the cost of a small request on a goroutine of its own. The funcs below grow it
// while there are few frames on it to copy. They take at most 0, for which the room is not
// even cleared.
const (
	stackHTTP1 = 5 << 10 // bytes that a Proxy and most handlers before it need
	stackHTTP2 = 7 << 10 // likewise
)

//go:noinline
func growStackHTTP1(i int) (b byte) {
	if i > 0 {
		var room [stackHTTP1]byte
		b = room[i%stackHTTP1]
	}
	return b
}

//go:noinline
func growStackHTTP2(i int) (b byte) {
	if i > 0 {
		var room [stackHTTP2]byte
		b = room[i%stackHTTP2]
	}
	return b
}
