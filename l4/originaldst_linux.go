// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"unsafe"
)

// OriginalDst returns the address that a client has connected to, if a firewall has
// redirected the connection to c (the REDIRECT and DNAT targets of iptables, and redirect
// and dnat of nftables). Of one that was not redirected, or by TPROXY, which leaves its
// local address as it was, it is an error or that address. Linux; elsewhere it is
// errors.ErrUnsupported.
//
// Whoever can connect to the listener directly chooses what it returns no more than its
// local address: a proxy that dials the result must refuse its own address, or it would
// connect to itself without end.
//
// Source: Linux, net/ipv4/netfilter, SO_ORIGINAL_DST.
func OriginalDst(c net.Conn) (netip.AddrPort, error) {
	sc, ok := c.(syscall.Conn)
	for w := c; !ok; sc, ok = w.(syscall.Conn) {
		in, wraps := w.(interface{ NetConn() net.Conn })
		if !wraps {
			return netip.AddrPort{}, errors.ErrUnsupported
		}
		w = in.NetConn()
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return netip.AddrPort{}, err
	}
	local, _ := addrPort(c.LocalAddr())
	var dst netip.AddrPort
	err = onSocket(raw, func(fd uintptr) error {
		if local.Addr().Unmap().Is4() {
			// Nothing of package syscall gets a sockaddr_in. This gets as many bytes, and
			// sets the others to what they are: 0.
			req, err := syscall.GetsockoptIPv6Mreq(int(fd), syscall.IPPROTO_IP, soOriginalDst)
			if err != nil {
				return os.NewSyscallError("getsockopt", err)
			}
			b := req.Multiaddr // family, port, address
			dst = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), binary.BigEndian.Uint16(b[2:4]))
			return nil
		}
		info, err := syscall.GetsockoptIPv6MTUInfo(int(fd), syscall.IPPROTO_IPV6, soOriginalDst) // begins with a sockaddr_in6
		if err != nil {
			return os.NewSyscallError("getsockopt", err)
		}
		port := (*[2]byte)(unsafe.Pointer(&info.Addr.Port))
		dst = netip.AddrPortFrom(netip.AddrFrom16(info.Addr.Addr), binary.BigEndian.Uint16(port[:]))
		return nil
	})
	return dst, err
}
