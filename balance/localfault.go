// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
)

// LocalFault reports whether err, of connecting to a server, is the fault of this machine: it
// lacks descriptors, memory, ports or an address of the family, or lets the process have no
// socket. That says nothing of the server, so the class of the outcome is [Canceled].
//
// It also sees what the lookup of the server's name lacked.
func LocalFault(err error) bool {
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		if errno == syscall.EACCES || errno == syscall.EPERM { // to have a socket at all, not to connect it
			call, ok := errors.AsType[*os.SyscallError](err)
			return ok && call.Syscall == "socket"
		}
		return slices.Contains(lacks(), errno)
	}
	dns, ok := errors.AsType[*net.DNSError](err) // it keeps the text of its cause only
	return ok && slices.ContainsFunc(lacks(), func(errno syscall.Errno) bool { return strings.HasSuffix(dns.Err, errno.Error()) })
}

func lacks() []syscall.Errno {
	return []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EADDRNOTAVAIL, syscall.EAFNOSUPPORT}
}
