// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// AppendBinary appends the header as it goes over the wire. It fails on a
// version other than 0, 1 and 2, on an extension or a header of more than 65535
// bytes, on a unique id of more than 128, and on a path of a Unix socket that
// does not fit in 108.
//
// Addresses of two families, IPv4 and IPv6, are written as IPv6 with the IPv4
// one mapped. In version 1 all but TCP addresses are written as UNKNOWN.
func (h *ProxyHeader) AppendBinary(b []byte) ([]byte, error) {
	switch h.Version {
	case 1:
		return h.appendV1(b), nil
	case 0, 2:
		return h.appendV2(b)
	}
	return b, fmt.Errorf("l4: PROXY header of version %d", h.Version)
}

func (h *ProxyHeader) appendV1(b []byte) []byte {
	_, isTCP := h.Source.(*net.TCPAddr)
	src, dst, ok := proxyPair(h.Source, h.Destination)
	if !isTCP || !ok {
		return append(b, "PROXY UNKNOWN\r\n"...)
	}
	b = append(b, "PROXY TCP4 "...)
	if src.Addr().Is6() {
		b[len(b)-2] = '6'
	}
	b = append(src.Addr().AppendTo(b), ' ')
	b = append(dst.Addr().AppendTo(b), ' ')
	b = append(strconv.AppendUint(b, uint64(src.Port()), 10), ' ')
	b = strconv.AppendUint(b, uint64(dst.Port()), 10)
	return append(b, '\r', '\n')
}

func (h *ProxyHeader) appendV2(b []byte) ([]byte, error) {
	start := len(b)
	b = append(b, proxyV2Signature...)
	if h.Local {
		return append(b, 0x20, proxyUnspec, 0, 0), nil // section 2.2: no addresses, length zero
	}
	b = append(b, 0x21, proxyUnspec, 0, 0)
	family, b, err := appendProxyAddrs(b, h.Source, h.Destination)
	if err != nil {
		return b[:start], err
	}
	b[start+13] = family
	sum := -1
	for _, t := range h.TLVs {
		switch {
		case t.Type == TLVCRC32C:
			if sum >= 0 {
				return b[:start], fmt.Errorf("l4: PROXY header with two checksums")
			}
			sum = len(b) + 3
			t.Value = make([]byte, 4)
		case t.Type == TLVUniqueID && len(t.Value) > proxyUniqueIDBytes:
			return b[:start], fmt.Errorf("l4: PROXY header with a unique id of %d bytes", len(t.Value))
		case len(t.Value) > math.MaxUint16:
			return b[:start], fmt.Errorf("l4: PROXY header with an extension %#02x of %d bytes", byte(t.Type), len(t.Value))
		}
		b = appendTLV(b, t)
	}
	n := len(b) - start - proxyV2FixedBytes
	if n > math.MaxUint16 {
		return b[:start], fmt.Errorf("l4: PROXY header of %d bytes", n)
	}
	binary.BigEndian.PutUint16(b[start+14:], uint16(n))
	if sum >= 0 {
		binary.BigEndian.PutUint32(b[sum:], crc32.Checksum(b[start:], crc32.MakeTable(crc32.Castagnoli)))
	}
	return b, nil
}

// proxyPair is both addresses in one family; false if one is not IP, or if one
// is TCP and the other UDP.
func proxyPair(src, dst net.Addr) (s, d netip.AddrPort, ok bool) {
	s, sok := addrPort(src)
	d, dok := addrPort(dst)
	if !sok || !dok || src.Network() != dst.Network() {
		return s, d, false
	}
	if s.Addr().Is4() != d.Addr().Is4() {
		s = netip.AddrPortFrom(netip.AddrFrom16(s.Addr().As16()), s.Port())
		d = netip.AddrPortFrom(netip.AddrFrom16(d.Addr().As16()), d.Port())
	}
	return s, d, true
}

// appendProxyAddrs appends the address block of version 2 and says of which
// family it is.
func appendProxyAddrs(b []byte, src, dst net.Addr) (family byte, _ []byte, err error) {
	if s, ok := src.(*net.UnixAddr); ok {
		d, ok := dst.(*net.UnixAddr)
		if !ok || s == nil || d == nil {
			return proxyUnspec, b, nil
		}
		family = proxyUnixStream
		if s.Net == "unixgram" {
			family = proxyUnixDatagram
		}
		for _, name := range []string{s.Name, d.Name} {
			if b, err = appendUnixName(b, name); err != nil {
				return family, b, err
			}
		}
		return family, b, nil
	}
	s, d, ok := proxyPair(src, dst)
	if !ok {
		return proxyUnspec, b, nil
	}
	family = proxyTCP4
	if s.Addr().Is6() {
		family = proxyTCP6
	}
	if _, udp := src.(*net.UDPAddr); udp {
		family++ // the transport is the low half: 1 is a stream, 2 datagrams
	}
	b = append(b, s.Addr().AsSlice()...)
	b = append(b, d.Addr().AsSlice()...)
	b = binary.BigEndian.AppendUint16(b, s.Port())
	return family, binary.BigEndian.AppendUint16(b, d.Port()), nil
}

// appendUnixName is the inverse of [unixName].
func appendUnixName(b []byte, name string) ([]byte, error) {
	abstract := strings.HasPrefix(name, "@")
	if strings.HasPrefix(name, "./@") {
		name = name[2:]
	}
	if len(name) > proxyUnixBytes {
		return b, fmt.Errorf("l4: PROXY header with a path of %d bytes", len(name))
	}
	var field [proxyUnixBytes]byte
	copy(field[:], name)
	if abstract {
		field[0] = 0
	}
	return append(b, field[:]...), nil
}
