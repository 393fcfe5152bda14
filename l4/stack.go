// SPDX-License-Identifier: Apache-2.0

package l4

// stackConn is how much stack, in bytes, a Proxy and most handlers before it need. A goroutine
// begins with 2 KiB, which would be doubled deep down on the way to connect(2).
const stackConn = 2400

// growStack grows the stack while there are few frames on it to copy. It takes 0, for which
// the room is not even cleared.
//
//go:noinline
func growStack(i int) (b byte) {
	if i > 0 {
		var room [stackConn]byte
		b = room[i%stackConn]
	}
	return b
}
