// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"errors"
	"net"
	"syscall"
	"time"
)

// AcceptPause says what to do when Accept of a listener has failed with err: to call it
// again after pause, or, if again is false, to treat the listener as broken. A pause is
// twice the last one, which is 0 after a success, from 5 ms up to 1 s.
//
// Temporary are a lack of descriptors or memory, an error of the one connection that
// would have been accepted (accept(2), "Error handling"), and any error whose Temporary
// or Timeout method returns true, as in http.Server. [Server] and l7.Server use it.
//
// It is for package l7: see "Machinery" in the package documentation.
func AcceptPause(err error, last time.Duration) (pause time.Duration, again bool) {
	if errors.Is(err, net.ErrClosed) || !mayPass(err) {
		return 0, false
	}
	return min(max(2*last, 5*time.Millisecond), time.Second), true
}

// mayPass reports whether err is temporary: the same call may succeed later.
func mayPass(err error) bool {
	for _, e := range []syscall.Errno{
		syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, // something ran out
		syscall.ECONNABORTED, syscall.ECONNRESET, // the client has left already
		syscall.EPERM,                       // a firewall forbids this client
		syscall.EPROTO, syscall.ENOPROTOOPT, // and the rest is what its packets met
		syscall.ENETDOWN, syscall.ENETUNREACH, syscall.EHOSTDOWN, syscall.EHOSTUNREACH,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	var of interface {
		Timeout() bool
		Temporary() bool
	}
	return errors.As(err, &of) && (of.Timeout() || of.Temporary())
}
