// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// temporary is an error as listeners of hosts may have them.
type temporary bool

func (temporary) Error() string     { return "temporary" }
func (temporary) Timeout() bool     { return false }
func (t temporary) Temporary() bool { return bool(t) }

func TestAcceptPause(t *testing.T) {
	as := func(err error) error {
		return fmt.Errorf("wrapped: %w", &net.OpError{Op: "accept", Net: "tcp", Err: os.NewSyscallError("accept4", err)})
	}
	for _, err := range []error{
		as(syscall.EMFILE), as(syscall.ENFILE), as(syscall.ENOBUFS), as(syscall.ENOMEM), as(syscall.ECONNABORTED),
		as(syscall.ECONNRESET), as(syscall.EPERM), as(syscall.EPROTO), as(syscall.ENETDOWN), as(syscall.EHOSTUNREACH),
		os.ErrDeadlineExceeded, temporary(true), &net.OpError{Op: "accept", Err: temporary(true)}, &panicError{"oops"},
	} {
		var got []time.Duration
		pause, again := time.Duration(0), true
		for range 10 {
			pause, again = AcceptPause(err, pause)
			require.True(t, again, err)
			got = append(got, pause/time.Millisecond)
		}
		require.Equal(t, []time.Duration{5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000}, got)
	}
	for _, err := range []error{as(syscall.EBADF), as(syscall.EINVAL), errors.New("broken"), temporary(false), net.ErrClosed,
		&net.OpError{Op: "accept", Err: net.ErrClosed}, errors.Join(syscall.EMFILE, net.ErrClosed)} {
		pause, again := AcceptPause(err, time.Second)
		require.False(t, again, err)
		require.Zero(t, pause)
	}
}
