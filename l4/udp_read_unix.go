// SPDX-License-Identifier: Apache-2.0

//go:build unix

package l4

import (
	"errors"
	"net"
	"os"
	"syscall"
)

// A datagramReader waits for datagrams without holding a buffer, where the
// system lets it: thousands of flows are mostly waiting.
type datagramReader struct {
	c    net.Conn
	raw  syscall.RawConn // of c, if it is a UDP socket; else nil
	pool *BufferPool
	try  func(fd uintptr) bool // made once

	got *Buffer
	err error
}

func newDatagramReader(c net.Conn, pool *BufferPool) *datagramReader {
	r := &datagramReader{c: c, pool: pool}
	if u, ok := c.(*net.UDPConn); ok {
		r.raw, _ = u.SyscallConn()
		r.try = r.tryRead
	}
	return r
}

// read returns one datagram, which its caller gives back to the pool.
func (r *datagramReader) read() (*Buffer, error) {
	if r.raw == nil {
		return readDatagram(r.c, r.pool)
	}
	r.got, r.err = nil, nil
	if err := r.raw.Read(r.try); err != nil {
		return nil, err
	}
	return r.got, r.err
}

// tryRead reads if there is something; false waits for it.
func (r *datagramReader) tryRead(fd uintptr) bool {
	b := r.pool.Get()
	for {
		n, err := syscall.Read(int(fd), b.B[:cap(b.B)])
		switch err {
		case nil:
			b.B = b.B[:n]
			r.got = b
			return true
		case syscall.EINTR:
			continue
		}
		r.pool.Put(b)
		if err == syscall.EAGAIN {
			return false
		}
		r.err = os.NewSyscallError("read", err)
		return true
	}
}

// strayReset reports whether err, from a socket that clients send to, is only
// the ICMP error of a reply to one that has gone.
func strayReset(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }
