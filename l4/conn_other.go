// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package l4

import "net"

// Elsewhere every connection goes the way of net.Conn.

type (
	input  struct{}
	output struct{}
	yields struct{}
)

func (c *Conn) openRaw() {}

func (c *Conn) readRaw([]byte) (int, bool, error) { panic("l4: no raw connection") }

func (c *Conn) readRawBuffer(*BufferPool) (*Buffer, error) { panic("l4: no raw connection") }

func (c *Conn) writeRaw([]byte, bool) (int, error) { panic("l4: no raw connection") }

func (c *Conn) askRaw([]byte, bool, *BufferPool) (*Buffer, int, error) {
	panic("l4: no raw connection")
}

func (c *Conn) tryReadRaw(*BufferPool) (*Buffer, error) { panic("l4: no raw connection") }

func hasNoPeer(uintptr) bool { return false }

// Adopt returns nc: see that of Linux.
//
// It is for package l7: see "Machinery" in the package documentation.
func Adopt(nc net.Conn) net.Conn { return nc }
