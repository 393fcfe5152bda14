// SPDX-License-Identifier: Apache-2.0

package l7

// stackRoom is more than what a Proxy and most handlers before it need.
const stackRoom = 7 << 10

// growStack makes room on the stack of a goroutine that serves streams of HTTP/2,
// while there is little on it. It begins with 2 KiB, and would be
// copied to one of twice the size three times on the way down to the socket: a
// tenth of the cost of a small request. The result, one of the zeros in room,
// is to be ignored.
//
//go:noinline
func growStack(i uint16) byte {
	var room [stackRoom]byte
	return room[i%stackRoom]
}
