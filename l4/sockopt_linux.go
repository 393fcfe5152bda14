// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"math"
	"net"
	"os"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// Options that package syscall does not name on all architectures.
const (
	soReusePort        = 15
	ipTransparent      = 19
	ipv6Transparent    = 75
	soOriginalDst      = 80 // of iptables and nftables, at the level of either IP
	ipBindNoPort       = 24 // IP_BIND_ADDRESS_NO_PORT, for IPv6 as well
	soReusePortMIPS    = 0x200
	tcpUserTimeout     = 18
	tcpFastOpen        = 23
	tcpFastOpenConnect = 30
	fastOpenQueue      = 256 // SYNs with data that are not yet connections
)

func setReusePort(fd uintptr) error {
	option := soReusePort
	if strings.HasPrefix(runtime.GOARCH, "mips") {
		option = soReusePortMIPS
	}
	return os.NewSyscallError("setsockopt", syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, option, 1))
}

func setDeferAccept(fd uintptr, d time.Duration) error {
	return os.NewSyscallError("setsockopt", syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_DEFER_ACCEPT, wholeSeconds(d)))
}

// wholeSeconds rounds d, which is positive, up: the kernel takes no parts of a
// second.
func wholeSeconds(d time.Duration) int { return int(min((d-1)/time.Second+1, math.MaxInt32)) }

// apply sets the options on a socket before it is bound or connected.
// Sockets that a listener accepts inherit its own.
func (o *SocketOptions) apply(socket uintptr, network string, listen bool) (err error) {
	fd := int(socket)
	set := func(level, option, value int) {
		if err == nil {
			err = os.NewSyscallError("setsockopt", syscall.SetsockoptInt(fd, level, option, value))
		}
	}
	if o.Mark != 0 {
		set(syscall.SOL_SOCKET, syscall.SO_MARK, int(o.Mark))
	}
	if o.Interface != "" && err == nil {
		err = os.NewSyscallError("setsockopt", syscall.BindToDevice(fd, o.Interface))
	}
	if o.Transparent && strings.HasSuffix(network, "6") {
		set(syscall.IPPROTO_IPV6, ipv6Transparent, 1)
	} else if o.Transparent && network != "unix" {
		set(syscall.IPPROTO_IP, ipTransparent, 1)
	}
	if !strings.HasPrefix(network, "tcp") {
		return err
	}
	if (o.Source.IsValid() || o.Transparent) && !listen {
		// The port is chosen when it connects, not when it binds: one that is in
		// use towards another server will do as well.
		set(syscall.IPPROTO_IP, ipBindNoPort, 1)
	}
	if !o.Delay {
		set(syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1)
	}
	if o.UserTimeout > 0 {
		set(syscall.IPPROTO_TCP, tcpUserTimeout, wholeMilliseconds(o.UserTimeout))
	}
	if o.FastOpen && listen {
		set(syscall.IPPROTO_TCP, tcpFastOpen, fastOpenQueue)
	} else if o.FastOpen {
		set(syscall.IPPROTO_TCP, tcpFastOpenConnect, 1)
	}
	if listen && err == nil { // net does it for those that dial
		err = setKeepAlive(fd, o.keepAlive())
	}
	return err
}

// The most that the kernel takes of each.
const (
	maxKeepAliveSeconds = 1<<15 - 1
	maxKeepAliveCount   = 127
)

// setKeepAlive does what package net does, for a socket that is not its own.
func setKeepAlive(fd int, k net.KeepAliveConfig) (err error) {
	if !k.Enable {
		return nil
	}
	set := func(level, option, value int) {
		if err == nil {
			err = os.NewSyscallError("setsockopt", syscall.SetsockoptInt(fd, level, option, value))
		}
	}
	set(syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1)
	seconds := func(option int, d, std time.Duration) {
		if d == 0 {
			d = std
		}
		if d > 0 {
			set(syscall.IPPROTO_TCP, option, min(wholeSeconds(d), maxKeepAliveSeconds))
		}
	}
	seconds(syscall.TCP_KEEPIDLE, k.Idle, 15*time.Second)
	seconds(syscall.TCP_KEEPINTVL, k.Interval, 15*time.Second)
	if k.Count == 0 {
		k.Count = 9
	}
	if k.Count > 0 {
		set(syscall.IPPROTO_TCP, syscall.TCP_KEEPCNT, min(k.Count, maxKeepAliveCount))
	}
	return err
}

// probePeer has the kernel ask the peer of a socket that was dialled here whether
// it is still there, once it has been silent for long.
func probePeer(c *Conn) {
	if s, ok := c.nc.(*sock); ok && s.dialled && !s.unix {
		s.set("setsockopt", func(fd int) error { return setKeepAlive(fd, new(SocketOptions).keepAlive()) })
	}
}

// Probe is probePeer with other settings. A socket that was accepted has those of its listener.
func (s *sock) Probe(k net.KeepAliveConfig) error {
	if !s.dialled || s.unix {
		return nil
	}
	return s.set("setsockopt", func(fd int) error { return setKeepAlive(fd, k) })
}

func ackNow(raw syscall.RawConn) {
	raw.Control(func(fd uintptr) {
		syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_QUICKACK, 1)
	})
}

// wholeMilliseconds rounds d, which is positive, up.
func wholeMilliseconds(d time.Duration) int {
	return int(min((d-1)/time.Millisecond+1, math.MaxInt32))
}
