// SPDX-License-Identifier: Apache-2.0

package balance_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
)

func TestLocalFault(t *testing.T) {
	dial := func(call string, errno syscall.Errno) error {
		return &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError(call, errno)}
	}
	lookup := func(text string) error {
		return &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: text, Name: "a.example"}}
	}
	for _, test := range []struct {
		err  error
		want bool
	}{
		{nil, false},
		{errors.New("no"), false},
		{dial("socket", syscall.EMFILE), true},
		{dial("socket", syscall.ENFILE), true},
		{dial("connect", syscall.ENOBUFS), true},
		{dial("connect", syscall.ENOMEM), true},
		{dial("connect", syscall.EADDRNOTAVAIL), true},
		{dial("socket", syscall.EAFNOSUPPORT), true},
		{dial("socket", syscall.EACCES), true},
		{dial("socket", syscall.EPERM), true},
		{dial("connect", syscall.EACCES), false},
		{dial("connect", syscall.EPERM), false},
		{dial("connect", syscall.ECONNREFUSED), false},
		{dial("connect", syscall.EHOSTUNREACH), false},
		{dial("connect", syscall.ENETUNREACH), false},
		{lookup("no such host"), false},
		{lookup("dial udp 10.0.0.1:53: socket: " + syscall.EMFILE.Error()), true},
		{lookup(syscall.EMFILE.Error()), true},
		{lookup("read udp 10.0.0.1:53: " + syscall.ECONNREFUSED.Error()), false},
	} {
		require.Equal(t, test.want, balance.LocalFault(test.err), "%v", test.err)
		if test.err != nil {
			require.Equal(t, test.want, balance.LocalFault(fmt.Errorf("x: %w", test.err)), "%v", test.err)
		}
	}
}
