// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"crypto/tls"
	"io"
	"sync"
	"time"
)

// A tlsReader lets a Conn wait for TLS data without a buffer. The descriptor
// below says nothing about plaintext that is already decrypted, so it waits
// in a read of one byte, then takes the rest of the record with the deadline
// in the past: a *tls.Conn serves what it has decrypted without looking at the
// deadline, and a timeout between two records does it no harm.
type tlsReader struct {
	tls *tls.Conn
	one [1]byte

	mu       sync.Mutex
	deadline time.Time // the one asked for
	draining bool      // the deadline in force is in the past, whatever is asked for
}

func (r *tlsReader) setReadDeadline(t time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.deadline = t
	if r.draining {
		return nil
	}
	return r.tls.SetReadDeadline(t)
}

func (r *tlsReader) setDraining(on bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.draining = on
	if on {
		return r.tls.SetReadDeadline(time.Unix(1, 0))
	}
	return r.tls.SetReadDeadline(r.deadline)
}

// drain reads what is at hand into p and does not wait.
func (r *tlsReader) drain(p []byte) (n int) {
	if len(p) == 0 || r.setDraining(true) != nil {
		return 0
	}
	defer r.setDraining(false)
	n, _ = r.tls.Read(p) // an error that lasts comes again
	return n
}

func (c *Conn) readTLSBuffer(p *BufferPool) (*Buffer, error) {
	n, err := c.readBare(c.tls.one[:])
	if n == 0 {
		if err == nil {
			err = io.ErrNoProgress
		}
		return nil, err
	}
	b := p.Get()
	b.B[0] = c.tls.one[0]
	n = c.tls.drain(b.B[1:])
	c.tookIn(n, nil)
	b.B = b.B[:1+n]
	return b, nil
}
