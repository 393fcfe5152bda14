// SPDX-License-Identifier: Apache-2.0

package l4

import "net"

// A Batch is for a loop that gives connections a goroutine each, as one that accepts them:
// it lets what is ready on others go before the next ones, each time that a few are at work.
// The zero value is ready to use, by one goroutine. Other systems than Linux do not tell
// what is ready: there it does nothing, as for connections that are no sockets.
//
// It is for package l7: see "Machinery" in the package documentation.
type Batch struct {
	n int
	asker
}

// batchSize is how many are at work at once: their goroutines run for some milliseconds.
const batchSize = 64

// Add counts c, which has got its goroutine, and waits if the batch is full.
func (b *Batch) Add(c net.Conn) {
	if b.n++; b.n%batchSize == 0 && NewConn(c).raw != nil {
		b.ask()
	}
}

// Close is called at the end.
func (b *Batch) Close() { b.close() }
