// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// ParseProxyHeader reads the PROXY header, of either version, that b begins with, and
// returns how many bytes it takes. The header does not refer to b.
//
// The error is [io.ErrUnexpectedEOF] if b is only the beginning of a header (more bytes
// may complete it), and matches [ErrProxyHeader] as soon as no further bytes could make b
// valid. It refuses everything that the specification lets a receiver refuse, since the
// client's address comes from here.
func ParseProxyHeader(b []byte) (h ProxyHeader, n int, err error) {
	switch {
	case len(b) == 0:
		return h, 0, io.ErrUnexpectedEOF
	case b[0] == proxyV2Signature[0]:
		return parseProxyV2(b)
	case b[0] == 'P':
		return parseProxyV1(b)
	}
	return h, 0, proxyErrorf("no signature")
}

func proxyErrorf(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrProxyHeader}, args...)...)
}

// parseProxyV1 reads the line of section 2.1.
func parseProxyV1(b []byte) (ProxyHeader, int, error) {
	const (
		intro   = "PROXY "
		unknown = intro + "UNKNOWN"
	)
	h := ProxyHeader{Version: 1}
	if !mayBegin(b, intro+"TCP4 ") && !mayBegin(b, intro+"TCP6 ") && !mayBegin(b, unknown+" ") && !mayBegin(b, unknown+"\r\n") {
		return h, 0, proxyErrorf("neither TCP4, TCP6 nor UNKNOWN")
	}
	head := b[:min(len(b), proxyV1MaxBytes)]
	end := bytes.IndexAny(head, "\r\n") // a lone CR or LF must not be tolerated
	switch {
	case end < 0 && len(b) < proxyV1MaxBytes, end >= 0 && head[end] == '\r' && end+1 == len(b) && len(b) < proxyV1MaxBytes:
		return h, 0, io.ErrUnexpectedEOF
	case end < 0 || end+1 == len(head):
		return h, 0, proxyErrorf("no CRLF in the first %d bytes", proxyV1MaxBytes)
	case head[end] != '\r' || head[end+1] != '\n':
		return h, 0, proxyErrorf("lone CR or LF")
	}
	line, n := string(head[:end]), end+2
	if strings.HasPrefix(line, unknown) {
		return h, n, nil // whatever follows must be ignored
	}
	f := strings.Split(line, " ")
	if len(f) != 6 {
		return h, 0, proxyErrorf("%d fields; want 6", len(f))
	}
	src, err := parseProxyV1Addr(f[1], f[2], f[4])
	if err != nil {
		return h, 0, err
	}
	dst, err := parseProxyV1Addr(f[1], f[3], f[5])
	if err != nil {
		return h, 0, err
	}
	h.Source, h.Destination = src, dst
	return h, n, nil
}

// mayBegin reports whether b starts with s, or could when more arrives.
func mayBegin(b []byte, s string) bool {
	n := min(len(b), len(s))
	return string(b[:n]) == s[:n]
}

func parseProxyV1Addr(family, addr, port string) (*net.TCPAddr, error) {
	ip, err := netip.ParseAddr(addr) // refuses leading zeroes in IPv4
	if err != nil || ip.Zone() != "" || ip.Is4() != (family == "TCP4") {
		return nil, proxyErrorf("%q is no %s address", addr, family)
	}
	p, err := strconv.ParseUint(port, 10, 16)
	if err != nil || port[0] == '0' && len(port) > 1 {
		return nil, proxyErrorf("%q is no port", port)
	}
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(ip.Unmap(), uint16(p))), nil
}

// parseProxyV2 reads the block of section 2.2.
func parseProxyV2(b []byte) (ProxyHeader, int, error) {
	h := ProxyHeader{Version: 2}
	if !mayBegin(b, proxyV2Signature) {
		return h, 0, proxyErrorf("no signature")
	}
	if len(b) > 12 && (b[12]>>4 != 2 || b[12]&0xf > 1) {
		return h, 0, proxyErrorf("version and command %#02x", b[12])
	}
	if len(b) < proxyV2FixedBytes {
		return h, 0, io.ErrUnexpectedEOF
	}
	h.Local = b[12]&0xf == 0
	family, n := b[13], proxyV2FixedBytes+int(binary.BigEndian.Uint16(b[14:]))
	addrs, ok := proxyAddrBytes(family)
	switch {
	case h.Local: // the block is discarded, the family ignored
	case !ok:
		return h, 0, proxyErrorf("family and transport %#02x", family)
	case n < proxyV2FixedBytes+addrs:
		return h, 0, proxyErrorf("length %d of family and transport %#02x; want at least %d", n-proxyV2FixedBytes, family, addrs)
	}
	if len(b) < n {
		return h, 0, io.ErrUnexpectedEOF
	}
	if h.Local {
		return h, n, nil
	}
	block := bytes.Clone(b[:n])
	h.Source, h.Destination = parseProxyV2Addrs(family, block[proxyV2FixedBytes:])
	tlvs, err := parseTLVs(block[proxyV2FixedBytes+addrs:])
	if err == nil {
		err = checkTLVs(tlvs, block)
	}
	if err != nil {
		return ProxyHeader{Version: 2}, 0, err
	}
	h.TLVs = tlvs
	return h, n, nil
}

// proxyAddrBytes is the size of both addresses and ports of a family; false if
// it must be refused.
func proxyAddrBytes(family byte) (n int, ok bool) {
	switch family {
	case proxyUnspec:
		return 0, true
	case proxyTCP4, proxyUDP4:
		return 2*4 + 2*2, true
	case proxyTCP6, proxyUDP6:
		return 2*16 + 2*2, true
	case proxyUnixStream, proxyUnixDatagram:
		return 2 * proxyUnixBytes, true
	}
	return 0, false
}

func parseProxyV2Addrs(family byte, b []byte) (src, dst net.Addr) {
	size := 4
	switch family {
	case proxyUnspec:
		return nil, nil
	case proxyUnixStream, proxyUnixDatagram:
		network := "unix"
		if family == proxyUnixDatagram {
			network = "unixgram"
		}
		return &net.UnixAddr{Name: unixName(b[:proxyUnixBytes]), Net: network},
			&net.UnixAddr{Name: unixName(b[proxyUnixBytes : 2*proxyUnixBytes]), Net: network}
	case proxyTCP6, proxyUDP6:
		size = 16
	}
	at := func(i int) netip.AddrPort {
		ip, _ := netip.AddrFromSlice(b[i*size : (i+1)*size])
		return netip.AddrPortFrom(ip.Unmap(), binary.BigEndian.Uint16(b[2*size+2*i:]))
	}
	if family == proxyUDP4 || family == proxyUDP6 {
		return net.UDPAddrFromAddrPort(at(0)), net.UDPAddrFromAddrPort(at(1))
	}
	return net.TCPAddrFromAddrPort(at(0)), net.TCPAddrFromAddrPort(at(1))
}

// unixName is the path in a sun_path field: up to the first NUL, or, if it
// begins with one, an abstract name, which package net writes with an @. A path
// that itself begins with an @ gets a ./ in front, to remain a path.
func unixName(b []byte) string {
	if b[0] == 0 {
		name := bytes.TrimRight(b[1:], "\x00")
		if len(name) == 0 {
			return ""
		}
		return "@" + string(name)
	}
	path, _, _ := bytes.Cut(b, []byte{0})
	if path[0] == '@' {
		return "./" + string(path)
	}
	return string(path)
}

// checkTLVs verifies the extensions whose form is laid down. It zeroes the
// checksum in block, which tlvs share, for the time it takes to compute it.
func checkTLVs(tlvs []TLV, block []byte) error {
	var sums int
	for _, t := range tlvs {
		switch t.Type {
		case TLVUniqueID:
			if len(t.Value) > proxyUniqueIDBytes {
				return proxyErrorf("unique id of %d bytes", len(t.Value))
			}
		case TLVSSL:
			if _, err := parseProxySSL(t.Value); err != nil {
				return err
			}
		case TLVCRC32C:
			if sums++; sums > 1 || len(t.Value) != 4 {
				return proxyErrorf("checksum %d of %d bytes", sums, len(t.Value))
			}
			want := binary.BigEndian.Uint32(t.Value)
			clear(t.Value)
			got := crc32.Checksum(block, crc32.MakeTable(crc32.Castagnoli))
			binary.BigEndian.PutUint32(t.Value, want)
			if got != want {
				return proxyErrorf("checksum %08x; want %08x", want, got)
			}
		}
	}
	return nil
}
