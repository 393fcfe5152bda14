// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"errors"
	"net"
	"net/netip"
)

// ErrProxyHeader is matched, with [errors.Is], by every error about a PROXY protocol
// header that breaks the specification. The text says how.
var ErrProxyHeader = errors.New("l4: bad PROXY header")

// A ProxyHeader is the header of the PROXY protocol: what the proxy before us
// says of the connection it relays. [ParseProxyHeader] reads one,
// [ProxyHeader.AppendBinary] writes one.
//
// Source: "The PROXY protocol, versions 1 & 2", section 2
// (https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt); comments that
// say "section" mean that document.
type ProxyHeader struct {
	Version int // 1 is text, 2 is binary; 0 is written as 2

	// Local says that the proxy opened the connection for itself, to probe
	// for example: the addresses are those of the socket. Version 2 only.
	Local bool

	// Source and Destination are the client's address and the one it connected
	// to: both *net.TCPAddr, *net.UDPAddr or *net.UnixAddr, or both nil if the
	// header does not tell (LOCAL, UNKNOWN, UNSPEC). When written, anything
	// else counts as nil. IPv4 addresses in their IPv6-mapped form are read and
	// written as IPv4.
	Source, Destination net.Addr

	// TLVs are the extensions, in order. Version 1 has none, and leaves them out. The
	// value of a [TLVCRC32C] is computed when the header is written, and has been
	// verified if it was read.
	TLVs []TLV
}

// TLV returns the value of the first extension of type t. It shares the memory
// of h.
func (h *ProxyHeader) TLV(t TLVType) (value []byte, ok bool) {
	return findTLV(h.TLVs, t)
}

// Limits of the formats (sections 2.1 and 2.2).
const (
	proxyV1MaxBytes    = 107 // with CRLF
	proxyV2FixedBytes  = 16
	proxyUniqueIDBytes = 128
	proxyUnixBytes     = 108 // of one address
)

// proxyV2Signature opens every header of version 2.
const proxyV2Signature = "\r\n\r\n\x00\r\nQUIT\n"

// The fourteenth byte of version 2: address family and transport. Any other
// value must be refused by a receiver (section 2.2).
const (
	proxyUnspec       = 0x00
	proxyTCP4         = 0x11
	proxyUDP4         = 0x12
	proxyTCP6         = 0x21
	proxyUDP6         = 0x22
	proxyUnixStream   = 0x31
	proxyUnixDatagram = 0x32
)

// addrPort is the IP address and port of a TCP or UDP address, an IPv4-mapped
// one as IPv4 and without a zone; false for any other.
func addrPort(a net.Addr) (netip.AddrPort, bool) {
	var ap netip.AddrPort
	switch a := a.(type) {
	case *net.TCPAddr:
		if a != nil {
			ap = a.AddrPort()
		}
	case *net.UDPAddr:
		if a != nil {
			ap = a.AddrPort()
		}
	}
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port()), ap.IsValid()
}
