// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"crypto/tls"
	"io"
	"net"
	"sync"
	"time"
)

// A tlsReader lets a Conn wait for TLS data without a buffer. The descriptor below says
// nothing about plaintext that is already decrypted, so it waits in a read of one byte,
// then takes the rest of the record while the socket below answers with a timeout: a
// *tls.Conn returns what it has decrypted without asking it, and a timeout between two
// records does not break it. Over what is not a socket of ours, the deadline is put into
// the past for that, which takes longer.
type tlsReader struct {
	tls   *tls.Conn
	under *Conn  // which tls reads and writes, if that is a socket; else nil
	drain *drain // nil with under
	one   [1]byte
}

// drain is the deadline of reads where that is how to take what is there.
type drain struct {
	mu       sync.Mutex
	deadline time.Time // the one asked for
	on       bool      // the one in force is in the past, whatever is asked for
}

func newTLSReader(t *tls.Conn) *tlsReader {
	r := &tlsReader{tls: t, under: socketUnder(t.NetConn())}
	if r.under == nil {
		r.drain = new(drain)
	}
	return r
}

func (r *tlsReader) setReadDeadline(t time.Time) error {
	if d := r.drain; d != nil {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.deadline = t; d.on {
			return nil
		}
	}
	return r.tls.SetReadDeadline(t)
}

func (r *tlsReader) setDraining(on bool) error {
	d := r.drain
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.on = on; on {
		return r.tls.SetReadDeadline(time.Unix(1, 0))
	}
	return r.tls.SetReadDeadline(d.deadline)
}

// take reads what is available into p and does not wait. The error is nil if there is
// nothing. One that lasts comes again.
func (r *tlsReader) take(p []byte) (n int, err error) {
	switch {
	case len(p) == 0:
		return 0, nil
	case r.under != nil:
		r.under.flags.set(noReads)
		defer r.under.flags.clear(noReads) // also if a connection between the two, which may be the host's, panics
	case r.setDraining(true) != nil:
		return 0, nil
	default:
		defer r.setDraining(false)
	}
	if n, err = r.tls.Read(p); isTimeout(err) {
		err = nil
	}
	return n, err
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
	n, _ = c.tls.take(b.B[1:])
	c.tookIn(n, nil)
	b.B = b.B[:1+n]
	return b, nil
}

// tryReadTLS returns what the *tls.Conn has read from its connection, but not yet
// returned: it reads whole segments, which may hold more than one record.
func (c *Conn) tryReadTLS(p *BufferPool) (*Buffer, error) {
	b := p.Get()
	n, err := c.tls.take(b.B)
	c.tookIn(n, err)
	if n > 0 {
		b.B = b.B[:n]
		return b, nil // the next read returns the error again
	}
	p.Put(b)
	return nil, err
}

// CutShort reports whether c, of which a read has returned io.EOF, ended TLS without
// close_notify, so that data may be missing. A *tls.Conn returns io.EOF for the end of the
// connection between two records, as it does for a close_notify, after which it reads no more.
// It is known where TLS is over a Conn, as that of TerminateTLS and OriginateTLS is.
//
// It is for package l7: see "Machinery" in the package documentation.
func CutShort(c net.Conn) bool {
	for c = belowTLS(c); c != nil; c = below(c) {
		if conn, ok := c.(*Conn); ok {
			return conn.flags.has(readEOF)
		}
	}
	return false
}

// belowTLS returns what the outermost TLS of c is over; nil if c has none.
func belowTLS(c net.Conn) net.Conn {
	for ; c != nil; c = below(c) {
		if _, ok := c.(*tls.Conn); ok {
			return below(c)
		}
	}
	return nil
}

// below returns what c is over, or nil.
func below(c net.Conn) net.Conn {
	if w, ok := c.(interface{ NetConn() net.Conn }); ok {
		return w.NetConn()
	}
	return nil
}

// maxRecord is the most plaintext of a TLS record (RFC 8446, section 5.1).
const maxRecord = 16 << 10

// socketUnder returns the Conn to which a *tls.Conn over nc writes, if it is one that
// takes sendMore. In between may be wrappers that have NetConn, as a *tls.Conn does.
func socketUnder(nc net.Conn) *Conn {
	for {
		switch c := nc.(type) {
		case *Conn:
			if c.raw == nil {
				return nil
			}
			return c
		case interface{ NetConn() net.Conn }:
			nc = c.NetConn()
		default:
			return nil
		}
	}
}

// writeRecords writes what takes more than one record. A *tls.Conn writes each of them
// by itself; all but the last tell the kernel that more follows, so that it sends them
// in segments as large as those of plain data.
func (c *Conn) writeRecords(p []byte) (n int, err error) {
	last := (len(p) - 1) / maxRecord * maxRecord
	if n, err = c.writeMoreTLS(p[:last]); err != nil {
		return n, err
	}
	m, err := c.writeBare(p[last:])
	return n + m, err
}

func (c *Conn) writeMoreTLS(p []byte) (int, error) {
	if u := c.tls.under; u != nil {
		u.flags.set(moreFollows)
		defer u.flags.clear(moreFollows) // also if the connection, which may be the host's, panics
	}
	return c.writeBare(p)
}
