// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"net"
	"sync"
)

// An h2Wire is the connection below one of HTTP/2 to a server. It tells when
// net/http has taken notice of the server's first SETTINGS, and with them of how
// many streams there may be: it reads on only when it is through with all that
// it has read.
type h2Wire struct {
	net.Conn
	settled chan struct{} // closed then, and when the connection has ended before
	once    sync.Once

	// Of the goroutine that reads:
	head [9]byte // of the first frame (RFC 9113, section 4.1)
	n    int     // bytes read
	done bool
}

func (w *h2Wire) settle() { w.once.Do(func() { close(w.settled) }) }

// Read implements [net.Conn].
func (w *h2Wire) Read(p []byte) (int, error) {
	if w.done {
		return w.Conn.Read(p)
	}
	if w.n >= len(w.head) && w.n >= len(w.head)+(int(w.head[0])<<16|int(w.head[1])<<8|int(w.head[2])) {
		w.done = true
		w.settle()
		return w.Conn.Read(p)
	}
	n, err := w.Conn.Read(p)
	if w.n < len(w.head) {
		copy(w.head[w.n:], p[:n])
	}
	w.n += n
	if err != nil {
		w.settle()
	}
	return n, err
}

// Close implements [net.Conn].
func (w *h2Wire) Close() error {
	w.settle()
	return w.Conn.Close()
}
