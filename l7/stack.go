// SPDX-License-Identifier: Apache-2.0

package l7

// stackRoom is more stack than a Proxy and most handlers before it need.
const stackRoom = 7 << 10

// growStack grows the stack of a goroutine that serves HTTP/2 streams while there
// is little on it to copy. A stack begins with 2 KiB and would be doubled three
// times on the way down to the socket: a tenth of the cost of a small request.
// Ignore the result.
//
//go:noinline
func growStack(i uint16) byte {
	var room [stackRoom]byte
	return room[i%stackRoom]
}
