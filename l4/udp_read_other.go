// SPDX-License-Identifier: Apache-2.0

//go:build !unix

package l4

import (
	"errors"
	"net"
	"syscall"
)

// A datagramReader reads datagrams; here it holds a buffer while it waits.
type datagramReader struct {
	c    net.Conn
	pool *BufferPool
}

func newDatagramReader(c net.Conn, pool *BufferPool) *datagramReader {
	return &datagramReader{c: c, pool: pool}
}

// read returns one datagram, which its caller gives back to the pool.
func (r *datagramReader) read() (*Buffer, error) { return readDatagram(r.c, r.pool) }

// strayReset reports whether err, from a socket that clients send to, is only
// the ICMP error of a reply to one that has gone: WSAECONNRESET on Windows.
func strayReset(err error) bool { return errors.Is(err, syscall.Errno(10054)) }
