// SPDX-License-Identifier: Apache-2.0

package l4

// stackConn is how much stack, in bytes, a Proxy and most handlers before it need. A goroutine
// begins with 2 KiB, which would be doubled deep down on the way to connect(2).
const stackConn = 2400

// growStack grows the stack while there is little on it to copy. Its result has no meaning.
//
//go:noinline
func growStack(i uint16) byte {
	var room [stackConn]byte
	return room[i%stackConn]
}
